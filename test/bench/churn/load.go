package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

const (
	kindLabel     = "churn.topolet.dev/kind"
	sharedKind    = "shared"
	exclusiveKind = "exclusive"

	claimName = "cpus"

	// deleteLimit is how long a pod may take to end; one whose containers are still being
	// started by a busy runtime ends after that.
	deleteLimit = 5 * time.Minute
	setupLimit  = time.Minute
)

// load keeps pods coming and going.
type load struct {
	*bench
	namespace string
	pods      *pods
	observer  *observer
	// cores is how many CPUs a claim for one gets: the threads of a core.
	cores int
	// starting has room, for each kind, for as many pods as may be started at the same time.
	// One for which there are no CPUs is not being started.
	starting map[string]chan struct{}

	mu   sync.Mutex
	logs logCheck
}

// logCheck is what the exclusive containers' own logs said. Each says first where it may
// run at its first instruction.
type logCheck struct {
	// Read are those that had a line.
	Read int
	// Elsewhere are those that started on other CPUs than they ran on later, or on more or
	// fewer than the claim has.
	Elsewhere int
	// First is the first of them.
	First string `json:",omitempty"`
}

// prepare makes the namespace and the claims' template.
func (l *load) prepare(ctx context.Context) error {
	namespaces := l.Client.CoreV1().Namespaces()
	if _, err := namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.namespace}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create a namespace: %w", err)
	}
	template := &resourceapi.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: claimName},
		Spec: resourceapi.ResourceClaimTemplateSpec{Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{
			Requests: []resourceapi.DeviceRequest{{
				Name: claimName,
				Exactly: &resourceapi.ExactDeviceRequest{
					DeviceClassName: "cpu.topolet.dev",
					Capacity: &resourceapi.CapacityRequirements{
						Requests: map[resourceapi.QualifiedName]resource.Quantity{draplugin.CapacityCPUs: resource.MustParse("1")},
					},
				},
			}},
		}}},
	}
	if _, err := l.Client.ResourceV1().ResourceClaimTemplates(l.namespace).Create(ctx, template, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create a template of claims: %w", err)
	}
	// Without it no pod is admitted.
	return harness.Wait(ctx, setupLimit, "the namespace's service account", func(ctx context.Context) error {
		_, err := l.Client.CoreV1().ServiceAccounts(l.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// run keeps the pods coming and going until the context ends. The first error ends it.
func (l *load) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var slots sync.WaitGroup
	for i := range l.options.sharedPods() + l.options.exclusive {
		kind := sharedKind
		if i >= l.options.sharedPods() {
			kind = exclusiveKind
		}
		slots.Go(func() { cancel(l.slot(ctx, kind, i)) }) // only the first has an effect
	}
	slots.Wait()
	return context.Cause(ctx)
}

// slot is the place of one pod at a time. It returns only with an error.
func (l *load) slot(ctx context.Context, kind string, place int) error {
	random := rand.New(rand.NewPCG(l.options.seed, uint64(place))) //nolint:gosec // the same each time
	for generation := 0; ; generation++ {
		life := time.Duration((0.5 + random.Float64()) * float64(l.options.life))
		name := fmt.Sprintf("%s-%02d-%04d", kind, place, generation)
		if err := l.live(ctx, kind, name, life); err != nil {
			return err
		}
	}
}

// live has one pod live from its creation until it is gone.
func (l *load) live(ctx context.Context, kind, name string, life time.Duration) error {
	if err := l.start(ctx, kind, name); err != nil {
		return err
	}
	if err := l.pods.wait(ctx, name, allRun); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(life):
	}
	if kind == exclusiveKind {
		l.readLog(ctx, name)
	}
	if err := l.Client.CoreV1().Pods(l.namespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete a pod: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, deleteLimit, fmt.Errorf("waited %v for pod %s to be gone", deleteLimit, name))
	defer cancel()
	return l.pods.wait(ctx, name, isGone)
}

// start creates a pod when it may start, and returns when it runs or is pending.
func (l *load) start(ctx context.Context, kind, name string) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case l.starting[kind] <- struct{}{}:
	}
	defer func() { <-l.starting[kind] }()
	pod, err := l.Client.CoreV1().Pods(l.namespace).Create(ctx, l.pod(kind, name), metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create a pod: %w", err)
	}
	if kind == exclusiveKind {
		if err := l.observer.exclusive(string(pod.UID)); err != nil {
			return err
		}
	}
	return l.pods.wait(ctx, name, func(pod *corev1.Pod) bool { return allRun(pod) || isPending(pod) })
}

// readLog checks what an exclusive container says of itself. That a busy kubelet does
// not hand out a log is no fault.
func (l *load) readLog(ctx context.Context, pod string) {
	lines, err := l.Lines(ctx, l.namespace, pod, exclusiveKind)
	if err != nil || len(lines) == 0 {
		return
	}
	complaint := misplaced(lines, l.cores)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logs.Read++
	if complaint == "" {
		return
	}
	l.logs.Elsewhere++
	if l.logs.First == "" {
		l.logs.First = "pod " + pod + ": " + complaint
	}
}

// misplaced says what is wrong with the log of a container that has so many CPUs from
// its first instruction to the last; nothing if all is well.
func misplaced(lines []harness.Line, cpus int) string {
	first, err := topology.ParseCPUSet(lines[0].CPUsAllowed)
	if err != nil || lines[0].Event != "start" {
		return fmt.Sprintf("its log begins with %+v", lines[0])
	}
	if first.Size() != cpus {
		return fmt.Sprintf("it started on CPUs %s, a claim has %d", first, cpus)
	}
	for _, line := range lines[1:] {
		if line.CPUsAllowed != lines[0].CPUsAllowed {
			return fmt.Sprintf("it started on CPUs %s and was on %s later", first, line.CPUsAllowed)
		}
	}
	return ""
}

func (l *load) logged() logCheck {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.logs
}

func (l *load) pod(kind, name string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{kindLabel: kind}},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{corev1.LabelHostname: l.node.Name},
			// A network of its own has nothing to do with CPUs, and takes an emulated
			// machine seconds.
			HostNetwork:                   true,
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			AutomountServiceAccountToken:  ptr.To(false),
			EnableServiceLinks:            ptr.To(false),
		},
	}
	if kind == sharedKind {
		for i := range l.options.perPod {
			p.Spec.Containers = append(p.Spec.Containers, l.container(fmt.Sprintf("%s-%d", kind, i), "1m", "1h"))
		}
		return p
	}
	// The request keeps as many pods off the node as the claims would, also without them.
	c := l.container(exclusiveKind, fmt.Sprint(l.cores), "1s")
	if !l.options.without {
		c.Resources.Claims = []corev1.ResourceClaim{{Name: claimName}}
		p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: claimName, ResourceClaimTemplateName: ptr.To(claimName)}}
	}
	p.Spec.Containers = []corev1.Container{c}
	return p
}

// container sleeps, but for a look at its own CPUs once in an interval.
func (l *load) container(name, cpu, interval string) corev1.Container {
	return corev1.Container{
		Name: name, Image: l.Var("TESTBED_WORKLOAD_IMAGE"), ImagePullPolicy: corev1.PullNever,
		Args:      []string{"-interval=" + interval},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}},
	}
}

// remove deletes the namespace, for a cluster that stays.
func (l *load) remove(ctx context.Context) error {
	err := l.Client.CoreV1().Namespaces().Delete(ctx, l.namespace, metav1.DeleteOptions{})
	if err != nil {
		return fmt.Errorf("delete the namespace: %w", err)
	}
	return harness.Wait(ctx, deleteLimit, "the namespace to be gone", func(ctx context.Context) error {
		_, err := l.Client.CoreV1().Namespaces().Get(ctx, l.namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(errors.New("it is there"), err)
	})
}
