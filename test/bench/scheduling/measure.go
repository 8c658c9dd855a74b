package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/test/harness"
)

// result is what one measurement found.
type result struct {
	model string
	// pods are all, of which some ask for something impossible.
	pods, impossible, bound int
	// took is from the first creation until the last of the other pods was bound, or
	// the limit.
	took time.Duration
	metrics
}

func (r result) rate() float64 { return float64(r.bound) / r.took.Seconds() }

// metrics are the scheduler's own. Attempts are with the binding, and with the waits
// for its own limit of requests to the API server.
type metrics struct {
	algorithm, attempts   histogram
	unschedulable, errors int
}

func parseMetrics(text []byte) (metrics, error) {
	const attempts = "scheduler_scheduling_attempt_duration_seconds"
	var m metrics
	var unschedulable, failed histogram
	for _, of := range []struct {
		into        *histogram
		name, label string
	}{
		{&m.algorithm, "scheduler_scheduling_algorithm_duration_seconds", ""},
		{&m.attempts, attempts, ""},
		{&unschedulable, attempts, `result="unschedulable"`},
		{&failed, attempts, `result="error"`},
	} {
		var err error
		if *of.into, err = readHistogram(bytes.NewReader(text), of.name, of.label); err != nil {
			return metrics{}, err
		}
	}
	m.unschedulable, m.errors = unschedulable.count(), failed.count()
	return m, nil
}

func (m metrics) since(before metrics) metrics {
	return metrics{
		algorithm: m.algorithm.since(before.algorithm), attempts: m.attempts.since(before.attempts),
		unschedulable: m.unschedulable - before.unschedulable, errors: m.errors - before.errors,
	}
}

// measureOnce measures on a new cluster, and removes it.
func measureOnce(ctx context.Context, progress io.Writer, o options, m model, mix int) (r result, err error) {
	testbed, err := harness.New(o.state, progress)
	if err != nil {
		return r, err
	}
	defer func() {
		fmt.Fprintln(progress, "scheduling: removing the cluster")
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
		defer cancel()
		err = errors.Join(err, testbed.Down(ctx))
	}()
	c := &cluster{Cluster: testbed, progress: progress}
	c.say("%s, %d pods, 1 in %d impossible", m.name, o.pods, mix)
	if err := c.up(ctx, o); err != nil {
		return r, err
	}
	if err := c.fill(ctx, o, m); err != nil {
		return r, err
	}
	before, err := c.schedulerMetrics(ctx)
	if err != nil {
		return r, err
	}
	if r, err = c.measure(ctx, o, m, mix); err != nil {
		return r, err
	}
	after, err := c.schedulerMetrics(ctx)
	r.metrics = after.since(before)
	return r, err
}

// measure creates the pods and waits until those that can be are bound, or until
// the limit.
func (c *cluster) measure(ctx context.Context, o options, m model, mix int) (result, error) {
	r := result{model: m.name, pods: o.pods}
	errLimit := fmt.Errorf("waited %v for the pods to be bound", o.limit)
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, errLimit)
	defer cancel()
	var loads []load
	for i := range o.pods {
		if mix > 0 && i%mix == mix-1 {
			r.impossible++
			loads = append(loads, m.pod(fmt.Sprintf("impossible-%04d", i), impossibleCPUs))
		} else {
			loads = append(loads, m.pod(fmt.Sprintf("pod-%04d", i), claimCPUs))
		}
	}
	bound, err := c.watchBound(ctx)
	if err != nil {
		return r, err
	}
	start := time.Now()
	created := make(chan error, 1)
	go func() {
		created <- inParallel(ctx, len(loads), func(ctx context.Context, i int) error { return c.create(ctx, loads[i]) })
	}()
	for r.bound < r.pods-r.impossible && err == nil {
		var name string
		if name, err = bound.next(ctx); err != nil {
			break
		}
		if strings.HasPrefix(name, "impossible") {
			err = fmt.Errorf("pod %s is bound, and asks for %d CPUs of one NUMA node", name, impossibleCPUs)
		}
		r.bound++
		r.took = time.Since(start)
		if r.bound%50 == 0 {
			c.say("%d of %d pods are bound after %v", r.bound, r.pods-r.impossible, r.took.Round(time.Second))
		}
	}
	if errors.Is(err, errLimit) {
		c.say("%v: %d are", errLimit, r.bound)
		err, r.took = nil, o.limit
	}
	if err != nil {
		cancel()
	}
	if failed := <-created; err == nil && !errors.Is(failed, errLimit) {
		err = failed
	}
	return r, err
}

// load is a pod and its claim.
type load struct {
	pod   *corev1.Pod
	claim *resourceapi.ResourceClaim
}

// pod asks for CPUs of one NUMA node of any simulated node.
func (m model) pod(name string, cpus int64) load {
	return load{
		claim: &resourceapi.ResourceClaim{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       resourceapi.ResourceClaimSpec{Devices: m.request(cpus)},
		},
		pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PodSpec{
				NodeSelector:                 map[string]string{labelSimulated: "true"},
				Tolerations:                  []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
				AutomountServiceAccountToken: ptr.To(false),
				ResourceClaims:               []corev1.PodResourceClaim{{Name: requestName, ResourceClaimName: ptr.To(name)}},
				Containers: []corev1.Container{{
					Name: "main", Image: "registry.example/never-started",
					Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: requestName}}},
				}},
			},
		},
	}
}

func (c *cluster) create(ctx context.Context, l load) error {
	if _, err := c.client.ResourceV1().ResourceClaims(metav1.NamespaceDefault).Create(ctx, l.claim, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create a claim: %w", err)
	}
	if _, err := c.client.CoreV1().Pods(metav1.NamespaceDefault).Create(ctx, l.pod, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create a pod: %w", err)
	}
	return nil
}

// boundPods tells of each pod that is bound, once.
type boundPods struct {
	events watch.Interface
	seen   map[string]bool
}

// watchBound sees the pods that are bound from now on, until the context ends.
func (c *cluster) watchBound(ctx context.Context) (*boundPods, error) {
	pods := c.client.CoreV1().Pods(metav1.NamespaceDefault)
	now, err := pods.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	events, err := pods.Watch(ctx, metav1.ListOptions{ResourceVersion: now.ResourceVersion})
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	b := &boundPods{events: events, seen: map[string]bool{}}
	for _, pod := range now.Items {
		b.seen[pod.Name] = true
	}
	return b, nil
}

// next waits for another pod to be bound and returns its name.
func (b *boundPods) next(ctx context.Context) (string, error) {
	for {
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case event, open := <-b.events.ResultChan():
			if ctx.Err() != nil {
				return "", context.Cause(ctx)
			}
			if !open {
				return "", errors.New("the API server ended the watch of pods")
			}
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				return "", fmt.Errorf("watch pods: %w", apierrors.FromObject(event.Object))
			}
			if pod.Spec.NodeName != "" && !b.seen[pod.Name] {
				b.seen[pod.Name] = true
				return pod.Name, nil
			}
		}
	}
}
