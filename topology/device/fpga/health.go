package fpga

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/fpga/bitstream"
)

// register is a file with a number that tells whether hardware is well
// (Documentation/ABI/testing/sysfs-platform-dfl-fme, sysfs-platform-dfl-port).
type register struct {
	file string
	// cause is the value of the taint.
	cause string
	// bad are the values of hardware that is not well; all but 0 if there are none.
	bad []uint64
}

// portRegisters are those below a port's directory, the same in both stacks.
var portRegisters = []register{
	{file: "errors/errors", cause: "port-errors"},
	// Power or temperature made the hardware throttle the port: states AP1, AP2 and AP6.
	{file: "power_state", cause: "power-state", bad: []uint64{1, 2, 6}},
}

// taints returns what the register says of those that depend on the hardware. A register
// that is not there, or not to be understood, says nothing.
func (r register) taints(h *device.Host, dir string) []device.Taint {
	text, err := h.ReadError(dir + "/" + r.file)
	if resetting(err) {
		return []device.Taint{{Reason: device.InReset, Value: r.cause}}
	}
	v, err := strconv.ParseUint(text, 0, 64)
	if err == nil && (slices.Contains(r.bad, v) || len(r.bad) == 0 && v != 0) {
		return []device.Taint{{Reason: device.Unhealthy, Value: r.cause}}
	}
	return nil
}

// crashed is what hardware answers that does not answer any more.
var crashed = strings.Repeat("f", 32)

// readID reads the ID of an interface or a function. During a reset it is empty, and a
// taint says so.
func readID(h *device.Host, file, cause string) (string, []device.Taint, error) {
	text, err := h.ReadError(file)
	if resetting(err) {
		return "", []device.Taint{{Reason: device.InReset, Value: cause}}, nil
	}
	if err != nil {
		return "", nil, err
	}
	id, ok := bitstream.ID(text)
	if !ok {
		return "", nil, fmt.Errorf("%s is %q", file, device.Shorten(text))
	}
	if id == crashed {
		return id, []device.Taint{{Reason: device.Unhealthy, Value: cause}}, nil
	}
	return id, nil, nil
}

// resetting reports whether a driver could not answer because the hardware is being reset,
// or a port is disabled while it is programmed (EBUSY).
func resetting(err error) bool {
	return device.Resetting(err) || errors.Is(err, syscall.EBUSY)
}
