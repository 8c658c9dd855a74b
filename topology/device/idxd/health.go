package idxd

import (
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology/device"
)

// health returns what is wrong with all queues of the accelerator.
func (a accelerator) health() []device.Taint {
	var taints []device.Taint
	add := func(reason device.Reason, value string) {
		taints = append(taints, device.Taint{Reason: reason, Value: value})
	}
	if a.function.Driver != native {
		add(device.DriverLost, a.function.Driver)
	}
	switch state, err := a.host.ReadError(a.dir + "state"); {
	case device.Resetting(err):
		add(device.InReset, "state")
	case state == "enabled":
	case state == "halted":
		add(device.Unhealthy, "halted")
	case state == "disabled":
		add(device.DriverLost, "disabled")
	default:
		add(device.DriverLost, "state-unknown")
	}
	switch text, err := a.host.ReadError(a.dir + "errors"); {
	case device.Resetting(err):
		add(device.InReset, "errors")
	case anyError(text):
		add(device.Unhealthy, "errors")
	}
	return taints
}

// anyError reports whether a bit is set in the registers of software errors: groups of
// hexadecimal digits with commas between them, or spaces in older kernels. What is not
// of this form says nothing.
func anyError(text string) bool {
	var all uint64
	for _, group := range strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' }) {
		bits, err := strconv.ParseUint(strings.TrimPrefix(group, "0x"), 16, 64)
		if err != nil {
			return false
		}
		all |= bits
	}
	return all != 0
}
