package allocator

import (
	"fmt"

	"github.com/topolet/topolet/topology"
)

// Unit is the CPUs of one type that one L3 group has on one NUMA node of one socket.
type Unit struct {
	// Name is unique on the machine: "socket-0-numa-0-l3-3-standard".
	Name string
	// Socket is the number of the unit's socket, or topology.None.
	Socket int
}

// unitOf is the unit that a core belongs to.
func unitOf(c core) Unit {
	name := fmt.Sprintf("numa-%d", max(c.node, 0))
	if c.socket != topology.None {
		name = fmt.Sprintf("socket-%d-%s", c.socket, name)
	}
	if c.l3 != topology.None {
		name += fmt.Sprintf("-l3-%d", c.l3)
	}
	name += "-" + string(c.kind.coreType)
	if c.kind.isolated {
		name += "-isolated"
	}
	return Unit{Name: name, Socket: c.socket}
}
