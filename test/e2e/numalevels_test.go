//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/topolet/topolet/test/harness"
)

// publishLevels has all levels published, until the test ends.
func publishLevels(t *testing.T, node harness.Node) {
	install := func(ctx context.Context, want int, values ...string) {
		t.Helper()
		if err := cluster.Install(ctx, values...); err != nil {
			t.Fatal(err)
		}
		waitPublished(ctx, t, node.Name, startLimit, fmt.Sprintf("%d devices", want), func(devices map[string]resourceapi.Device) error {
			if len(devices) != want {
				return fmt.Errorf("there are %d", len(devices))
			}
			return nil
		})
	}
	before, err := published(t.Context(), node.Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { install(context.Background(), len(before)) })
	// Six L3 groups, two sockets and the machine, and of each level the isolated core.
	install(t.Context(), len(before)+12, "config.levels={l3,socket,machine}")
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
