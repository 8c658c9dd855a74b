//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
)

// waitLevels waits for the devices of all levels: six L3 groups, two sockets and the machine,
// and of each level the isolated core.
func waitLevels(t *testing.T, node harness.Node) {
	want := map[string]int{"l3": 7, "socket": 3, "machine": 2}
	waitPublished(t.Context(), t, node.Name, startLimit, "the devices of all levels", func(devices map[string]resourceapi.Device) error {
		got := map[string]int{}
		for _, d := range devices {
			level := ptr.Deref(d.Attributes[draplugin.AttributeLevel].StringValue, "")
			if _, ok := want[level]; ok {
				got[level]++
			}
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("there are %v, want %v", got, want)
		}
		return nil
	})
}

// furtherLevels claims one after the other what excludes the next.
func furtherLevels(t *testing.T, node harness.Node, k kernelTopology) {
	ns := namespace(t)
	pod := func(name string) {
		p := podOf(name, name)
		p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node.Name}
		create(t, ns, p)
	}
	claiming := func(name, class string, cpus int, change ...func(*resourceapi.DeviceClaim)) {
		claimFor(t, ns, name, fmt.Sprint(cpus), append(change, func(d *resourceapi.DeviceClaim) { d.Requests[0].Exactly.DeviceClassName = class })...)
		pod(name)
	}
	claiming("l3", "cpu-l3.topolet.dev", 4, atNUMANode(0))
	if got := running(t, ns, "l3", "main").Allowed; got.Size() != 4 || k.groups(got) != 1 {
		t.Errorf("the claim of an L3 group runs on %s, of %d groups", got, k.groups(got))
	}
	// The NUMA node has CPUs left, in the other L3 group: they can be had as that.
	claiming("node", "cpu.topolet.dev", 2, atNUMANode(0))
	unschedulable(t, ns, "node")
	claiming("machine", "cpu-machine.topolet.dev", 2)
	unschedulable(t, ns, "machine")
	deletePod(t.Context(), t, ns, "machine")
	claiming("other-l3", "cpu-l3.topolet.dev", 2, atNUMANode(0))
	running(t, ns, "other-l3", "main")

	for _, name := range []string{"l3", "other-l3"} {
		deletePod(t.Context(), t, ns, name)
	}
	running(t, ns, "node", "main")
	deletePod(t.Context(), t, ns, "node")
	pod("machine")
	if got := running(t, ns, "machine", "main").Allowed; got.Size() != 2 {
		t.Errorf("the claim of the machine runs on %s", got)
	}
}
