package draplugin

import (
	"math/rand/v2"
	"slices"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// A NUMA node of a random machine has so much memory, and huge pages of it.
const nodeMemory, nodeHugepages = 1 << 30, 64 << 20

// A random machine has at most so many CPUs. Few are large, so that many are quick.
const smallMachine, largeMachine = 48, 320

// randomMachine is a machine that has something to give, and its reserved CPUs.
func randomMachine(random *rand.Rand) (topologytest.Spec, topology.CPUSet) {
	for {
		spec := randomSpec(random)
		limit := smallMachine
		if random.IntN(50) == 0 {
			limit = largeMachine
		}
		if cpusOf(spec) > limit {
			continue
		}
		whole := topologytest.New(spec)
		var isolated topology.CPUSet
		if random.IntN(3) == 0 {
			isolated = someCPUs(random, whole)
			spec.Isolated = isolated.String()
		}
		if random.IntN(3) == 0 {
			spec.Offline = someCPUs(random, whole).String()
		}
		m := topologytest.New(spec)
		reserved := allocator.DefaultReserved(m)
		if random.IntN(3) == 0 {
			reserved = someCPUs(random, whole)
		}
		if !reserved.Difference(isolated).Intersects(m.Online) || len(allocator.Domains(m, reserved)) == 0 {
			continue
		}
		return spec, reserved
	}
}

func cpusOf(s topologytest.Spec) int {
	return s.Sockets * s.NUMAPerSocket * s.L3PerNUMA * (s.CoresPerL3*s.Threads + s.EfficiencyCoresPerL3)
}

func randomSpec(random *rand.Rand) topologytest.Spec {
	one := func(of ...int) int { return of[random.IntN(len(of))] }
	in := func(n int) bool { return random.IntN(n) == 0 }
	s := topologytest.Spec{
		Sockets: one(1, 1, 2, 4), NUMAPerSocket: one(1, 1, 2, 4), L3PerNUMA: one(1, 1, 2, 3),
		CoresPerL3: 1 + random.IntN(8), Threads: one(1, 2, 2, 4, 8),
		AdjacentThreads: in(2), Interleave: in(3), NoL3: in(8), NoNUMA: in(8),
		CoresPerL2: one(0, 0, 2), CoresPerCluster: one(0, 0, 2, 3),
	}
	if in(4) {
		s.EfficiencyCoresPerL3, s.Capacity = 1+random.IntN(8), in(2)
		s.CoresPerL3 = one(0, s.CoresPerL3, s.CoresPerL3)
	}
	if s.L3PerNUMA == 1 && s.NUMAPerSocket > 1 && in(3) {
		s.NUMAPerL3 = 2
	}
	if parts := s.NUMAPerSocket * s.L3PerNUMA / max(s.NUMAPerL3, 1); parts%2 == 0 && in(3) {
		s.DiesPerSocket = 2
	}
	if in(4) {
		id := 0
		for range s.Sockets * s.NUMAPerSocket {
			id += random.IntN(20)
			s.NUMAIDs = append(s.NUMAIDs, id)
			id++
		}
	}
	s.NUMAMemory = nodeMemory
	if in(3) {
		s.Hugepages = []topology.Hugepages{{SizeBytes: 2 << 20, Total: nodeHugepages / (2 << 20)}}
	}
	if in(6) {
		first := s.Sockets*s.NUMAPerSocket + slices.Max(append(s.NUMAIDs, 0))
		s.MemoryOnly = []int{first, first + 2}
	}
	return s
}

// someCPUs are CPUs as people isolate, reserve or switch them off: never the first
// one, which the kernel keeps online.
func someCPUs(random *rand.Rand, m *topology.Machine) topology.CPUSet {
	var set topology.CPUSet
	switch random.IntN(4) {
	case 0:
		for range 1 + random.IntN(4) {
			set = set.Union(topology.NewCPUSet(m.CPUs[random.IntN(len(m.CPUs))].ID))
		}
	case 1:
		for range 1 + random.IntN(3) {
			set = set.Union(m.Cores[random.IntN(len(m.Cores))].CPUs)
		}
	case 2:
		set = m.Sockets[random.IntN(len(m.Sockets))].CPUs
		if len(m.NUMANodes) > 0 {
			set = m.NUMANodes[random.IntN(len(m.NUMANodes))].CPUs
		}
	default:
		for _, core := range m.Cores {
			set = set.Union(core.CPUs.Difference(topology.NewCPUSet(core.CPUs.First())))
		}
	}
	return set.Difference(topology.NewCPUSet(0))
}
