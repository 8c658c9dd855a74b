//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology/device"
)

// ownInterface gives a pod CPUs, and a disk and a network interface of one PCIe root beside
// them. The interface moves into the pod and comes back.
func ownInterface(t *testing.T, node harness.Node, k kernelTopology, disks map[string]kernelDisk) {
	cards := waitCards(t, node, len(disks))
	ns := namespace(t)
	claimFor(t, ns, "beside", "2", withOwnDisk, func(d *resourceapi.DeviceClaim) {
		d.Requests = append(d.Requests, resourceapi.DeviceRequest{
			Name: "card", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "nic.topolet.dev"},
		})
		d.Constraints = append(d.Constraints, resourceapi.DeviceConstraint{
			Requests:       []string{"disk", "card"},
			MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(deviceattribute.StandardDeviceAttributePCIeRoot)),
		})
	})
	create(t, ns, withOwnNetwork(podOn(node, "beside", "beside")))
	got, g := running(t, ns, "beside", "main"), grantOf(t, ns, "beside")
	disk, card := g.HardwareOf("disk"), g.HardwareOf("card")
	if len(disk) != 1 || len(card) != 1 || len(card[0].Interfaces) != 1 {
		t.Fatalf("the claim has the devices %+v and %+v", disk, card)
	}
	if numa := k.nodesOf(got.Allowed).String(); disks[disk[0].Address].numa != numa {
		t.Errorf("CPUs %s are of NUMA node %s, the disk %s is of %s", got.Allowed, numa, disk[0].Address, disks[disk[0].Address].numa)
	}
	root := ptr.Deref(cards["nic-"+dashed(card[0].Address)].Attributes[deviceattribute.StandardDeviceAttributePCIeRoot].StringValue, "none")
	for _, address := range []string{disk[0].Address, card[0].Address} {
		if !isBelow(node, root, address) {
			t.Errorf("%s is not at root %s", address, root)
		}
	}
	t.Logf("CPUs %s, disk %s and card %s at root %s", got.Allowed, disk[0].Address, card[0].Address, root)

	name := card[0].Interfaces[0]
	isInPod(t, node, got, name)
	replaceDaemonOn(t, node)
	devices, err := published(t.Context(), node.Name)
	if _, ok := devices["nic-"+dashed(card[0].Address)]; !ok || err != nil {
		t.Errorf("after topolet was replaced it no longer has the card, %v", err)
	}
	if again := running(t, ns, "beside", "main"); !slices.Equal(again.Pids, got.Pids) {
		t.Errorf("processes %v, and after topolet was replaced %v", got.Pids, again.Pids)
	}
	deletePod(t.Context(), t, ns, "beside")
	waitState(t, "the host to have the interface "+name, isHosts(node, name), "true")
}

// withOwnNetwork has interfaces move into a pod.
func withOwnNetwork(p *corev1.Pod) *corev1.Pod {
	p.Spec.HostNetwork = false
	return p
}

// waitCards waits for the network cards: one beside each disk, and one with two virtual
// functions.
func waitCards(t *testing.T, node harness.Node, disks int) map[string]resourceapi.Device {
	t.Helper()
	want := map[string]int{"single": disks, "pf": 1, "vf": 2}
	cards := map[string]resourceapi.Device{}
	waitPublished(t.Context(), t, node.Name, startLimit, "the network cards", func(devices map[string]resourceapi.Device) error {
		clear(cards)
		got := map[string]int{}
		for name, d := range devices {
			if strings.HasPrefix(name, "nic-") {
				cards[name] = d
				got[ptr.Deref(d.Attributes[draplugin.DriverName+"/function"].StringValue, "")]++
			}
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("there are %v, want %v", got, want)
		}
		return nil
	})
	return cards
}

// isInPod fails unless an interface is in a container's network namespace and not in the
// host's.
func isInPod(t *testing.T, node harness.Node, container harness.Kernel, name string) {
	t.Helper()
	inside, err := node.ReadFile(fmt.Sprintf("/proc/%d/net/dev", container.Pids[0]))
	if err != nil || !strings.Contains(string(inside), name+":") {
		t.Errorf("the interface %s is not in the pod, which has, %v:\n%s", name, err, inside)
	}
	if isHosts(node, name)() != "false" {
		t.Errorf("the interface %s is the host's", name)
	}
}

func isHosts(node harness.Node, name string) func() string {
	return func() string {
		_, err := node.ReadFile("/sys/class/net/" + name + "/address")
		return fmt.Sprint(!errors.Is(err, fs.ErrNotExist))
	}
}

// ownVirtualFunction gives a pod CPUs and a virtual function of the card beside them. While
// it has that, nobody gets the card as a whole.
func ownVirtualFunction(t *testing.T, node harness.Node, k kernelTopology) {
	ns := namespace(t)
	claimFor(t, ns, "part", "2", withFunction("card", "nic.topolet.dev", "vf"))
	create(t, ns, withOwnNetwork(podOn(node, "part", "part")))
	got, card := running(t, ns, "part", "main"), grantOf(t, ns, "part").HardwareOf("card")
	if len(card) != 1 || len(card[0].Interfaces) != 1 {
		t.Fatalf("the claim has the devices %+v", card)
	}
	function := "/sys/bus/pci/devices/" + card[0].Address
	if _, err := node.ReadFile(function + "/physfn/sriov_numvfs"); err != nil {
		t.Errorf("%s is no virtual function: %v", card[0].Address, err)
	}
	if numa := readSet(t, node, function+"/numa_node"); !k.nodesOf(got.Allowed).Equals(numa) {
		t.Errorf("CPUs %s are of NUMA node %s, the card of %s", got.Allowed, k.nodesOf(got.Allowed), numa)
	}
	t.Logf("CPUs %s, %s at %s", got.Allowed, card[0].Interfaces[0], card[0].Address)
	isInPod(t, node, got, card[0].Interfaces[0])

	// Who has the card as a whole has the say over its virtual functions, so it is asked for
	// with the taint in mind.
	claimFor(t, ns, "whole", "2", withFunction("card", "nic.topolet.dev", "pf"), func(d *resourceapi.DeviceClaim) {
		d.Requests[1].Exactly.Tolerations = []resourceapi.DeviceToleration{{
			Key: draplugin.DriverName + "/" + string(device.ControlOnly), Operator: resourceapi.DeviceTolerationOpExists,
		}}
	})
	create(t, ns, withOwnNetwork(podOn(node, "whole", "whole")))
	unschedulable(t, ns, "whole")
	deletePod(t.Context(), t, ns, "part")
	whole := running(t, ns, "whole", "main")
	card = grantOf(t, ns, "whole").HardwareOf("card")
	if len(card) != 1 || len(card[0].Interfaces) != 1 {
		t.Fatalf("the claim has the devices %+v", card)
	}
	isInPod(t, node, whole, card[0].Interfaces[0])
	deletePod(t.Context(), t, ns, "whole")
	waitState(t, "the host to have the interface "+card[0].Interfaces[0], isHosts(node, card[0].Interfaces[0]), "true")
}

func dashed(address string) string {
	return strings.NewReplacer(":", "-", ".", "-").Replace(address)
}

// isBelow reports whether the kernel has a function behind one of the ports of a root.
func isBelow(node harness.Node, root, address string) bool {
	for port := range 32 {
		file := fmt.Sprintf("/sys/devices/%s/%s:%02x.0/%s/vendor", root, strings.TrimPrefix(root, "pci"), port, address)
		if _, err := node.ReadFile(file); err == nil {
			return true
		}
	}
	return false
}

// extendedResource runs a pod as it was written for a device plugin: it asks for so many of
// a resource, and knows of no claim.
func extendedResource(t *testing.T, node harness.Node, disks map[string]kernelDisk) {
	const name = "example.org/disk"
	class := &resourceapi.DeviceClass{
		ObjectMeta: metav1.ObjectMeta{Name: "example-disk"},
		Spec: resourceapi.DeviceClassSpec{
			ExtendedResourceName: ptr.To(name),
			Selectors: []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{
				Expression: fmt.Sprintf(`device.driver == %q && device.attributes[%[1]q].family == "nvme" && device.attributes[%[1]q].personality == "kernel"`, draplugin.DriverName),
			}}},
		},
	}
	classes := cluster.Client.ResourceV1().DeviceClasses()
	if _, err := classes.Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := classes.Delete(context.Background(), class.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	ns := namespace(t)
	p := podOn(node, "old-style")
	p.Spec.Containers[0].Args = []string{"-read=/dev/nvme*n1"}
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: corev1.ResourceList{name: resource.MustParse("1")}}
	create(t, ns, p)
	got := running(t, ns, p.Name, "main")
	has := 0
	for _, d := range disks {
		if _, err := node.ReadFile(fmt.Sprintf("/proc/%d/root/dev/%sn1", got.Pids[0], d.name)); !errors.Is(err, fs.ErrNotExist) {
			has++
		}
	}
	if has != 1 {
		t.Errorf("the container has %d disks, want 1", has)
	}
}
