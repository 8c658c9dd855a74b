// Package topologytest makes machines for tests and benchmarks: from a few
// numbers ([Spec]) to the tree of files that Linux would show for such a
// machine ([FS]), and to the model that discovery makes of it ([New]). The
// files come first: no test sees a machine that could not have been discovered.
//
//	m := topologytest.New(topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, CoresPerL3: 8, Threads: 2})
package topologytest

import (
	"fmt"
	"slices"

	"github.com/topolet/topolet/topology"
)

// Spec describes a machine. The zero value of every field is a plain choice, so
// that Spec{} is a machine of one CPU. A mistake in a Spec panics.
type Spec struct {
	// Counts from the whole to its parts; 0 is 1.

	Sockets       int
	NUMAPerSocket int
	L3PerNUMA     int
	CoresPerL3    int
	// Threads are the CPUs of each core, or of each performance core where there
	// are two kinds.
	Threads int

	// EfficiencyCoresPerL3 follow the other cores of an L3 group, with one CPU
	// each, and make the machine a hybrid one.
	EfficiencyCoresPerL3 int
	// Capacity has a hybrid machine tell its kinds by cpuN/cpu_capacity, as on
	// arm64, instead of by cpu_core and cpu_atom.
	Capacity bool

	// NUMAPerL3 has so many NUMA nodes of a socket share one L3 (sub-NUMA
	// clustering); L3PerNUMA must then be 1.
	NUMAPerL3 int
	// DiesPerSocket splits the L3 groups of a socket into dies; 0: the machine
	// does not tell of dies.
	DiesPerSocket int
	// CoresPerCluster, and CoresPerL2 in the same way, join neighbouring cores of
	// an L3 group. 0: the machine does not tell of clusters, and every core has
	// an L2 of its own.
	CoresPerCluster int
	CoresPerL2      int

	// AdjacentThreads numbers the threads of a core one after the other, as POWER
	// does. Otherwise the first threads of all cores come first, as on x86.
	AdjacentThreads bool
	// Interleave deals the first CPU numbers out over the sockets in turn.
	Interleave bool

	// Offline, Isolated and NohzFull are CPU lists.
	Offline  string
	Isolated string
	NohzFull string

	// NUMAIDs are the kernel's numbers of the nodes with CPUs; nil counts from 0.
	NUMAIDs []int
	// MemoryOnly are the numbers of further nodes, which have no CPUs.
	MemoryOnly []int
	// NUMAMemory is the memory of each node in bytes; 0 is 16 GiB.
	NUMAMemory uint64
	// Hugepages are in each node with CPUs.
	Hugepages []topology.Hugepages
	// NoNUMA is a kernel without NUMA: there is no node directory.
	NoNUMA bool
	// PCI are the PCIe roots.
	PCI []PCIRoot
	// NoL3 is a machine whose last cache is the L2.
	NoL3 bool
}

// New returns the model of the machine.
func New(s Spec) *topology.Machine {
	m, err := topology.Discover(FS(s))
	if err != nil {
		panic(fmt.Sprintf("topologytest: %v", err))
	}
	return m
}

// Write puts the machine's tree on disk, for programs that are given a root.
func Write(dir string, s Spec) error { return FS(s).Write(dir) }

// cpu is one CPU of the machine in the making. All fields but core count over
// the whole machine.
type cpu struct {
	id, socket, die, node, l3, cluster, l2, coreOfMachine int
	core                                                  int // within its socket: core_id
	efficiency                                            bool
}

// withDefaults returns the spec with the counts filled in.
func (s Spec) withDefaults() Spec {
	for _, count := range []*int{
		&s.Sockets, &s.NUMAPerSocket, &s.L3PerNUMA, &s.Threads, &s.NUMAPerL3, &s.CoresPerL2,
	} {
		*count = max(*count, 1)
	}
	if s.EfficiencyCoresPerL3 == 0 {
		s.CoresPerL3 = max(s.CoresPerL3, 1)
	}
	if s.NUMAMemory == 0 {
		s.NUMAMemory = 16 << 30
	}
	if s.NUMAPerL3 > 1 && (s.L3PerNUMA > 1 || s.NUMAPerSocket%s.NUMAPerL3 != 0) {
		panic("topologytest: NUMAPerL3 must divide NUMAPerSocket, with L3PerNUMA 1")
	}
	if parts := s.NUMAPerSocket * s.L3PerNUMA / s.NUMAPerL3; s.DiesPerSocket > 0 && parts%s.DiesPerSocket != 0 {
		panic("topologytest: DiesPerSocket must divide the L3 groups of a socket")
	}
	nodes := s.Sockets * s.NUMAPerSocket
	if s.NUMAIDs == nil {
		for id := range nodes {
			s.NUMAIDs = append(s.NUMAIDs, id)
		}
	}
	if len(s.NUMAIDs) != nodes {
		panic(fmt.Sprintf("topologytest: %d NUMAIDs for %d nodes", len(s.NUMAIDs), nodes))
	}
	return s
}

// cpus numbers the CPUs as the kernel would, in ascending order.
func (s Spec) cpus() []cpu {
	type core struct {
		cpu
		threads int
	}
	var cores []core
	joined, cluster, l2 := s.CoresPerL3+s.EfficiencyCoresPerL3, -1, -1
	for socket := range s.Sockets {
		inSocket := 0
		for node := range s.NUMAPerSocket {
			for l3 := range s.L3PerNUMA {
				part := (node*s.L3PerNUMA + l3) / s.NUMAPerL3
				parts := s.NUMAPerSocket * s.L3PerNUMA / s.NUMAPerL3
				for i := range joined {
					if s.CoresPerCluster > 0 && i%s.CoresPerCluster == 0 {
						cluster++
					}
					if i%s.CoresPerL2 == 0 {
						l2++
					}
					c := core{threads: s.Threads, cpu: cpu{
						socket: socket, node: socket*s.NUMAPerSocket + node,
						l3: socket*parts + part, cluster: cluster, l2: l2,
						core: inSocket, coreOfMachine: len(cores),
						efficiency: i >= s.CoresPerL3,
					}}
					if s.DiesPerSocket > 0 {
						c.die = socket*s.DiesPerSocket + part*s.DiesPerSocket/parts
					}
					if c.efficiency {
						c.threads = 1
					}
					inSocket++
					cores = append(cores, c)
				}
			}
		}
	}
	if s.Interleave {
		slices.SortStableFunc(cores, func(a, b core) int {
			if a.core != b.core {
				return a.core - b.core
			}
			return a.socket - b.socket
		})
	}
	var cpus []cpu
	add := func(c cpu) {
		c.id = len(cpus)
		cpus = append(cpus, c)
	}
	if s.AdjacentThreads || s.EfficiencyCoresPerL3 > 0 {
		// x86 numbers the threads of a hybrid part this way as well.
		for _, c := range cores {
			for range c.threads {
				add(c.cpu)
			}
		}
		return cpus
	}
	for thread := range s.Threads {
		for _, c := range cores {
			if thread < c.threads {
				add(c.cpu)
			}
		}
	}
	return cpus
}
