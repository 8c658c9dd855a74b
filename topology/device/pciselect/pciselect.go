// Package pciselect publishes PCI functions that no other family knows, by entries that an
// administrator writes: which functions, and whether a claim gets their device nodes or
// the whole function through vfio.
//
// Each function is held against the entries in their order, and the first one that
// matches decides. What the host cannot do without is refused whatever the entries say:
// bridges, and functions with disks or network interfaces that it uses itself (package
// inuse). Entries are written by people, so [Family.Validate] explains what is wrong with
// them; discovery leaves wrong ones out.
package pciselect

import (
	"fmt"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/inuse"
)

const name = "pci"

// Family is the family of functions that are selected by entries. Without entries it has
// no devices.
type Family struct {
	Entries []Entry
	// Managed publishes what is to be handed over also while it is not bound to a vfio
	// driver. It lacks one then, see [device.Managed].
	Managed bool
}

// Entry selects functions.
type Entry struct {
	// Name is published with each of the devices, as the attribute selector: a DNS label,
	// which no other entry has.
	Name string `json:"name"`
	// Match is what the functions have in common.
	Match Match `json:"match"`
	// Expose is how claims get them.
	Expose Exposure `json:"expose"`
	// Shares is how many claims can have a function at the same time; none or 1 is one
	// alone. Only device nodes can be shared.
	Shares int `json:"shares,omitempty"`
	// Allow are the names in /dev, such as "sdb" or "sd*" (see path.Match), of block devices
	// that claims get too. Other block devices are left out.
	Allow []string `json:"allow,omitempty"`
}

// Match are properties of functions. Those that are given must all be met, and at least
// one must be given. Numbers are in hexadecimal, as the kernel writes them: "0x8086".
type Match struct {
	Vendor          string `json:"vendor,omitempty"`
	Device          string `json:"device,omitempty"`
	SubsystemVendor string `json:"subsystemVendor,omitempty"`
	SubsystemDevice string `json:"subsystemDevice,omitempty"`
	// Class has base class, subclass and interface: "0x010802".
	Class string `json:"class,omitempty"`
	// ClassMask has the bits of the class that count; empty for all of them.
	ClassMask string `json:"classMask,omitempty"`
	// Driver is that which is bound.
	Driver string `json:"driver,omitempty"`
	// BusIDs are addresses, of which the function must have one: "0000:c0:05.0".
	BusIDs []string `json:"busIDs,omitempty"`
}

// Exposure is how a claim gets a function.
type Exposure string

// The exposures.
const (
	// Chardev gives all character devices that the function's driver has made.
	Chardev Exposure = "chardev"
	// VFIO hands the function over as a whole.
	VFIO Exposure = "vfio"
)

// Name implements [device.Family].
func (Family) Name() string { return name }

// Discover implements [device.Family].
func (family Family) Discover(h *device.Host, problem func(error)) []device.Device {
	var devices []device.Device
	entries, errs := family.valid()
	for _, err := range errs {
		problem(err)
	}
	hardware := inuse.Of(h)
	for _, f := range h.Functions(func(topology.PCIFunction) bool { return true }) {
		entry, ok := choose(entries, f, problem)
		if !ok {
			continue
		}
		d, err := entry.publish(h, hardware, f, family.Managed)
		if err != nil {
			problem(fmt.Errorf("entry %s does not get %s: %w", entry.Name, f.Address, err))
			continue
		}
		devices = append(devices, d)
	}
	return devices
}

// choose returns the first entry that matches.
func choose(entries []matcher, f topology.PCIFunction, problem func(error)) (chosen matcher, ok bool) {
	for _, e := range entries {
		switch {
		case !e.matches(f):
		case ok:
			problem(fmt.Errorf("entry %s does not get %s: entry %s matches it as well and comes first", e.Name, f.Address, chosen.Name))
		default:
			chosen, ok = e, true
		}
	}
	return chosen, ok
}

// publish returns the device of a function, or why there is none.
func (e Entry) publish(h *device.Host, hardware *inuse.Hardware, f topology.PCIFunction, managed bool) (device.Device, error) {
	if f.Kind != topology.PCIEndpoint {
		return device.Device{}, fmt.Errorf("it is a bridge (%s)", f.Kind)
	}
	switch use, err := hardware.Function(f); {
	case err != nil:
		return device.Device{}, fmt.Errorf("the host may use it: %w", err)
	case use != "":
		return device.Device{}, fmt.Errorf("the host uses it: %s", use)
	}
	handover, bound := h.VFIO(name, f)
	if managed && !bound {
		handover = h.Of(name, f, device.VFIO)
		handover.Taint(device.DriverLost, "")
	}
	switch {
	case e.Expose == VFIO && !bound && !managed:
		return device.Device{}, fmt.Errorf("it is not bound to a vfio driver")
	case e.Expose == VFIO:
		handover.Set("selector", device.Text(e.Name))
		return handover, nil
	case bound:
		return device.Device{}, fmt.Errorf("it is bound to %s, so it has no device nodes of its own", f.Driver)
	}
	found, err := nodesBelow(h, hardware, strings.TrimSuffix(device.Dir(f), "/"), e.Allow)
	if err != nil {
		return device.Device{}, err
	}
	d := h.Of(name, f, device.Kernel)
	d.Nodes = found
	d.Set("selector", device.Text(e.Name))
	if e.Shares > 1 {
		d.Shared = true
		d.Capacities = []device.Capacity{device.Shares(uint64(e.Shares))}
	}
	return d, nil
}
