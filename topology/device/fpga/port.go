package fpga

import (
	"fmt"
	"strconv"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// ports returns the ports that a function has. Without its mandatory properties a port is
// left out.
func (s stack) ports(h *device.Host, f topology.PCIFunction, problem func(error)) []device.Device {
	dirs := s.children(h, f, s.port)
	if len(dirs) == 0 {
		return nil
	}
	card, err := s.engineOf(h, f)
	if err != nil {
		problem(fmt.Errorf("the ports of %s are left out: %w", f.Address, err))
		return nil
	}
	var devices []device.Device
	for _, dir := range dirs {
		d, err := s.portAt(h, f, card, dir)
		if err != nil {
			problem(fmt.Errorf("a port of %s is left out: %w", f.Address, err))
			continue
		}
		devices = append(devices, d)
	}
	return devices
}

// portAt returns the port of a directory.
func (s stack) portAt(h *device.Host, f topology.PCIFunction, card engine, dir string) (device.Device, error) {
	number, ok := h.Uint(dir + "/id")
	if !ok {
		return device.Device{}, fmt.Errorf("%s/id is no number", dir)
	}
	afu, taints, err := readID(h, dir+"/afu_id", "afu-id")
	if err != nil {
		return device.Device{}, err
	}

	part := "port" + strconv.FormatUint(number, 10)
	d := h.Of(name, f, device.Kernel)
	d.Name = device.NameOf(name, f.Address, part)
	d.Driver = s.driver
	// A virtual function is a part already, and has one port. Its number is not taken:
	// on newer cards each function counts its ports from 0.
	if d.Function != device.Virtual {
		d.Use.Part = part
	}
	// A port that is still the physical function's is as good as it was without virtual
	// functions; those have others.
	d.Taints = nil
	d.Set("model", model(f))
	d.Set("stack", device.Text(s.name))
	d.Set("interfaceID", device.Text(card.interfaceID))
	d.Set("afuID", device.Text(afu))
	d.Set("programmable", device.Flag(card.interfaceID != "" && len(card.nodes) > 0))

	for _, r := range portRegisters {
		taints = append(taints, r.taints(h, dir)...)
	}
	for _, t := range append(taints, card.taints...) {
		d.Taint(t.Reason, t.Value)
	}
	n, ok := h.Node(dir, false)
	if ok {
		d.Nodes = append(d.Nodes, n)
	}
	switch {
	case f.Driver != s.driver:
		d.Taint(device.DriverLost, f.Driver)
	case !ok:
		d.Taint(device.DriverLost, "no-node")
	}
	for _, n := range card.nodes {
		n.Role = Management
		d.Nodes = append(d.Nodes, n)
	}
	return d, nil
}
