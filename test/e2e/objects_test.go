//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
)

const (
	// startLimit covers four containers of whole NUMA nodes on an emulated machine whose
	// host is busy with other work.
	startLimit  = 15 * time.Minute
	deleteLimit = 5 * time.Minute
	// restartLimit covers the kubelet's back-off before it restarts a daemon
	// that was killed a second time.
	restartLimit = 5 * time.Minute
)

// namespace makes a namespace for the test. When the test ends its pods are
// deleted, their claims are released, and it is removed.
func namespace(t *testing.T) string {
	t.Helper()
	name := "e2e-" + strings.ToLower(rand.Text()[:8])
	_, err := cluster.Client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), deleteLimit)
		defer cancel()
		if t.Failed() {
			describe(ctx, t, name)
		}
		pods, err := cluster.Client.CoreV1().Pods(name).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		for _, p := range pods.Items {
			deletePod(ctx, t, name, p.Name)
		}
		if err := cluster.Client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		waitReleased(ctx, t)
	})
	return name
}

// waitReleased waits until no claim holds anything.
func waitReleased(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := harness.Wait(ctx, deleteLimit, "all claims to be released", func(context.Context) error {
		if held := grants(t); len(held) > 0 {
			return fmt.Errorf("still granted: %+v", held)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// describe says what a person would ask for after a failure.
func describe(ctx context.Context, t *testing.T, namespace string) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "pods,resourceclaims", "--namespace", namespace, "--output", "wide"},
		{"get", "events", "--namespace", namespace},
		{"logs", "--namespace", harness.Namespace, "--selector", "app.kubernetes.io/name=topolet", "--prefix", "--tail", "40"},
	} {
		out, err := cluster.Kubectl(ctx, args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// claimFor makes a claim for exclusive CPUs, changed by the functions, if any.
func claimFor(t *testing.T, namespace, name, cpus string, change ...func(*resourceapi.DeviceClaim)) {
	t.Helper()
	claim := &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{
			Requests: []resourceapi.DeviceRequest{{
				Name: "cpus",
				Exactly: &resourceapi.ExactDeviceRequest{
					DeviceClassName: "cpu.topolet.dev",
					Capacity: &resourceapi.CapacityRequirements{
						Requests: map[resourceapi.QualifiedName]resource.Quantity{draplugin.CapacityCPUs: resource.MustParse(cpus)},
					},
				},
			}},
		}},
	}
	for _, f := range change {
		f(&claim.Spec.Devices)
	}
	if _, err := cluster.Client.ResourceV1().ResourceClaims(namespace).Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// withParameters adds opaque parameters for this driver to a claim.
func withParameters(raw string) func(*resourceapi.DeviceClaim) {
	return func(d *resourceapi.DeviceClaim) {
		d.Config = append(d.Config, resourceapi.DeviceClaimConfiguration{
			DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
				Driver: draplugin.DriverName, Parameters: runtime.RawExtension{Raw: []byte(raw)},
			}},
		})
	}
}

// podOf is a pod of the workload image whose container main has these claims. It is on the
// host's network: to make one of its own takes an emulated machine seconds.
func podOf(name string, claims ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			HostNetwork:                   true,
			TerminationGracePeriodSeconds: ptr.To[int64](5),
			Containers:                    []corev1.Container{workload("main", claims...)},
		},
	}
	for _, claim := range claims {
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: claim, ResourceClaimName: ptr.To(claim)})
	}
	return p
}

func workload(name string, claims ...string) corev1.Container {
	c := corev1.Container{
		Name:            name,
		Image:           cluster.Var("TESTBED_WORKLOAD_IMAGE"),
		ImagePullPolicy: corev1.PullNever,
	}
	for _, claim := range claims {
		c.Resources.Claims = append(c.Resources.Claims, corev1.ResourceClaim{Name: claim})
	}
	return c
}

// start creates a pod and waits until its container main runs. It returns what
// the kernel says of it.
func start(t *testing.T, namespace string, p *corev1.Pod) harness.Kernel {
	t.Helper()
	create(t, namespace, p)
	return running(t, namespace, p.Name, "main")
}

func create(t *testing.T, namespace string, p *corev1.Pod) {
	t.Helper()
	if _, err := cluster.Client.CoreV1().Pods(namespace).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func running(t *testing.T, namespace, pod, container string) harness.Kernel {
	t.Helper()
	var k harness.Kernel
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("container %s of pod %s to run", container, pod),
		func(ctx context.Context) error {
			var err error
			k, err = cluster.Kernel(ctx, namespace, pod, container)
			return err
		}); err != nil {
		t.Fatal(err)
	}
	return k
}

// deletePod deletes a pod, waits until it is gone and returns when that was seen.
func deletePod(ctx context.Context, t *testing.T, namespace, name string) time.Time {
	t.Helper()
	err := cluster.Client.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	if err := harness.Wait(ctx, deleteLimit, "pod "+name+" to be gone", func(ctx context.Context) error {
		p, err := cluster.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("pod is %s", p.Status.Phase)
	}); err != nil {
		t.Error(err)
	}
	return time.Now()
}

// waitEvent waits for an event about a pod whose message contains the text.
func waitEvent(t *testing.T, namespace, pod, text string) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("an event of pod %s that says %q", pod, text),
		func(ctx context.Context) error {
			events, err := cluster.Client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			var said []string
			for _, e := range events.Items {
				if e.InvolvedObject.Name != pod {
					continue
				}
				if strings.Contains(e.Message, text) {
					return nil
				}
				said = append(said, e.Message)
			}
			raw, _ := json.Marshal(said)
			return fmt.Errorf("it says %s", raw)
		}); err != nil {
		t.Fatal(err)
	}
}
