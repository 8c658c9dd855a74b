//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
)

// handedOver gives the containers of a pod disks as a whole, through vfio, which takes them
// from the kernel's driver, and has them given back: a controller, and a virtual function,
// which has none.
func handedOver(t *testing.T, node harness.Node, k kernelTopology) {
	before := map[string]string{"single": "nvme", "vf": ""}
	ns := namespace(t)
	p := podOn(node, "drivers")
	p.Spec.Containers = nil
	for function := range before {
		claimFor(t, ns, function, "2", withFunction("disk", "nvme-vfio.topolet.dev", function))
		c := workload(function, function)
		c.Args = []string{"-vfio=/dev/vfio/[0-9]*"}
		p.Spec.Containers = append(p.Spec.Containers, c)
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: function, ResourceClaimName: &function})
	}
	create(t, ns, p)
	addresses, pids := map[string]string{}, map[string][]int{}
	for function := range before {
		got, g := running(t, ns, p.Name, function), grantOf(t, ns, function)
		held := g.HardwareOf("disk")
		if len(held) != 1 {
			t.Fatalf("the claim %s has the devices %+v", function, held)
		}
		addresses[function], pids[function] = held[0].Address, got.Pids
		numa := readSet(t, node, "/sys/bus/pci/devices/"+held[0].Address+"/numa_node")
		t.Logf("%s: CPUs %s, disk %s of NUMA node %s", function, got.Allowed, held[0].Address, numa)
		if !k.nodesOf(got.Allowed).Equals(numa) {
			t.Errorf("CPUs %s are of NUMA node %s, the disk of %s", got.Allowed, k.nodesOf(got.Allowed), numa)
		}
		waitState(t, "the driver of "+held[0].Address, driverOf(node, held[0].Address), "vfio-pci")
	}

	replaceDaemonOn(t, node)
	for function, address := range addresses {
		again, driver := running(t, ns, p.Name, function), driverOf(node, address)()
		if !slices.Equal(again.Pids, pids[function]) || driver != "vfio-pci" {
			t.Errorf("%s: processes %v with the driver %q, before topolet was replaced %v with vfio-pci", function, again.Pids, driver, pids[function])
		}
	}

	deletePod(t.Context(), t, ns, p.Name)
	for function, address := range addresses {
		waitState(t, "the driver of "+address, driverOf(node, address), before[function])
		override, err := node.ReadFile("/sys/bus/pci/devices/" + address + "/driver_override")
		if err != nil || string(override) != "(null)\n" {
			t.Errorf("the override that is left of %s is %q, %v", address, override, err)
		}
	}
}

// withFunction adds a function of a device class, of this kind ("single", "pf", "vf"), on the
// NUMA node of the claim's CPUs.
func withFunction(request, class, function string) func(*resourceapi.DeviceClaim) {
	return func(d *resourceapi.DeviceClaim) {
		d.Requests = append(d.Requests, resourceapi.DeviceRequest{Name: request, Exactly: &resourceapi.ExactDeviceRequest{
			DeviceClassName: class,
			Selectors: []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{
				Expression: fmt.Sprintf("device.attributes[%q].function == %q", draplugin.DriverName, function),
			}}},
		}})
		d.Constraints = append(d.Constraints, resourceapi.DeviceConstraint{
			MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(deviceattribute.StandardDeviceAttributeNUMANode)),
		})
	}
}

// driverOf is the driver that a function has: its folder has the driver's functions.
func driverOf(node harness.Node, address string) func() string {
	return func() string {
		for _, name := range []string{"nvme", "vfio-pci"} {
			if _, err := node.ReadFile("/sys/bus/pci/drivers/" + name + "/" + address + "/vendor"); err == nil {
				return name
			}
		}
		return ""
	}
}

// profiledDisk has two virtual functions as long as no profile says otherwise.
const (
	profiledDisk     = "0000:11:00.0"
	virtualFunctions = "/sys/bus/pci/devices/" + profiledDisk + "/sriov_numvfs"
)

// waitVirtualFunctions waits until that disk has so many.
func waitVirtualFunctions(t *testing.T, node harness.Node, want string) {
	t.Helper()
	waitState(t, "the number of virtual functions", reading(node, virtualFunctions), want)
}

// reading is what a file of the machine says.
func reading(node harness.Node, file string) func() string {
	return func() string {
		data, err := node.ReadFile(file)
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(string(data))
	}
}
