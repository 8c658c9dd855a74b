package pciselect

import (
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

// matcher is a valid entry, with its texts as numbers.
type matcher struct {
	Entry
	vendor, device, subsystemVendor, subsystemDevice number
	// class counts in the bits of classMask, if there is one.
	class, classMask number
	addresses        map[topology.PCIAddress]bool
}

// number is what a property must be, if it is given.
type number struct {
	value int
	given bool
}

func (n number) matches(v int) bool { return !n.given || n.value == v }

func (m matcher) matches(f topology.PCIFunction) bool {
	return m.vendor.matches(f.Vendor) && m.device.matches(f.Device) &&
		m.subsystemVendor.matches(f.SubsystemVendor) && m.subsystemDevice.matches(f.SubsystemDevice) &&
		m.matchesClass(f.Class) &&
		(m.Match.Driver == "" || m.Match.Driver == f.Driver) &&
		(len(m.addresses) == 0 || m.addresses[f.Address])
}

func (m matcher) matchesClass(class int) bool {
	if m.classMask.given && class != topology.None {
		return (class^m.class.value)&m.classMask.value == 0
	}
	return m.class.matches(class)
}

// parseHex reads a number of so many digits, "0x8086" or "8086".
func parseHex(text string, digits int) (number, bool) {
	text, _ = strings.CutPrefix(strings.ToLower(text), "0x")
	v, err := strconv.ParseUint(text, 16, 31)
	return number{int(v), true}, err == nil && len(text) == digits
}
