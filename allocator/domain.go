package allocator

import (
	"cmp"
	"slices"

	"github.com/topolet/topolet/topology"
)

// Domain is a part of the machine out of which claims are served: the cores of
// one type in one NUMA node, or in what another [Level] says. Publication and
// lookup both use [Domains], so what the scheduler sees and what a claim is served
// from are the same thing.
//
// A Domain never changes and is safe for concurrent use.
type Domain struct {
	// Name is unique on the machine and the same after every restart:
	// "numa-0", "numa-0-efficiency", "l3-3".
	Name  string
	Level Level
	// NUMANodes are the NUMA nodes of the domain's CPUs by the kernel's numbers, in
	// ascending order; none on a kernel without NUMA.
	NUMANodes []int
	// Socket is the number of the socket that all the domain's CPUs share, the kernel's
	// if it gives each its own, or topology.None if the machine does not tell or they
	// span several.
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
	// nearest to the CPUs: the domain's own, or others where those have none. Empty
	// on a kernel without NUMA.
	MemoryNodes []int
	// Units are what the domain has in common with domains of other levels: two
	// domains have a CPU in common if and only if they have a unit in common.
	Units []Unit

	cores  []core
	groups []group
}

// NUMANode is the kernel's number of the one NUMA node that the domain's CPUs are
// on, or topology.None.
func (d *Domain) NUMANode() int {
	if len(d.NUMANodes) != 1 {
		return topology.None
	}
	return d.NUMANodes[0]
}

// core is one whole core of a domain.
type core struct {
	cpus []int
	kind kind
	// The parts of the machine that the core is in; topology.None is unknown. Sockets
	// and L3 groups have the kernel's numbers where it gives each its own: ours change
	// when a whole one goes offline.
	socket, node, l3, clus int
}

// at is the part of that scale in which the core is, or topology.None.
func (c core) at(s scale) int {
	return [scales]int{c.socket, c.node, c.l3, c.clus}[s]
}

// scale is a size of the parts that a choice keeps together.
type scale int

// The scales, from the whole to its parts. What divides a larger part counts for
// more.
const (
	socketScale scale = iota
	nodeScale
	l3Scale
	clusterScale
	scales // how many there are
)

// kind is what all cores of a domain have in common beside their place.
type kind struct {
	coreType topology.CoreType
	isolated bool
}

// group is a run of cores that share something, with the runs inside it; none if
// nothing divides it. It covers cores[from:to].
type group struct {
	scale    scale
	from, to int
	inner    []group
}

// Domains divides the machine into the domains of its NUMA nodes, ordered by node,
// then by core type with the fastest first, then with the isolated ones last; and
// after them, in the same way, into those of each further level. Cores that touch
// the reserved set, that are isolated in part, that miss a thread, that straddle
// NUMA nodes or that no NUMA node names are in no domain; those of their CPUs that
// are not isolated stay in the shared pool. A domain without cores is not
// returned.
func Domains(m *topology.Machine, reserved topology.CPUSet, further ...Level) []*Domain {
	cores := domainCores(m, reserved)
	var domains []*Domain
	for _, level := range append([]Level{NUMALevel}, further...) {
		domains = append(domains, level.domains(m, cores)...)
	}
	return domains
}

// domainCores are the cores that domains consist of.
func domainCores(m *topology.Machine, reserved topology.CPUSet) []core {
	return slices.DeleteFunc(wholeCores(m), func(c core) bool {
		nodeless := c.node == topology.None && len(m.NUMANodes) > 0
		return nodeless || touches(c, reserved) || straddles(m, c)
	})
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
	socketOf, l3Of := numbers(m.Sockets), numbers(m.L3Groups)
	for _, cpu := range m.CPUs {
		c := core{
			kind:   kind{cpu.CoreType, m.Isolated.Contains(cpu.ID)},
			socket: socketOf(cpu.Socket), node: cpu.NUMANode, l3: l3Of(cpu.L3), clus: cpu.Cluster,
		}
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
func straddles(m *topology.Machine, c core) bool {
	return slices.ContainsFunc(c.cpus, func(id int) bool {
		cpu, ok := m.CPU(id)
		return !ok || cpu.NUMANode != c.node || kind{cpu.CoreType, m.Isolated.Contains(id)} != c.kind
	})
}

// newDomain makes a domain of cores of one kind.
func newDomain(m *topology.Machine, level Level, cores []core) *Domain {
	threads := 0
	for _, c := range cores {
		threads = max(threads, len(c.cpus))
	}
	// A core with a thread offline would make counts that cannot be placed.
	cores = slices.DeleteFunc(cores, func(c core) bool { return len(c.cpus) != threads })
	// What is nearest together stands together, at every scale.
	slices.SortFunc(cores, func(a, b core) int {
		for s := range scales {
			if order := cmp.Compare(a.at(s), b.at(s)); order != 0 {
				return order
			}
		}
		return cmp.Compare(a.cpus[0], b.cpus[0])
	})

	d := &Domain{
		Level:          level,
		Socket:         cores[0].socket,
		CoreType:       cores[0].kind.coreType,
		ThreadsPerCore: threads,
		Isolated:       cores[0].kind.isolated,
		cores:          cores,
	}
	ids := make([]int, 0, len(cores)*threads)
	for _, c := range cores {
		ids = append(ids, c.cpus...)
		if c.socket != d.Socket {
			d.Socket = topology.None
		}
		if c.node != topology.None {
			d.NUMANodes = append(d.NUMANodes, c.node)
			d.MemoryNodes = append(d.MemoryNodes, memoryNodes(m, c.node)...)
		}
		if u := unitOf(c); !slices.Contains(d.Units, u) {
			d.Units = append(d.Units, u)
		}
	}
	d.CPUs = topology.NewCPUSet(ids...)
	d.NUMANodes, d.MemoryNodes = sortedSet(d.NUMANodes), sortedSet(d.MemoryNodes)
	d.groups = nested(cores, 0, len(cores), socketScale)
	if d.groups == nil {
		d.groups = []group{{to: len(cores)}}
	}
	return d
}

func sortedSet(list []int) []int {
	slices.Sort(list)
	return slices.Compact(list)
}

// nested divides cores[from:to] into runs of that scale, and these into runs of the
// next. A scale that divides nothing is left out.
func nested(cores []core, from, to int, s scale) []group {
	if s == scales {
		return nil
	}
	groups := runs(cores, from, to, s)
	if len(groups) == 1 {
		return nested(cores, from, to, s+1)
	}
	for i, g := range groups {
		groups[i].inner = nested(cores, g.from, g.to, s+1)
	}
	return groups
}

// runs divides cores[from:to] where the part of that scale changes.
func runs(cores []core, from, to int, s scale) []group {
	var groups []group
	for i := from; i < to; i++ {
		if i == from || cores[i].at(s) != cores[i-1].at(s) {
			groups = append(groups, group{scale: s, from: i})
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
