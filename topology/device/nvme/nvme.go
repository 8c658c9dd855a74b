// Package nvme finds disks with the NVMe interface (driver nvme, drivers/nvme/host).
//
// A PCI function is a controller, and what it stores is in namespaces, each of which is a
// block device. Both can be given away: a namespace alone, or the controller with all of
// them. Discovery goes from the function to its controller, from there to the
// namespaces, and takes away what the host uses itself (package inuse). What is left
// becomes devices: a namespace is a part of its controller's function.
//
// A namespace may be reached through several controllers of one subsystem. Then the
// kernel shows a hidden disk below each controller, and the one that is used below the
// subsystem (native multipath), or else a disk for each of the ways. Such a namespace is
// published once, with the first function that has it, and none of these controllers is
// published as a whole: who got it would have the others' data as well.
package nvme

import (
	"fmt"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/inuse"
)

const (
	name   = "nvme"
	native = "nvme"
	// class is that of controllers for input and output; there are others, for
	// administration only.
	class = 0x010802
	// maxNamespaces is how many are published as parts of a controller. One with more is
	// given away as a whole only.
	maxNamespaces = 32
)

// Roles of nodes of whole controllers. Claims get both by default; one that may only
// read gets neither.
const (
	// Controller is the role of the node for commands to the controller.
	Controller = "controller"
	// Generic is the role of the nodes for commands to namespaces, past the block layer.
	Generic = "generic"
)

// Family is the family of NVMe disks.
type Family struct{}

// Name implements [device.Family].
func (Family) Name() string { return name }

// Discover implements [device.Family].
func (Family) Discover(h *device.Host, problem func(error)) []device.Device {
	var devices []device.Device
	var controllers []controller
	hardware := inuse.Of(h)
	for _, f := range h.Functions(func(f topology.PCIFunction) bool { return f.Class == class }) {
		c, err := readController(h, hardware, f)
		if err != nil {
			problem(fmt.Errorf("controller %s is left out: %w", f.Address, err))
			continue
		}
		for _, err := range c.problems() {
			problem(err)
		}
		controllers = append(controllers, c)
	}
	ways := countWays(controllers)
	for _, c := range controllers {
		devices = append(devices, c.parts(h, ways)...)
		if !c.isFree(ways) {
			continue
		}
		if d, ok := h.VFIO(name, c.f); ok {
			setVMDRoot(h, &d, c.f)
			devices = append(devices, d)
			continue
		}
		devices = append(devices, c.whole(h))
	}
	return devices
}

// ways is what is known of a namespace from all controllers that have it.
type ways struct {
	count int
	used  bool
	// first is the function that it is published with.
	first topology.PCIAddress
}

// countWays tells of all namespaces that have an identity how they are reached.
func countWays(controllers []controller) map[string]ways {
	known := map[string]ways{}
	for _, c := range controllers {
		for _, n := range c.namespaces {
			if n.identity == "" {
				continue
			}
			w := known[n.identity]
			if w.count == 0 {
				w.first = c.f.Address
			}
			w.count++
			w.used = w.used || n.used
			known[n.identity] = w
		}
	}
	return known
}

// parts returns a device for each namespace that can be given away alone. A virtual
// function is a part of the physical one already, and has no parts of its own.
func (c controller) parts(h *device.Host, known map[string]ways) []device.Device {
	if c.f.PhysicalFunction != topology.None || len(c.namespaces) > maxNamespaces {
		return nil
	}
	var devices []device.Device
	for _, n := range c.namespaces {
		w := known[n.identity]
		if n.used || n.id == 0 || w.used || w.count > 1 && w.first != c.f.Address {
			continue
		}
		devices = append(devices, c.part(h, n))
	}
	return devices
}

// isFree reports whether the controller can be given away with all that it stores.
func (c controller) isFree(known map[string]ways) bool {
	for _, n := range c.namespaces {
		if w := known[n.identity]; n.used || w.used || w.count > 1 {
			return false
		}
	}
	return !c.used
}
