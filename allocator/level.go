package allocator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/topolet/topolet/topology"
)

// Level is the size of the part of the machine that a [Domain] is.
type Level string

// The levels. Every machine is divided into NUMA nodes; the others come beside
// them where they are asked for.
const (
	// NUMALevel is the CPUs of one NUMA node.
	NUMALevel Level = "numa"
	// L3Level is the CPUs of one L3 group.
	L3Level Level = "l3"
	// SocketLevel is the CPUs of one socket.
	SocketLevel Level = "socket"
	// MachineLevel is all CPUs.
	MachineLevel Level = "machine"
)

// part is the number of the level's part that a core is in, or topology.None.
func (l Level) part(c core) int {
	switch l {
	case L3Level:
		return c.l3
	case SocketLevel:
		return c.socket
	case MachineLevel:
		return 0
	}
	return max(c.node, 0) // without NUMA the machine is one node
}

// domains are those of one level.
func (l Level) domains(m *topology.Machine, cores []core) []*Domain {
	type key struct {
		part int
		kind kind
	}
	found := map[key][]core{}
	faster := map[int]bool{} // parts that have performance cores
	for _, c := range cores {
		part := l.part(c)
		if part == topology.None {
			continue
		}
		found[key{part, c.kind}] = append(found[key{part, c.kind}], c)
		faster[part] = faster[part] || c.kind.coreType == topology.Performance
	}
	keys := slices.SortedFunc(maps.Keys(found), func(a, b key) int {
		return cmp.Or(
			cmp.Compare(a.part, b.part),
			cmp.Compare(kindOrder(a.kind.coreType), kindOrder(b.kind.coreType)),
			compareBools(a.kind.isolated, b.kind.isolated),
		)
	})
	domains := make([]*Domain, 0, len(keys))
	for _, k := range keys {
		d := newDomain(m, l, found[k])
		d.Name = l.partName(k.part) + kindSuffix(k.kind.coreType, faster[k.part])
		if d.Isolated {
			d.Name += "-isolated"
		}
		domains = append(domains, d)
	}
	return domains
}

// partName names a part of the machine.
func (l Level) partName(part int) string {
	if l == MachineLevel {
		return string(l)
	}
	return fmt.Sprintf("%s-%d", l, part)
}

// numbers returns what makes the number of a group out of its index: the kernel's own
// if each group has one to itself.
func numbers(groups []topology.Group) func(index int) int {
	seen := map[int]bool{topology.None: true}
	for _, g := range groups {
		if seen[g.KernelID] {
			return func(index int) int { return index }
		}
		seen[g.KernelID] = true
	}
	return func(index int) int {
		if index == topology.None {
			return index
		}
		return groups[index].KernelID
	}
}

// kindSuffix tells the kinds of cores of a part apart. The fastest kind has none; a
// machine with three kinds has standard cores beside faster ones.
func kindSuffix(t topology.CoreType, faster bool) string {
	if t == topology.Efficiency || t == topology.Standard && faster {
		return "-" + string(t)
	}
	return ""
}

func kindOrder(t topology.CoreType) int {
	return slices.Index([]topology.CoreType{topology.Performance, topology.Standard, topology.Efficiency}, t)
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
