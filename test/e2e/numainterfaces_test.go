//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
)

// ownInterface gives a pod CPUs, and a disk and a network interface of one PCIe root beside
// them. The interface moves into the pod and comes back.
func ownInterface(t *testing.T, node harness.Node, k kernelTopology, disks map[string]kernelDisk) {
	cards := map[string]resourceapi.Device{}
	waitPublished(t.Context(), t, node.Name, startLimit, "a network card beside each disk", func(devices map[string]resourceapi.Device) error {
		clear(cards)
		for name, d := range devices {
			if strings.HasPrefix(name, "nic-") {
				cards[name] = d
			}
		}
		if len(cards) != len(disks) {
			return fmt.Errorf("there are %d cards and %d disks", len(cards), len(disks))
		}
		return nil
	})
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
	create(t, ns, podOn(node, "beside", "beside"))
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
	inside, err := node.ReadFile(fmt.Sprintf("/proc/%d/net/dev", got.Pids[0]))
	if err != nil || !strings.Contains(string(inside), name+":") {
		t.Errorf("the interface %s is not in the pod, which has, %v:\n%s", name, err, inside)
	}
	isHosts := func() string {
		_, err := node.ReadFile("/sys/class/net/" + name + "/address")
		return fmt.Sprint(!errors.Is(err, fs.ErrNotExist))
	}
	if isHosts() != "false" {
		t.Errorf("the interface %s is the host's", name)
	}
	replaceDaemonOn(t, node)
	devices, err := published(t.Context(), node.Name)
	if _, ok := devices["nic-"+dashed(card[0].Address)]; !ok || err != nil {
		t.Errorf("after topolet was replaced it no longer has the card, %v", err)
	}
	if again := running(t, ns, "beside", "main"); !slices.Equal(again.Pids, got.Pids) {
		t.Errorf("processes %v, and after topolet was replaced %v", got.Pids, again.Pids)
	}
	deletePod(t.Context(), t, ns, "beside")
	waitState(t, "the host to have the interface "+name, isHosts, "true")
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
