//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
)

// handedOver gives pods disks as a whole, through vfio, which takes them from the kernel's
// driver, and has them given back: a controller, and a virtual function, which has none.
func handedOver(t *testing.T, node harness.Node, k kernelTopology) {
	for _, tc := range []struct {
		function, driver string
	}{
		{"single", "nvme"},
		{"vf", ""},
	} {
		t.Run(tc.function, func(t *testing.T) { handOver(t, node, k, tc.function, tc.driver) })
	}
}

func handOver(t *testing.T, node harness.Node, k kernelTopology, function, before string) {
	ns := namespace(t)
	claimFor(t, ns, "disk", "2", func(d *resourceapi.DeviceClaim) {
		d.Requests = append(d.Requests, resourceapi.DeviceRequest{Name: "disk", Exactly: &resourceapi.ExactDeviceRequest{
			DeviceClassName: "nvme-vfio.topolet.dev",
			Selectors: []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{
				Expression: fmt.Sprintf("device.attributes[%q].function == %q", draplugin.DriverName, function),
			}}},
		}})
		d.Constraints = append(d.Constraints, resourceapi.DeviceConstraint{
			MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(deviceattribute.StandardDeviceAttributeNUMANode)),
		})
	})
	p := podOn(node, "driver", "disk")
	p.Spec.Containers[0].Args = []string{"-vfio=/dev/vfio/[0-9]*"}
	create(t, ns, p)
	got, g := running(t, ns, p.Name, "main"), grantOf(t, ns, "disk")
	held := g.HardwareOf("disk")
	if len(held) != 1 {
		t.Fatalf("the claim has the devices %+v", held)
	}
	address := held[0].Address
	numa, err := node.ReadFile("/sys/bus/pci/devices/" + address + "/numa_node")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("CPUs %s, disk %s of NUMA node %s", got.Allowed, address, numa)
	if k.nodesOf(got.Allowed).String() != strings.TrimSpace(string(numa)) {
		t.Errorf("CPUs %s are of NUMA node %s, the disk of %s", got.Allowed, k.nodesOf(got.Allowed), numa)
	}
	// The folder of a driver has its functions.
	driver := func() string {
		for _, name := range []string{"nvme", "vfio-pci"} {
			if _, err := node.ReadFile("/sys/bus/pci/drivers/" + name + "/" + address + "/vendor"); err == nil {
				return name
			}
		}
		return ""
	}
	waitState(t, "the driver of "+address, driver, "vfio-pci")

	replaceDaemonOn(t, node)
	if again := running(t, ns, p.Name, "main"); !slices.Equal(again.Pids, got.Pids) || driver() != "vfio-pci" {
		t.Errorf("processes %v with the driver %q, before topolet was replaced %v with vfio-pci", again.Pids, driver(), got.Pids)
	}

	deletePod(t.Context(), t, ns, p.Name)
	waitState(t, "the driver of "+address, driver, before)
	override, err := node.ReadFile("/sys/bus/pci/devices/" + address + "/driver_override")
	if err != nil || string(override) != "(null)\n" {
		t.Errorf("the override that is left is %q, %v", override, err)
	}
}

// profiledDisk has two virtual functions.
const (
	profiledDisk     = "0000:11:00.0"
	virtualFunctions = "/sys/bus/pci/devices/" + profiledDisk + "/sriov_numvfs"
)

// profiled changes how many virtual functions a disk has, until it is installed otherwise.
func profiled(t *testing.T, node harness.Node) {
	waitState(t, "the number of virtual functions", reading(node, virtualFunctions), "2")
	if err := cluster.Install(t.Context(), "config.devices[0].family=nvme",
		"config.devices[0].profiles[0].match.busIDs[0]="+profiledDisk, "config.devices[0].profiles[0].virtualFunctions=1"); err != nil {
		t.Fatal(err)
	}
	waitState(t, "the number of virtual functions, with a profile,", reading(node, virtualFunctions), "1")
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
