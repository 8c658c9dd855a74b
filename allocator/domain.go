package allocator

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/topolet/topolet/topology"
)

// Domain is a part of the machine out of which claims are served: the cores of
// one type on one NUMA node. Publication and lookup both use [Domains], so what
// the scheduler sees and what a claim is served from are the same thing.
//
// A Domain never changes and is safe for concurrent use.
type Domain struct {
	// Name is unique on the machine and the same after every restart:
	// "numa-0", "numa-0-efficiency".
	Name string
	// NUMANode is the kernel's number, or topology.None on a kernel without NUMA.
	NUMANode int
	// Socket is the index of the socket that all the domain's CPUs share, or
	// topology.None if the machine does not tell or they span several.
	Socket int
	// CoreType is the type of every core in the domain.
	CoreType topology.CoreType
	// ThreadsPerCore is the number of CPUs of every core in the domain. Claims
	// are served in multiples of it.
	ThreadsPerCore int
	// Isolated says that the kernel's scheduler leaves the domain's CPUs alone
	// (isolcpus): they are in no pool, and nothing balances load over them.
	Isolated bool
	// CPUs are the CPUs that claims can get: whole cores without reserved or
	// offline CPUs.
	CPUs topology.CPUSet
	// MemoryNodes are the NUMA nodes, by the kernel's numbers, whose memory is
	// nearest to the CPUs: the domain's own, or others where that has none. Empty
	// on a kernel without NUMA.
	MemoryNodes []int

	cores  []core
	groups []group
}

// core is one whole core of a domain.
type core struct {
	cpus []int
	l3   int
	clus int
}

// group is a run of cores that share something, with the runs inside it. It
// covers cores[from:to].
type group struct {
	from, to int
	inner    []group
}

// Domains divides the machine into domains, ordered by NUMA node, then by core
// type with the fastest first, then with the isolated ones last. Cores that touch
// the reserved set, that are isolated in part, that miss a thread, that straddle
// NUMA nodes or that no NUMA node names are in no domain; those of their CPUs that
// are not isolated stay in the shared pool. A domain without cores is not
// returned.
func Domains(m *topology.Machine, reserved topology.CPUSet) []*Domain {
	type key struct {
		node     int
		kind     topology.CoreType
		isolated bool
	}
	found := map[key][]core{}
	for _, c := range wholeCores(m) {
		cpu, _ := m.CPU(c.cpus[0])
		if nodeless := cpu.NUMANode == topology.None && len(m.NUMANodes) > 0; nodeless || touches(c, reserved) || straddles(m, c, cpu) {
			continue
		}
		k := key{cpu.NUMANode, cpu.CoreType, m.Isolated.Contains(cpu.ID)}
		found[k] = append(found[k], c)
	}

	domains := make([]*Domain, 0, len(found))
	for k, cores := range found {
		d := newDomain(m, k.node, k.kind, cores)
		d.Isolated = k.isolated
		faster := len(found[key{k.node, topology.Performance, false}])+len(found[key{k.node, topology.Performance, true}]) > 0
		d.Name = domainName(k.node, k.kind, faster)
		if k.isolated {
			d.Name += "-isolated"
		}
		domains = append(domains, d)
	}
	slices.SortFunc(domains, func(a, b *Domain) int {
		return cmp.Or(
			cmp.Compare(a.NUMANode, b.NUMANode),
			cmp.Compare(kindOrder(a.CoreType), kindOrder(b.CoreType)),
			compareBools(a.Isolated, b.Isolated),
		)
	})
	return domains
}

// DefaultReserved returns the CPUs that stay in the shared pool when nobody
// says which: the core of the lowest online CPU, where interrupts and
// housekeeping land by default.
func DefaultReserved(m *topology.Machine) topology.CPUSet {
	if len(m.CPUs) == 0 {
		return topology.CPUSet{}
	}
	first := m.CPUs[0]
	if first.Core == topology.None {
		return topology.NewCPUSet(first.ID)
	}
	return m.Cores[first.Core].CPUs
}

// wholeCores lists the machine's cores. A CPU whose core the machine does not
// tell counts as a core of its own: nothing says that it shares one.
func wholeCores(m *topology.Machine) []core {
	cores := make([]core, 0, len(m.Cores))
	for _, cpu := range m.CPUs {
		c := core{l3: cpu.L3, clus: cpu.Cluster}
		if cpu.Core == topology.None {
			c.cpus = []int{cpu.ID}
		} else {
			if m.Cores[cpu.Core].CPUs.First() != cpu.ID {
				continue
			}
			c.cpus = m.Cores[cpu.Core].CPUs.List()
		}
		cores = append(cores, c)
	}
	return cores
}

func touches(c core, set topology.CPUSet) bool {
	return slices.ContainsFunc(c.cpus, set.Contains)
}

// straddles reports whether the core's CPUs disagree about NUMA node, type or
// isolation.
func straddles(m *topology.Machine, c core, first topology.CPU) bool {
	return slices.ContainsFunc(c.cpus, func(id int) bool {
		cpu, ok := m.CPU(id)
		return !ok || cpu.NUMANode != first.NUMANode || cpu.CoreType != first.CoreType ||
			m.Isolated.Contains(id) != m.Isolated.Contains(first.ID)
	})
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

func newDomain(m *topology.Machine, node int, kind topology.CoreType, cores []core) *Domain {
	threads := 0
	for _, c := range cores {
		threads = max(threads, len(c.cpus))
	}
	// A core with a thread offline would make counts that cannot be placed.
	cores = slices.DeleteFunc(cores, func(c core) bool { return len(c.cpus) != threads })
	slices.SortFunc(cores, func(a, b core) int {
		return cmp.Or(cmp.Compare(a.l3, b.l3), cmp.Compare(a.clus, b.clus), cmp.Compare(a.cpus[0], b.cpus[0]))
	})

	d := &Domain{
		NUMANode:       node,
		CoreType:       kind,
		ThreadsPerCore: threads,
		cores:          cores,
	}
	ids := make([]int, 0, len(cores)*threads)
	for _, c := range cores {
		ids = append(ids, c.cpus...)
	}
	d.CPUs = topology.NewCPUSet(ids...)
	d.Socket = commonSocket(m, ids)
	d.MemoryNodes = memoryNodes(m, node)
	d.groups = runs(cores, 0, len(cores), func(c core) int { return c.l3 })
	for i, g := range d.groups {
		d.groups[i].inner = runs(cores, g.from, g.to, func(c core) int { return c.clus })
	}
	return d
}

// runs divides cores[from:to] where the label changes.
func runs(cores []core, from, to int, label func(core) int) []group {
	var groups []group
	for i := from; i < to; i++ {
		if i == from || label(cores[i]) != label(cores[i-1]) {
			groups = append(groups, group{from: i})
		}
		groups[len(groups)-1].to = i + 1
	}
	return groups
}

// memoryNodes are the node itself, or the nearest ones that have memory.
func memoryNodes(m *topology.Machine, node int) []int {
	var nearest []int
	least := 0
	for _, n := range m.NUMANodes {
		distance, known := m.NUMADistance(node, n.ID)
		if n.ID == node {
			distance, known = 0, true
		}
		switch {
		case n.MemoryBytes != nil && *n.MemoryBytes == 0, !known:
		case len(nearest) == 0 || distance < least:
			nearest, least = []int{n.ID}, distance
		case distance == least:
			nearest = append(nearest, n.ID)
		}
	}
	return nearest
}

func commonSocket(m *topology.Machine, ids []int) int {
	socket := topology.None
	for i, id := range ids {
		cpu, _ := m.CPU(id)
		if i == 0 {
			socket = cpu.Socket
		}
		if cpu.Socket != socket {
			return topology.None
		}
	}
	return socket
}

// domainName tells the kinds of cores of a node apart. The fastest kind has the
// plain name; a machine with three kinds has standard cores beside faster ones.
func domainName(node int, kind topology.CoreType, faster bool) string {
	name := fmt.Sprintf("numa-%d", max(node, 0))
	if kind == topology.Efficiency || kind == topology.Standard && faster {
		name += "-" + string(kind)
	}
	return name
}

func kindOrder(kind topology.CoreType) int {
	return slices.Index([]topology.CoreType{topology.Performance, topology.Standard, topology.Efficiency}, kind)
}
