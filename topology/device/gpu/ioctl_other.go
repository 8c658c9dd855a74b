//go:build !linux

package gpu

import (
	"errors"
	"fmt"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// LocalMemory implements [MemoryQuery]. What is read here is a copy of a Linux machine,
// without its drivers.
func (Ioctl) LocalMemory(_ topology.PCIFunction, card device.Node) (uint64, error) {
	return 0, fmt.Errorf("opening %s: %w", card.Path, errors.ErrUnsupported)
}
