// Package fpga finds the ports of Intel's FPGAs: the slots of a card into which a function
// (an AFU) is programmed, and through whose node a container uses it.
//
// The kernel shows a card as one management engine (FME), which belongs to the physical
// function, and up to four ports, each of which can be handed to a virtual function. A
// program fits a card whose interface it was made for, and brings a function. So a port is
// a device that tells both, and the package bitstream reads them from files.
//
// Two sets of drivers do this with other names: DFL of the kernel (drivers/fpga,
// Documentation/fpga/dfl.rst) and the older one of OPAE.
package fpga

import (
	"cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

const name = "fpga"

// Management is the role of the FME's node among those of a port: who has it can program
// every port of the card. Claims get it only if they say that they are for development
// with it; a monitor device has the same node without a role.
const Management = "fpga-management"

// Attributes of a port: the function that it has now, that which its card has for programs,
// and whether it can be programmed. The IDs are in the form of package bitstream, or empty while
// the hardware is being reset.
const (
	AFUID        = "afuID"
	InterfaceID  = "interfaceID"
	Programmable = "programmable"
	// Stack is the set of drivers, "dfl" or "opae".
	Stack = "stack"
)

// cards are by vendor and device, of physical and virtual functions. A card whose device
// is shared by several is in boards.
var cards = map[int]string{
	0x8086bcbd: "Integrated Arria 10",
	0x8086bcbf: "Integrated Arria 10",
	0x8086bcc0: "Integrated Arria 10",
	0x8086bcc1: "Integrated Arria 10",
	0x808609c4: "PAC Arria 10",
	0x808609c5: "PAC Arria 10",
	0x80860b30: "PAC N3000",
	0x80860b2b: "PAC D5005",
	0x80860b2c: "PAC D5005",
	0x8086bcce: "Unknown",
	0x8086bccf: "Unknown",
	0x1c2c1000: "PAC N5010",
	0x1c2c1001: "PAC N5011",
}

// boards are by the subsystem's vendor and device, for functions bcce and bccf.
var boards = map[int]string{
	0x8086138d: "PAC D5005",
	0x80861770: "N6000",
	0x80861771: "N6001",
	0x808617d4: "C6100",
}

func model(f topology.PCIFunction) device.Value {
	card := cards[device.ID(f)]
	if card == "Unknown" {
		card = cmp.Or(boards[f.SubsystemVendor<<16|f.SubsystemDevice], card)
	}
	return device.Text(card)
}

// Family is the family of FPGAs.
type Family struct{}

// Name implements [device.Family].
func (Family) Name() string { return name }

// Discover implements [device.Family]. The ports are the drivers' to show, so a function
// without one of these drivers, or on vfio, has no devices.
func (Family) Discover(h *device.Host, problem func(error)) []device.Device {
	var devices []device.Device
	for _, f := range h.Functions(func(f topology.PCIFunction) bool { return cards[device.ID(f)] != "" }) {
		for _, s := range stacks {
			devices = append(devices, s.ports(h, f, problem)...)
			devices = append(devices, s.monitors(h, f)...)
		}
	}
	withholdAmbiguous(devices)
	return devices
}
