package fpga

import (
	"fmt"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// engine is what ports have from the management engine of their card. The zero value is
// for a virtual function in a virtual machine, which the engine is not in.
type engine struct {
	// interfaceID is empty for a card that cannot be programmed port by port, and while
	// the card is being reset.
	interfaceID string
	// nodes is its node, if it has one.
	nodes []device.Node
	// taints are those of all ports.
	taints []device.Taint
}

// engineOf returns the engine of the card that a function is on. A virtual function's is
// at the physical one.
func (s stack) engineOf(h *device.Host, f topology.PCIFunction) (engine, error) {
	if pf, _, ok := h.PhysicalOf(f); ok {
		f = pf
	}
	var e engine
	dirs := s.children(h, f, s.engine)
	if len(dirs) == 0 {
		return e, nil
	}
	dir := dirs[0] // a card has one
	for _, file := range s.interfaces(h, dir) {
		id, taints, err := readID(h, file, "interface-id")
		switch {
		case err != nil:
			return e, err
		case e.interfaceID != "" && id != "" && id != e.interfaceID:
			return e, fmt.Errorf("its interfaces are %s and %s", e.interfaceID, id)
		case id != "":
			e.interfaceID = id
		}
		e.taints = append(e.taints, taints...)
	}
	for _, r := range s.errors {
		e.taints = append(e.taints, r.taints(h, dir)...)
	}
	if n, ok := h.Node(dir, false); ok {
		e.nodes = []device.Node{n}
	}
	return e, nil
}

// monitors returns the device by which administrators look at a card, at its physical
// function.
func (s stack) monitors(h *device.Host, f topology.PCIFunction) []device.Device {
	var devices []device.Device
	for _, dir := range s.children(h, f, s.engine) {
		d := h.Of(name, f, device.Monitor)
		d.Driver = s.driver
		d.Set("model", model(f))
		if n, ok := h.Node(dir, false); ok {
			d.Nodes = []device.Node{n}
		}
		devices = append(devices, d)
	}
	return devices
}
