// Package npu finds the neural processing units of Intel's client processors (driver
// intel_vpu, drivers/accel/ivpu).
package npu

import (
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

const (
	name   = "npu"
	native = "intel_vpu"
)

// models are by vendor and device.
var models = map[int]string{
	0x80867d1d: "Meteor Lake NPU",
	0x8086ad1d: "Arrow Lake NPU",
	0x8086643e: "Lunar Lake NPU",
	0x8086b03e: "Panther Lake NPU",
	0x8086fd3e: "Wildcat Lake NPU",
	0x8086d71d: "Nova Lake NPU",
	0x80867e4c: "NPU",
}

// Family is the family of NPUs.
type Family struct {
	// Shares is how many claims can have an NPU at the same time; up to 1 is one.
	Shares uint64
}

// Name implements [device.Family].
func (Family) Name() string { return name }

// Discover implements [device.Family].
func (family Family) Discover(h *device.Host, _ func(error)) []device.Device {
	var devices []device.Device
	for _, f := range h.Functions(func(f topology.PCIFunction) bool { return models[device.ID(f)] != "" }) {
		if d, ok := h.VFIO(name, f); ok {
			d.Set("model", device.Text(models[device.ID(f)]))
			devices = append(devices, d)
			continue
		}
		d := h.Of(name, f, device.Kernel)
		d.Driver = native
		d.Set("model", device.Text(models[device.ID(f)]))
		// The major number is that of all accelerators, so only the parent tells whose it is.
		for _, child := range h.Child(device.Dir(f)+"accel", "accel") {
			if n, ok := h.Node(strings.TrimSuffix(device.Dir(f), "/")+"/accel/"+child, false); ok {
				d.Nodes = append(d.Nodes, n)
			}
		}
		if family.Shares > 1 {
			d.Shared, d.Capacities = true, []device.Capacity{device.Shares(family.Shares)}
		}
		switch {
		case f.Driver != native:
			d.Taint(device.DriverLost, f.Driver)
		case len(d.Nodes) == 0:
			d.Taint(device.DriverLost, "no-node")
		}
		devices = append(devices, d)
	}
	return devices
}
