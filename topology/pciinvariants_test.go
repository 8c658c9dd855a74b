package topology_test

import (
	"testing"

	"github.com/topolet/topolet/topology"
)

// checkPCIInvariants checks what holds of every PCIe tree.
func checkPCIInvariants(t testing.TB, m *topology.Machine) {
	t.Helper()
	functions := m.PCI.Functions
	placed := map[int]bool{}
	for r, root := range m.PCI.Roots {
		if len(root.Children) == 0 {
			t.Errorf("root %s has no children", root)
		}
		for _, child := range root.Children {
			if functions[child].Root != r || functions[child].Parent != topology.None || placed[child] {
				t.Errorf("%s is not root %s's alone", functions[child].Address, root)
			}
			placed[child] = true
		}
	}
	for i, f := range functions {
		if i > 0 && functions[i-1].Address.Compare(f.Address) >= 0 {
			t.Errorf("%s is out of order", f.Address)
		}
		for _, child := range f.Children {
			if functions[child].Parent != i || functions[child].Root != f.Root || placed[child] {
				t.Errorf("%s is not %s's alone", functions[child].Address, f.Address)
			}
			placed[child] = true
		}
		if f.PhysicalFunction != topology.None && functions[f.PhysicalFunction].SRIOV == nil {
			t.Errorf("%s is a virtual function of none", f.Address)
		}
		if f.NUMANode < topology.None {
			t.Errorf("%s: the kernel has no node %d", f.Address, f.NUMANode)
		}
		checkLocality(t, m, f)
	}
	for i, f := range functions {
		if placed[i] != (f.Root != topology.None) {
			t.Errorf("%s has root %d, but that does not lead to it", f.Address, f.Root)
		}
	}
}

func checkLocality(t testing.TB, m *topology.Machine, f topology.PCIFunction) {
	t.Helper()
	near := f.Locality
	if _, ok := m.NUMANode(near.NUMANode); near.NUMANode != topology.None && !ok {
		t.Errorf("%s is near node %d, which does not exist", f.Address, near.NUMANode)
	}
	if !near.CPUs.IsSubsetOf(m.Online) {
		t.Errorf("%s is near CPUs %s, which are not all online", f.Address, near.CPUs)
	}
	if !near.Known() && (near.NUMANode != topology.None || !near.CPUs.IsEmpty()) {
		t.Errorf("%s is near something, but from nothing: %+v", f.Address, near)
	}
	place := topology.AtPCI(f.Address)
	if d := m.Distance(place, place); d.Proximity != topology.SameSwitch {
		t.Errorf("%s is not where it is: %s", f.Address, d.Proximity)
	}
}
