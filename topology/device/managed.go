package device

import (
	"fmt"
	"maps"
	"slices"

	"github.com/topolet/topolet/topology"
)

// Managed is a family whose functions are given to a driver for vfio when a claim wants
// that, and are at their own drivers otherwise.
//
//	bound to its own driver ─→ the kernel device, and a vfio device beside it
//	virtual, without driver ─→ the vfio device
//	bound to a vfio driver  ─→ the vfio device, as without this
//
// The vfio device has the attributes of the kernel one, and the same [Use].
type Managed struct {
	Family
	// Driver returns the vfio driver that a function would be given to, by its address, or
	// why it cannot be.
	Driver func(address string) (string, error)
	// Twins says that kernel devices get vfio devices beside them. Without it those are
	// managed that the family itself has for vfio.
	Twins bool
}

// Discover implements [Family].
func (m Managed) Discover(h *Host, problem func(error)) []Device {
	var devices []Device
	for _, d := range m.Family.Discover(h, problem) {
		address, err := topology.ParsePCIAddress(d.Address)
		f, known := h.Machine.PCI.Function(address)
		switch whole := m.Twins && d.isWhole(address); {
		case err != nil || !known:
		case IsVFIODriver(f.Driver):
			d.Managed = d.Personality == VFIO
		case whole && f.Driver != "" && f.Driver == d.Driver:
			if twin, ok := m.handover(h, f, d, problem); ok {
				devices = append(devices, twin)
			}
		case whole && f.Driver == "" && f.PhysicalFunction != topology.None, d.Personality == VFIO && d.waits():
			if handover, ok := m.handover(h, f, d, problem); ok {
				d = handover
			}
		}
		devices = append(devices, d)
	}
	return devices
}

// isWhole reports whether a device is all of a function that can be given away, for use by
// its own driver.
func (d *Device) isWhole(address topology.PCIAddress) bool {
	return d.Personality == Kernel && d.Name == NameOf(d.Family, address) && !d.Tainted(ControlOnly) && !d.Tainted(Unmanaged)
}

// waits reports whether all that a device lacks is a driver.
func (d *Device) waits() bool { return slices.Contains(d.Taints, waiting) }

var waiting = Taint{Reason: DriverLost}

// handover is the device by which the function of another device is handed over.
func (m Managed) handover(h *Host, f topology.PCIFunction, of Device, problem func(error)) (Device, bool) {
	driver, err := m.Driver(of.Address)
	if err != nil {
		problem(fmt.Errorf("there is no vfio device of %s: %w", f.Address, err))
		return Device{}, false
	}
	d := of
	d.Name = NameOf(of.Family, f.Address, suffixes[VFIO]...)
	d.Personality, d.Driver, d.Managed = VFIO, driver, true
	d.Shared, d.Nodes, d.Links, d.Interfaces = false, nil, nil, nil
	d.Taints = slices.DeleteFunc(slices.Clone(of.Taints), func(t Taint) bool { return t == waiting })
	d.Capacities = nil
	for _, c := range of.Capacities {
		if c.Name != SharesCapacity {
			d.Capacities = append(d.Capacities, Capacity{Name: c.Name, Amount: c.Amount, Bytes: c.Bytes})
		}
	}
	d.Attributes = maps.Clone(of.Attributes)
	d.setGroup(h, f)
	d.nameVFIO(f)
	return d, true
}
