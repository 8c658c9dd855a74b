//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/test/harness"
)

// kernelDisk is a disk as the machine's kernel shows it.
type kernelDisk struct {
	// name is nvme0.
	name, address string
	numa          string
	// numbers are the namespace's: "259:0".
	numbers string
}

// published is the name of the disk's device, or that of its only namespace.
func (d kernelDisk) published(suffix string) string {
	return "nvme-" + dashed(d.address) + suffix
}

// readDisks reads so many NVMe disks by the machine's files, by address.
func readDisks(t *testing.T, node harness.Node, count int) map[string]kernelDisk {
	t.Helper()
	read := func(name string) string {
		data, err := node.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	found := map[string]kernelDisk{}
	for i := range count {
		d := kernelDisk{name: fmt.Sprintf("nvme%d", i)}
		d.address = read("/sys/class/nvme/" + d.name + "/address")
		d.numa = read("/sys/class/nvme/" + d.name + "/device/numa_node")
		d.numbers = read("/sys/block/" + d.name + "n1/dev")
		found[d.address] = d
	}
	return found
}

// ownDevices has topolet itself give the machine's devices away, together with CPUs.
func ownDevices(t *testing.T, node harness.Node, k kernelTopology) {
	disks := readDisks(t, node, len(k.nodes))
	t.Run("disks", func(t *testing.T) { ownDisks(t, node, k, disks) })
	t.Run("a network interface", func(t *testing.T) { ownInterface(t, node, k, disks) })
	t.Run("a virtual function of a network card", func(t *testing.T) { ownVirtualFunction(t, node, k) })
	t.Run("a pod that asks for an extended resource", func(t *testing.T) { extendedResource(t, node, disks) })
	t.Run("handed over", func(t *testing.T) { handedOver(t, node, k) })
}

func ownDisks(t *testing.T, node harness.Node, k kernelTopology, disks map[string]kernelDisk) {
	waitPublished(t.Context(), t, node.Name, startLimit, "the disks", func(devices map[string]resourceapi.Device) error {
		for _, d := range disks {
			for _, suffix := range []string{"", "-ns1"} {
				attrs := devices[d.published(suffix)].Attributes
				if got := fmt.Sprint(ptr.Deref(attrs[deviceattribute.StandardDeviceAttributeNUMANode].IntValue, -1)); got != d.numa {
					return fmt.Errorf("%s is at NUMA node %s, the kernel says %s", d.published(suffix), got, d.numa)
				}
				root := ptr.Deref(attrs[deviceattribute.StandardDeviceAttributePCIeRoot].StringValue, "")
				near, err := node.ReadFile("/sys/devices/" + root + "/pci_bus/" + strings.TrimPrefix(root, "pci") + "/cpulistaffinity")
				if err != nil {
					return fmt.Errorf("%s is at root %q: %w", d.published(suffix), root, err)
				}
				own, err := node.ReadFile("/sys/bus/pci/devices/" + d.address + "/local_cpulist")
				if err != nil || string(own) != string(near) {
					return fmt.Errorf("%s is at root %s, which is near CPUs %s, but the disk is near %s, %w", d.published(suffix), root, near, own, err)
				}
			}
		}
		return nil
	})
	var all []string
	for _, d := range disks {
		all = append(all, "b:"+d.numbers)
	}
	slices.Sort(all)

	ns := namespace(t)
	p := podOf("disks")
	p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node.Name}
	p.Spec.Containers = nil
	for i := range len(disks) {
		name := fmt.Sprintf("disk-%d", i)
		if i%2 == 0 {
			claimFor(t, ns, name, "2", withOwnDisk)
		} else {
			claimFor(t, ns, name, "2", withOwnDisk, readingOnly)
		}
	}
	for i := range len(disks) {
		name := fmt.Sprintf("disk-%d", i)
		c := workload(name, name)
		c.Args = []string{"-read=/dev/nvme*n1", "-refused=" + strings.Join(all, ",")}
		p.Spec.Containers = append(p.Spec.Containers, c)
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimName: &name})
	}
	create(t, ns, p)
	pids := map[string][]int{}
	given := map[string]bool{}
	for _, c := range p.Spec.Containers {
		got, g := running(t, ns, p.Name, c.Name), grantOf(t, ns, c.Name)
		held := g.HardwareOf("disk")
		if len(held) != 1 || given[held[0].Address] {
			t.Fatalf("%s has the devices %+v", c.Name, held)
		}
		disk := disks[held[0].Address]
		given[disk.address] = true
		pids[c.Name] = got.Pids
		numa := k.nodesOf(got.Allowed).String()
		t.Logf("%s: CPUs %s of NUMA node %s, %s at %s", c.Name, got.Allowed, numa, disk.name, disk.address)
		if numa != disk.numa || !got.Allowed.Equals(g.CPUs()) {
			t.Errorf("%s runs on CPUs %s of NUMA node %s, its disk %s is at %s", c.Name, got.Allowed, numa, disk.name, disk.numa)
		}
		for _, d := range disks {
			_, err := node.ReadFile(fmt.Sprintf("/proc/%d/root/dev/%sn1", got.Pids[0], d.name))
			if has := !errors.Is(err, fs.ErrNotExist); has != (d == disk) {
				t.Errorf("%s, whose disk is %s, has %s: %t, %v", c.Name, disk.name, d.name, has, err)
			}
		}
	}

	replaceDaemonOn(t, node)
	claimFor(t, ns, "late", "2", withOwnDisk)
	late := podOn(node, "late", "late")
	create(t, ns, late)
	unschedulable(t, ns, "late")
	for _, c := range p.Spec.Containers {
		if got := running(t, ns, p.Name, c.Name); !slices.Equal(got.Pids, pids[c.Name]) {
			t.Errorf("%s has the processes %v instead of %v", c.Name, got.Pids, pids[c.Name])
		}
	}
	deletePod(t.Context(), t, ns, p.Name)
	running(t, ns, "late", "main")
}

// withOwnDisk adds a disk of topolet's on the NUMA node of the claim's CPUs.
func withOwnDisk(d *resourceapi.DeviceClaim) {
	d.Requests = append(d.Requests, resourceapi.DeviceRequest{
		Name: "disk", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "nvme.topolet.dev"},
	})
	d.Constraints = append(d.Constraints, resourceapi.DeviceConstraint{
		MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(deviceattribute.StandardDeviceAttributeNUMANode)),
	})
}

// readingOnly has the kernel refuse to open the disk for writing.
func readingOnly(d *resourceapi.DeviceClaim) {
	withParameters(`{"apiVersion":"topolet.dev/v1alpha1","kind":"NVMeConfig","readOnly":true}`)(d)
	d.Config[len(d.Config)-1].Requests = []string{"disk"}
}
