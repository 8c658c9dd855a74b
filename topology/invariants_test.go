package topology_test

import (
	"testing"

	"github.com/topolet/topolet/topology"
)

// checkInvariants checks what holds of every machine, whatever its files say.
func checkInvariants(t testing.TB, m *topology.Machine) {
	t.Helper()
	if m.Online.IsEmpty() {
		t.Error("no CPU is online")
	}
	if len(m.CPUs) != m.Online.Size() {
		t.Fatalf("%d CPUs, but %d online", len(m.CPUs), m.Online.Size())
	}
	i := 0
	for id := range m.Online.All() {
		if m.CPUs[i].ID != id {
			t.Fatalf("CPU at %d is %d, want %d", i, m.CPUs[i].ID, id)
		}
		i++
	}
	if m.Offline.Intersects(m.Online) {
		t.Errorf("CPUs are both online and offline: %s", m.Offline.Intersection(m.Online))
	}
	for name, set := range map[string]topology.CPUSet{"isolated": m.Isolated, "nohz_full": m.NohzFull} {
		if !set.IsSubsetOf(m.Online) {
			t.Errorf("%s CPUs %s are not all online", name, set)
		}
	}
	for name, level := range map[string]struct {
		groups []topology.Group
		label  func(topology.CPU) int
	}{
		"socket":  {m.Sockets, func(c topology.CPU) int { return c.Socket }},
		"die":     {m.Dies, func(c topology.CPU) int { return c.Die }},
		"cluster": {m.Clusters, func(c topology.CPU) int { return c.Cluster }},
		"l3":      {m.L3Groups, func(c topology.CPU) int { return c.L3 }},
		"l2":      {m.L2Groups, func(c topology.CPU) int { return c.L2 }},
		"core":    {m.Cores, func(c topology.CPU) int { return c.Core }},
	} {
		var all topology.CPUSet
		last := -1
		for i, g := range level.groups {
			if g.CPUs.IsEmpty() || !g.CPUs.IsSubsetOf(m.Online) || g.CPUs.Intersects(all) {
				t.Errorf("%s %d: CPUs %s are none, not online, or in two groups", name, i, g.CPUs)
			}
			if g.CPUs.First() <= last {
				t.Errorf("%s %d is out of order", name, i)
			}
			last = g.CPUs.First()
			all = all.Union(g.CPUs)
		}
		for _, cpu := range m.CPUs {
			switch label := level.label(cpu); {
			case label == topology.None:
				if all.Contains(cpu.ID) {
					t.Errorf("CPU %d has no %s, but is in one", cpu.ID, name)
				}
			case !level.groups[label].CPUs.Contains(cpu.ID):
				t.Errorf("CPU %d is not in its %s %d", cpu.ID, name, label)
			}
		}
	}
	for i, node := range m.NUMANodes {
		if i > 0 && m.NUMANodes[i-1].ID >= node.ID {
			t.Errorf("node %d is out of order", node.ID)
		}
		if !node.CPUs.IsSubsetOf(m.Online) {
			t.Errorf("node %d: CPUs %s are not all online", node.ID, node.CPUs)
		}
	}
	checkPCIInvariants(t, m)
	for _, cpu := range m.CPUs {
		if cpu.NUMANode == topology.None {
			continue
		}
		if node, ok := m.NUMANode(cpu.NUMANode); !ok || !node.CPUs.Contains(cpu.ID) {
			t.Errorf("CPU %d is not in its node %d", cpu.ID, cpu.NUMANode)
		}
	}
}
