package fpga

import (
	"fmt"
	"strconv"
	"strings"

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

	part := portPart + strconv.FormatUint(number, 10)
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
	d.Set(Stack, device.Text(s.name))
	d.Set(InterfaceID, device.Text(card.interfaceID))
	d.Set(AFUID, device.Text(afu))
	d.Set(Programmable, device.Flag(card.interfaceID != "" && len(card.nodes) > 0))

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

// portPart begins the part of a port, and the end of its device's name.
const portPart = "port"

// PortNumber returns the number by which the engine of its card knows a port, from the name
// of the port's device; a monitor device has none.
func PortNumber(device string) (uint32, bool) {
	i := strings.LastIndex(device, "-"+portPart)
	if i < 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(device[i+len("-"+portPart):], 10, 32)
	return uint32(n), err == nil
}

// withholdAmbiguous keeps ports from being programmed that their engine cannot tell apart: on
// newer cards each function counts its ports from 0, and all of them are in one region, so
// that who programs one takes the others' function from them.
func withholdAmbiguous(devices []device.Device) {
	type place struct {
		card   string
		number uint32
	}
	ports := map[place][]int{}
	for i, d := range devices {
		if number, ok := PortNumber(d.Name); ok {
			at := place{d.Use.Owner, number}
			ports[at] = append(ports[at], i)
		}
	}
	for _, same := range ports {
		for _, i := range same {
			if len(same) > 1 {
				devices[i].Set(Programmable, device.Flag(false))
			}
		}
	}
}
