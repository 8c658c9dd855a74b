// Package nic finds network cards: PCI functions with a network interface, an RDMA device
// or both.
//
// A card is used in two ways, and a function can have both at once. A network interface
// has no device node: it is moved into the network namespace of its user, by its name
// (attribute ifName). An RDMA device is used through nodes in /dev/infiniband. Virtual
// functions are cards of their own, and parts of the physical one.
//
// A card that the host itself uses is not published: see package inuse.
package nic

import (
	"fmt"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/inuse"
)

const (
	name = "nic"
	// network is the base class of network controllers.
	network = 0x02
)

// noInterface is the cause of the taint of a card without one.
const noInterface = "no-interface"

// IsAway reports whether all that is wrong with a card is that its interface is in another
// network namespace, perhaps that of the claim that has it.
func IsAway(d device.Device) bool {
	return d.Family == name && len(d.Taints) == 1 && d.Taints[0] == device.Taint{Reason: device.DriverLost, Value: noInterface}
}

// Family is the family of network cards.
type Family struct {
	// TaintDown taints cards whose interface is down: has no link, or was switched off.
	TaintDown bool
}

// Name implements [device.Family].
func (Family) Name() string { return name }

// Discover implements [device.Family].
func (family Family) Discover(h *device.Host, problem func(error)) []device.Device {
	var devices []device.Device
	hardware := inuse.Of(h)
	for _, f := range h.Functions(func(f topology.PCIFunction) bool { return f.Class>>16 == network }) {
		use, err := hardware.Function(f)
		if err != nil {
			problem(fmt.Errorf("%s is left out, as the host may use it: %w", f.Address, err))
			continue
		}
		if use != "" {
			continue
		}
		if d, ok := h.VFIO(name, f); ok {
			devices = append(devices, d)
			continue
		}
		devices = append(devices, family.card(h, f, hardware.Interfaces(f)))
	}
	return devices
}

func (family Family) card(h *device.Host, f topology.PCIFunction, interfaces []string) device.Device {
	d := h.Of(name, f, device.Kernel)
	hasInterface := family.describeInterfaces(h, &d, interfaces)
	hasRDMA := describeRDMA(h, &d, f)
	switch {
	case f.Driver == "":
		d.Taint(device.DriverLost, "")
	case !hasInterface && !hasRDMA:
		// The interface may be in another network namespace: somebody has it already.
		d.Taint(device.DriverLost, noInterface)
	case !hasInterface && len(d.Nodes) == 0:
		d.Taint(device.DriverLost, "no-node")
	}
	return d
}
