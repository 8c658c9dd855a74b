//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/test/examples"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// TestLargeNode runs, on a machine of two sockets and four NUMA nodes with SMT,
// what a small test machine has too few CPUs for: the examples with several
// claims, and a further claim after topolet was killed.
func TestLargeNode(t *testing.T) {
	machine := topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 2, CoresPerL3: 4, Threads: 2}
	m := topologytest.New(machine)
	ns := namespace(t)
	n := newPaperNode(t, machine)

	var taken topology.CPUSet
	take := func(t *testing.T, container, list string) topology.CPUSet {
		t.Helper()
		cpus, err := topology.ParseCPUSet(list)
		if err != nil {
			t.Fatal(err)
		}
		if cpus.IsEmpty() || cpus.Intersects(taken) {
			t.Errorf("%s got CPUs %q, while %s are held by others", container, list, taken)
		}
		for _, core := range m.Cores {
			if shared := core.CPUs.IntersectionSize(cpus); shared != 0 && shared != core.CPUs.Size() {
				t.Errorf("%s got CPUs %s, which split the core %s", container, cpus, core.CPUs)
			}
		}
		taken = taken.Union(cpus)
		return cpus
	}
	waitPublished(t.Context(), t, n.name, startLimit, "a device for each NUMA node", func(devices map[string]resourceapi.Device) error {
		for _, numa := range m.NUMANodes {
			if _, ok := devices[fmt.Sprintf("numa-%d", numa.ID)]; !ok {
				return fmt.Errorf("NUMA node %d has none, there are %d", numa.ID, len(devices))
			}
		}
		return nil
	})
	small, large := slicesOf(t.Context(), t, cluster.Node().Name), slicesOf(t.Context(), t, n.name)
	ran := 0
	for _, e := range allExamples(t) {
		if e.Lacks(small) == "" || e.Lacks(large) != "" {
			continue
		}
		ran++
		t.Run(e.Name, func(t *testing.T) {
			applyTo(t, ns, n.name, e)
			created, err := cluster.Client.CoreV1().Pods(ns).Get(t.Context(), e.Name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			nodes := map[int]bool{}
			for container, list := range n.run(t, ns, created) {
				for id := range take(t, container, list).All() {
					cpu, _ := m.CPU(id)
					nodes[cpu.NUMANode] = true
				}
			}
			if want := examples.Promises[e.Name].Nodes; len(e.Claims) == 1 && want != 0 && len(nodes) != want {
				t.Errorf("CPUs of NUMA nodes %v, want %d", nodes, want)
			}
		})
	}
	if ran == 0 {
		t.Error("there is no example for this machine")
	}
	t.Run("a further claim after a kill gets other CPUs", func(t *testing.T) {
		claimFor(t, ns, "before", "4")
		for container, list := range n.run(t, ns, n.pod("before", "before")) {
			take(t, container, list)
		}
		ledger, err := os.ReadFile(n.path("state/checkpoint.json"))
		if err != nil {
			t.Fatal(err)
		}
		n.stop()
		n.startTopolet(t)
		if n.updates != 0 {
			t.Errorf("the restart changed %d containers", n.updates)
		}
		after, err := os.ReadFile(n.path("state/checkpoint.json"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(ledger), string(after)); diff != "" {
			t.Errorf("ledger -before +after:\n%s", diff)
		}
		claimFor(t, ns, "after", "16")
		for container, list := range n.run(t, ns, n.pod("after", "after")) {
			take(t, container, list)
		}
	})
}

// pod is a pod for this node alone.
func (n *paperNode) pod(name string, claims ...string) *corev1.Pod {
	p := podOf(name, claims...)
	p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: n.name}
	// Nobody is there to end its containers.
	p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](0)
	return p
}

// run creates a pod, or takes one that exists, and does what the kubelet would:
// it prepares the pod's claims and creates its containers. It returns the CPUs of
// each container.
func (n *paperNode) run(t *testing.T, namespace string, p *corev1.Pod) map[string]string {
	t.Helper()
	if p.UID == "" {
		create(t, namespace, p)
	}
	pod := n.scheduled(t, namespace, p.Name)
	t.Cleanup(func() {
		if err := cluster.Client.CoreV1().Pods(namespace).Delete(context.Background(), p.Name,
			metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
			t.Error(err)
		}
	})
	devices := map[corev1.ResourceClaim][]string{} // by pod claim and request
	for _, c := range pod.Spec.ResourceClaims {
		answer := n.prepareClaim(t, namespace, claimName(t.Context(), t, namespace, pod.Name, c.Name))
		if answer.GetError() != "" {
			t.Fatalf("what the scheduler admitted was refused: %s", answer.GetError())
		}
		for _, device := range answer.GetDevices() {
			for _, request := range append(device.GetRequestNames(), "") {
				key := corev1.ResourceClaim{Name: c.Name, Request: request}
				devices[key] = append(devices[key], device.GetCdiDeviceIds()...)
			}
		}
	}
	cpus := map[string]string{}
	for _, c := range pod.Spec.Containers {
		var ids []string
		for _, ref := range c.Resources.Claims {
			ids = append(ids, devices[ref]...)
		}
		list, err := n.create(t.Context(), pod, c.Name, ids)
		if err != nil {
			t.Fatal(err)
		}
		cpus[c.Name] = list
	}
	return cpus
}
