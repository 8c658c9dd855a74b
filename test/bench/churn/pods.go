package main

import (
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// pods are those of one namespace as the API server told of them last. It is safe for
// concurrent use.
type pods struct {
	mu      sync.Mutex
	now     map[string]*corev1.Pod
	changed chan struct{} // closed with the next change
	// created are the containers that there were so far, by the runtime's ids.
	created map[string]bool
	// restarts is how often a container of a pod that is gone was started again.
	restarts int
}

// watchPods follows the pods of a namespace until the context ends.
func watchPods(ctx context.Context, client kubernetes.Interface, namespace string) (*pods, error) {
	p := &pods{now: map[string]*corev1.Pod{}, changed: make(chan struct{}), created: map[string]bool{}}
	source := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", namespace, fields.Everything())
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: source, ObjectType: &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    p.set,
			UpdateFunc: func(_, now any) { p.set(now) },
			DeleteFunc: p.remove,
		},
	})
	go controller.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), controller.HasSynced) {
		return nil, fmt.Errorf("watch pods: %w", context.Cause(ctx))
	}
	return p, nil
}

func (p *pods) set(object any) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now[pod.Name] = pod
	for _, c := range pod.Status.ContainerStatuses {
		if c.ContainerID != "" {
			p.created[c.ContainerID] = true
		}
	}
	p.tell()
}

func (p *pods) remove(object any) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.now, pod.Name)
	for _, c := range pod.Status.ContainerStatuses {
		p.restarts += int(c.RestartCount)
	}
	p.tell()
}

// tell wakes who waits. The caller holds the lock.
func (p *pods) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait returns when the condition holds for a pod, which is nil while there is none, or
// with the context's end.
func (p *pods) wait(ctx context.Context, name string, condition func(*corev1.Pod) bool) error {
	for {
		p.mu.Lock()
		pod, changed := p.now[name], p.changed
		p.mu.Unlock()
		if condition(pod) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// counts are of one moment, but for created.
type counts struct {
	created, running, restarts int
	// pending are exclusive pods that the scheduler has found no CPUs for.
	pending int
}

func (p *pods) count() counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := counts{created: len(p.created), restarts: p.restarts}
	for _, pod := range p.now {
		for _, s := range pod.Status.ContainerStatuses {
			if s.State.Running != nil {
				c.running++
			}
		}
		if pod.Labels[kindLabel] == exclusiveKind && pod.Spec.NodeName == "" {
			c.pending++
		}
	}
	return c
}

// allRun is true for a pod whose containers run, all of them.
func allRun(pod *corev1.Pod) bool {
	if pod == nil || len(pod.Status.ContainerStatuses) < len(pod.Spec.Containers) {
		return false
	}
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Running == nil {
			return false
		}
	}
	return true
}

// isPending is true for a pod that the scheduler has tried and found no node for.
func isPending(pod *corev1.Pod) bool {
	return pod != nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse
	})
}

func isGone(pod *corev1.Pod) bool { return pod == nil }
