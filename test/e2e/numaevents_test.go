//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/render"
	"github.com/topolet/topolet/topology/snapshot"
	"github.com/topolet/topolet/topology/topologytest"
)

// cpuGoesOffline takes a CPU away from one of two claims of the same device.
func cpuGoesOffline(t *testing.T, node harness.Node) {
	const device = "numa-2"
	ns := namespace(t)
	for _, name := range []string{"hit", "neighbour"} {
		claimFor(t, ns, name, "2", atNUMANode(2))
		p := podOf(name, name)
		p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node.Name}
		create(t, ns, p)
	}
	hit, neighbour := running(t, ns, "hit", "main").Allowed, running(t, ns, "neighbour", "main").Allowed
	devices, err := published(t.Context(), node.Name)
	if err != nil {
		t.Fatal(err)
	}
	before := capacityAndTaints(devices[device])
	claim, err := cluster.Client.ResourceV1().ResourceClaims(ns).Get(t.Context(), "hit", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}

	lost := hit.List()[hit.Size()-1]
	setOnline := func(value string) {
		if err := node.WriteFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", lost), value); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { setOnline("1") })
	setOnline("0")
	cpus := devices[device].Capacity[draplugin.CapacityCPUs].Value
	during := fmt.Sprintf("%d topolet.dev/cpu-offline=%s:None", cpus.Value()-2, claim.UID)
	took := waitPublished(t.Context(), t, node.Name, followLimit, "the device to shrink by a core and to be tainted for the claim", is(device, during))
	t.Logf("CPU %d offline: the slice followed after %s", lost, took)

	waitEvent(t, ns, "hit", "of which "+fmt.Sprint(lost)+" went offline")
	waitConditions(t, ns, "hit", "Ready=False CPUsOffline, Enforced=True Kernel")
	waitAllowed(t, ns, "hit", hit.Difference(topology.NewCPUSet(lost)))

	if got := running(t, ns, "neighbour", "main"); !got.Allowed.Equals(neighbour) || !got.Cgroup.Equals(neighbour) {
		t.Errorf("the neighbour ran on %s and now on %s, cgroup %s", neighbour, got.Allowed, got.Cgroup)
	}
	if got := healthOf(t.Context(), t, ns, "neighbour"); got != "Healthy" {
		t.Errorf("the neighbour's device is %s", got)
	}
	waitConditions(t, ns, "neighbour", "Enforced=True Kernel")
	events, err := cluster.Client.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events.Items {
		if e.Reason == "CPUsOffline" && e.InvolvedObject.Name == "neighbour" {
			t.Errorf("the neighbour's %s was told: %s", e.InvolvedObject.Kind, e.Message)
		}
	}

	// The kubelet's health is of the device as a whole: it turns when nobody
	// sound is left on it.
	deletePod(t.Context(), t, ns, "neighbour")
	waitHealth(t, ns, "hit", "Unhealthy")

	setOnline("1")
	took = waitPublished(t.Context(), t, node.Name, followLimit, "the device to be as before", is(device, before))
	t.Logf("CPU %d online: the slice followed after %s", lost, took)
	waitConditions(t, ns, "hit", "Enforced=True Kernel")
	waitAllowed(t, ns, "hit", hit)
	waitHealth(t, ns, "hit", "Healthy")
}

// is waits for a device's capacity and taints.
func is(device, want string) func(map[string]resourceapi.Device) error {
	return func(devices map[string]resourceapi.Device) error {
		if got := capacityAndTaints(devices[device]); got != want {
			return fmt.Errorf("%s is %s, want %s", device, got, want)
		}
		return nil
	}
}

func capacityAndTaints(d resourceapi.Device) string {
	cpus := d.Capacity[draplugin.CapacityCPUs].Value
	words := []string{cpus.String()}
	for _, taint := range d.Taints {
		words = append(words, fmt.Sprintf("%s=%s:%s", taint.Key, taint.Value, taint.Effect))
	}
	return strings.Join(words, " ")
}

// waitConditions waits until the devices in a claim's status have these conditions.
func waitConditions(t *testing.T, namespace, claim, want string) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("claim %s to have the conditions %q", claim, want), func(ctx context.Context) error {
		c, err := cluster.Client.ResourceV1().ResourceClaims(namespace).Get(ctx, claim, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var words []string
		for _, d := range c.Status.Devices {
			for _, condition := range d.Conditions {
				words = append(words, fmt.Sprintf("%s=%s %s", condition.Type, condition.Status, condition.Reason))
			}
		}
		if got := strings.Join(words, ", "); got != want {
			return fmt.Errorf("they are %q", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func waitAllowed(t *testing.T, namespace, pod string, want topology.CPUSet) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("pod %s to run on %s", pod, want), func(ctx context.Context) error {
		k, err := cluster.Kernel(ctx, namespace, pod, "main")
		if err != nil {
			return err
		}
		if !k.Allowed.Equals(want) || !k.Cgroup.Equals(want) {
			return fmt.Errorf("it runs on %s, cgroup %s", k.Allowed, k.Cgroup)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// healthOf is what the kubelet says of the devices of a pod's first container.
func healthOf(ctx context.Context, t *testing.T, namespace, pod string) string {
	t.Helper()
	p, err := cluster.Client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, status := range p.Status.ContainerStatuses[0].AllocatedResourcesStatus {
		for _, r := range status.Resources {
			words = append(words, string(r.Health))
		}
	}
	return strings.Join(words, ", ")
}

func waitHealth(t *testing.T, namespace, pod, want string) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("the device of pod %s to be %s", pod, want), func(ctx context.Context) error {
		if got := healthOf(ctx, t, namespace, pod); got != want {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// functionIsUnplugged takes node 3's NVMe out and puts it back.
func functionIsUnplugged(t *testing.T, node harness.Node) {
	for _, step := range []struct {
		verb string
		want int64
	}{{"unplug", 0}, {"plug", 1}} {
		if _, err := cluster.Testbed(t.Context(), "numa", step.verb, "nvme3"); err != nil {
			t.Fatal(err)
		}
		took := waitPublished(t.Context(), t, node.Name, followLimit, fmt.Sprintf("numa-3 to have %d NVMe functions", step.want), func(devices map[string]resourceapi.Device) error {
			if got := *devices["numa-3"].Attributes[draplugin.AttributeNVMeFunctions].IntValue; got != step.want {
				return fmt.Errorf("it has %d", got)
			}
			return nil
		})
		t.Logf("%s: the slice followed after %s", step.verb, took)
	}
}

// snapshotIsTheMachine takes a snapshot on the machine and holds its picture
// against the machine's own.
func snapshotIsTheMachine(t *testing.T, node harness.Node) {
	program := path.Join(cluster.Var("TESTBED_BIN"), "topolet")
	live, err := node.Run(t.Context(), program, "topology", "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	const file = "/tmp/machine.tar.gz"
	if _, err := node.Run(t.Context(), program, "snapshot", "--output", file); err != nil {
		t.Fatal(err)
	}
	data, err := node.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "machine.tar.gz")
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := snapshot.Open(copied)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // in memory
	m, err := topology.Discover(root)
	if err != nil {
		t.Fatal(err)
	}
	taken := jsonOf(t, m)
	if diff := cmp.Diff(live, taken); diff != "" {
		t.Errorf("-machine +snapshot:\n%s", diff)
	}

	// Unit tests use a snapshot of this machine; each boot has other memory left, and the
	// kernel numbers IOMMU groups in the order in which functions come.
	if m, err = topology.Discover(topologytest.Captured("four-nodes")); err != nil {
		t.Fatal(err)
	}
	changing := regexp.MustCompile(`\n *"(memoryBytes|iommuGroup)": \d+,`)
	if diff := cmp.Diff(changing.ReplaceAllString(jsonOf(t, m), ""), changing.ReplaceAllString(taken, "")); diff != "" {
		t.Errorf("-topologytest/captured/four-nodes.tar.gz +machine: take the snapshot anew:\n%s", diff)
	}
}

func jsonOf(t *testing.T, m *topology.Machine) string {
	t.Helper()
	var text bytes.Buffer
	if err := render.JSON(&text, m); err != nil {
		t.Fatal(err)
	}
	return text.String()
}
