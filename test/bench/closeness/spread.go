package main

import "github.com/topolet/topolet/topology"

// spread counts what grants are spread over: the less, the closer.
type spread struct {
	grants     int
	numaNodes  int
	l3Groups   int
	withL3     int // grants with a CPU of which the machine tells the L3
	splitCores int // cores of which a grant has a part
}

// measure returns the spread of one grant.
func measure(m *topology.Machine, cpus topology.CPUSet) spread {
	nodes, l3s, cores := map[int]bool{}, map[int]bool{}, map[int]bool{}
	for id := range cpus.All() {
		cpu, _ := m.CPU(id)
		nodes[cpu.NUMANode] = true
		if cpu.L3 != topology.None {
			l3s[cpu.L3] = true
		}
		if cpu.Core != topology.None && !m.Cores[cpu.Core].CPUs.IsSubsetOf(cpus) {
			cores[cpu.Core] = true
		}
	}
	return spread{grants: 1, numaNodes: len(nodes), l3Groups: len(l3s), withL3: min(len(l3s), 1), splitCores: len(cores)}
}

func (s *spread) add(o spread) {
	s.grants += o.grants
	s.numaNodes += o.numaNodes
	s.l3Groups += o.l3Groups
	s.withL3 += o.withL3
	s.splitCores += o.splitCores
}
