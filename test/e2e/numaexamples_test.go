//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/examples"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

// examplesOnMachine runs every example that the machine can serve and that needs more than
// [TestExamples] has, one after the other, and holds it against what it promises. One ends
// while the next one starts.
func examplesOnMachine(t *testing.T, node harness.Node, k kernelTopology) {
	ns := namespace(t)
	published := slicesOf(t.Context(), t, node.Name)
	for _, e := range allExamples(t) {
		if e.NeedsOneCPU() {
			continue
		}
		t.Run(e.Name, func(t *testing.T) {
			if lacks := e.Lacks(published); lacks != "" {
				t.Skip("the machine lacks", lacks)
			}
			begin := time.Now()
			applyTo(t, ns, node.Name, e)
			for _, c := range e.Pod.Spec.Containers {
				running(t, ns, e.Name, c.Name)
			}
			t.Logf("it runs after %.1f s", time.Since(begin).Seconds())
			keepsPromise(t, node, k, ns, e)
			if err := cluster.Client.CoreV1().Pods(ns).Delete(t.Context(), e.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// keepsPromise holds an example that runs against what its comment says, as far as the
// kernel's files tell.
func keepsPromise(t *testing.T, node harness.Node, k kernelTopology, namespace string, e examples.Example) {
	promise, ok := examples.Promises[e.Name]
	if !ok {
		t.Fatal("say in examples.Promises what it promises")
	}
	for _, claim := range e.Pod.Spec.ResourceClaims {
		name := claimName(t.Context(), t, namespace, e.Name, claim.Name)
		g := grantOf(t, namespace, name)
		t.Logf("claim %s: CPUs %s", claim.Name, g.CPUs())
		k.checkCPUs(t, g, promise)
		k.checkDisks(t, node, namespace, name, g.CPUs(), promise)
		if promise.Disks > 0 {
			onlyItsDisks(t, node, namespace, e.Name, e.Pod.Spec.Containers[0].Name, name, waitDisks(t, node, k))
		}
	}
	for _, c := range e.Pod.Spec.Containers {
		got := waitExpected(t, node, namespace, e.Pod, c)
		mems := k.memory
		if promise.LocalMemory {
			mems = k.nodesOf(got.Allowed)
		}
		if !got.Mems.Equals(mems) || !got.MemsAllowed.Equals(mems) {
			t.Errorf("container %s has memory of the NUMA nodes %s, its processes of %s, want %s", c.Name, got.Mems, got.MemsAllowed, mems)
		}
	}
}

// waitExpected waits until a container runs on the CPUs that it ought to. The shared
// pool changes while others come and go.
func waitExpected(t *testing.T, node harness.Node, namespace string, pod *corev1.Pod, c corev1.Container) harness.Kernel {
	t.Helper()
	var got harness.Kernel
	if err := harness.Wait(t.Context(), startLimit, "container "+c.Name+" to run where it ought to", func(ctx context.Context) (err error) {
		if got, err = cluster.Kernel(ctx, namespace, pod.Name, c.Name); err != nil {
			return err
		}
		if want := expected(ctx, t, node, namespace, pod, c); !got.Allowed.Equals(want) || !got.Cgroup.Equals(want) {
			return fmt.Errorf("processes %s, cgroup %s, want %s", got.Allowed, got.Cgroup, want)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	return got
}

func grantOf(t *testing.T, namespace, claim string) allocator.Grant {
	t.Helper()
	for _, g := range grants(t) {
		if g.Namespace == namespace && g.Name == claim {
			return g
		}
	}
	t.Fatalf("claim %s/%s has no grant", namespace, claim)
	return allocator.Grant{}
}

// checkCPUs holds the CPUs of a claim against a promise.
func (k kernelTopology) checkCPUs(t *testing.T, g allocator.Grant, want examples.Promise) {
	t.Helper()
	cpus := g.CPUs()
	if nodes := k.nodesOf(cpus); want.Nodes != 0 && nodes.Size() != want.Nodes {
		t.Errorf("CPUs %s are on the NUMA nodes %s, want %d", cpus, nodes, want.Nodes)
	}
	if want.Groups != 0 && k.groups(cpus) != want.Groups {
		t.Errorf("CPUs %s are of %d L3 groups, want %d", cpus, k.groups(cpus), want.Groups)
	}
	if isolated := cpus.Intersection(k.isolated); want.Isolated && !isolated.Equals(cpus) || !want.Isolated && !isolated.IsEmpty() {
		t.Errorf("of the CPUs %s, %s are isolated", cpus, isolated)
	}
	var first topology.CPUSet
	for _, cpu := range cpus.List() {
		first = first.Union(topology.NewCPUSet(k.siblings[cpu].First()))
		if !k.siblings[cpu].IsSubsetOf(cpus) {
			t.Errorf("CPUs %s split the core %s", cpus, k.siblings[cpu])
		}
	}
	if want.Idle && !g.RunsOn("").Equals(first) {
		t.Errorf("of the CPUs %s it runs on %s, want the first thread of each core", cpus, g.RunsOn(""))
	}
	if want.Halves {
		for _, numa := range k.nodes {
			if on := numa.cpus.IntersectionSize(cpus); on != 0 && 2*on != cpus.Size() {
				t.Errorf("%d of the CPUs %s are on NUMA node %d", on, cpus, numa.id)
			}
		}
	}
	var whole topology.CPUSet
	switch want.Whole {
	case examples.L3Group:
		whole = k.l3[cpus.First()]
	case examples.Socket:
		whole = k.sockets[cpus.First()]
	case examples.NUMANode:
		for _, numa := range k.nodes {
			if numa.cpus.Intersects(cpus) {
				whole = numa.cpus
			}
		}
	default:
		return
	}
	// The machine's first core is reserved, and isolated CPUs are another device's.
	if whole = whole.Difference(k.siblings[0]).Difference(k.isolated); !cpus.Equals(whole) {
		t.Errorf("CPUs %s are not the whole %s, %s", cpus, want.Whole, whole)
	}
}
