// Package qat finds Intel's QuickAssist accelerators for cryptography and compression
// (drivers/crypto/intel/qat).
//
// An accelerator's physical function belongs to the kernel: it loads the firmware and
// says which services there are. The work is done through virtual functions, mostly by
// libraries in user space, to which they are handed over through vfio. So the devices
// to give away are the virtual functions. What they can do and whether they are well is
// told by the files of the physical one. They are read once for all of them: some do not
// answer the same again.
package qat

import (
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

const (
	name = "qat"
	// handover is the driver to which a virtual function without one will be bound.
	handover = "vfio-pci"
)

// Family is the family of QuickAssist accelerators.
type Family struct{}

// Name implements [device.Family].
func (Family) Name() string { return name }

// Discover implements [device.Family].
func (Family) Discover(h *device.Host, problem func(error)) []device.Device {
	var devices []device.Device
	known := map[topology.PCIAddress]state{}
	stateOf := func(pf topology.PCIFunction, m model) state {
		if _, ok := known[pf.Address]; !ok {
			known[pf.Address] = readState(h, pf, m, problem)
		}
		return known[pf.Address]
	}
	for _, f := range h.Functions(func(f topology.PCIFunction) bool { return models[device.ID(f)] != model{} }) {
		m := models[device.ID(f)]
		var d device.Device
		var s state
		if m.virtual {
			d = virtual(h, f, m)
			// In a virtual machine there is no physical function to ask.
			if pf, _, ok := h.PhysicalOf(f); ok {
				s = stateOf(pf, m)
				if pf.Driver != m.driver {
					d.Taint(device.DriverLost, "pf")
				}
			}
		} else {
			d = physical(h, f, m)
			s = stateOf(f, m)
		}
		d.Set("model", device.Text(m.name))
		d.Set("generation", device.Number(m.generation))
		s.describe(&d)
		devices = append(devices, d)
	}
	return devices
}

// physical returns the device of a physical function, which is listed for its place and
// state alone: nobody gets it but who insists.
func physical(h *device.Host, f topology.PCIFunction, m model) device.Device {
	d, ok := h.VFIO(name, f)
	if !ok {
		d = h.Of(name, f, device.Kernel)
		d.Driver = m.driver
		if f.Driver != m.driver {
			lose(&d, f)
		}
	}
	d.Taint(device.ControlOnly, "")
	return d
}

// virtual returns the device of a virtual function. One that is bound to no driver, or
// to one that is of no use here, is meant to be handed over, and waits for that.
func virtual(h *device.Host, f topology.PCIFunction, m model) device.Device {
	d, ok := h.VFIO(name, f)
	switch {
	case ok && len(d.Nodes) == 0:
		d.Taint(device.DriverLost, "no-node")
	case ok:
	case f.Driver == m.driver+"vf":
		// The kernel's own algorithms use it: there is no node.
		d = h.Of(name, f, device.Kernel)
	default:
		d = h.Of(name, f, device.VFIO)
		d.Driver = handover
		lose(&d, f)
	}
	d.Function = device.Virtual
	return d
}

// lose says that a device waits for its driver. The name of a driver that is bound in its
// place need not fit a taint.
func lose(d *device.Device, f topology.PCIFunction) {
	if f.Driver == "" {
		d.Taint(device.DriverLost, "")
		return
	}
	d.Taint(device.DriverLost, "other-driver")
}
