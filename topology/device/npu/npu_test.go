package npu_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/npu"
)

func meteorLake(h *devicetest.Host) devicetest.Function {
	f := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:0b.0", Vendor: 0x8086, Device: 0x7d1d, Class: 0x120000, Node: -1, Group: 9, Driver: "intel_vpu"}
	h.Add(f)
	h.Char(f.Path, "accel/accel0", "261:0", "accel/accel0")
	return f
}

func TestAnNPUIsUsedThroughItsAccelNode(t *testing.T) {
	h := devicetest.New(t)
	meteorLake(h)
	want := []device.Device{{
		Name: "npu-0000-00-0b-0", Family: "npu", Personality: device.Kernel, Function: device.Single,
		Address: "0000:00:0b.0", NUMANode: topology.None, Root: "pci0000:00", Driver: "intel_vpu",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x8086"), "deviceID": device.Text("0x7d1d"), "pciClass": device.Text("0x120000"),
			"model": device.Text("Meteor Lake NPU"),
		},
		Use:   device.Use{Owner: "0000:00:0b.0"},
		Nodes: []device.Node{{Path: "/dev/accel/accel0", Major: 261}},
	}}
	if diff := cmp.Diff(want, h.Discover(npu.Family{}), cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

func TestAnNPUCanBeShared(t *testing.T) {
	h := devicetest.New(t)
	meteorLake(h)
	devices := h.Discover(npu.Family{Shares: 3})
	if len(devices) != 1 || !devices[0].Shared || !cmp.Equal([]device.Capacity{device.Shares(3)}, devices[0].Capacities) {
		t.Errorf("devices %+v, want one with three shares", devices)
	}
}

func TestAnNPUWithoutItsDriverIsTainted(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*devicetest.Host, devicetest.Function)
		want   device.Taint
	}{
		"unbound":           {func(h *devicetest.Host, f devicetest.Function) { h.Remove(f.Path + "/driver") }, device.Taint{Reason: device.DriverLost}},
		"bound but no node": {func(h *devicetest.Host, f devicetest.Function) { h.Remove(f.Path + "/accel") }, device.Taint{Reason: device.DriverLost, Value: "no-node"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			test.change(h, meteorLake(h))
			devices := h.Discover(npu.Family{})
			if len(devices) != 1 || len(devices[0].Taints) != 1 || devices[0].Taints[0] != test.want {
				t.Errorf("devices %+v, want one with taint %+v", devices, test.want)
			}
		})
	}
}

func TestAnotherAcceleratorIsNoNPU(t *testing.T) {
	h := devicetest.New(t)
	f := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:0b.0", Vendor: 0x1da3, Device: 0x1020, Class: 0x120000, Group: 9, Driver: "habanalabs"}
	h.Add(f)
	h.Char(f.Path, "accel/accel0", "261:0", "accel/accel0")
	if devices := h.Discover(npu.Family{}); len(devices) != 0 {
		t.Errorf("devices %+v", devices)
	}
}

func TestAnNPUBoundToVFIOIsHandedOver(t *testing.T) {
	h := devicetest.New(t)
	f := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:0b.0", Vendor: 0x8086, Device: 0x7d1d, Class: 0x120000, Group: 9, Driver: "vfio-pci"}
	h.Add(f)
	devices := h.Discover(npu.Family{})
	want := []device.Node{
		{Path: "/dev/vfio/9", Major: 243, Minor: 9, Role: device.VFIOGroup},
		{Path: "/dev/vfio/vfio", Major: 10, Minor: 196, Role: device.VFIOGroup},
	}
	if len(devices) != 1 || devices[0].Name != "npu-0000-00-0b-0-vfio" || !cmp.Equal(want, devices[0].Nodes) {
		t.Errorf("devices %+v, want one with nodes %+v", devices, want)
	}
}
