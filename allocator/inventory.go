package allocator

import (
	"fmt"

	"github.com/topolet/topolet/topology"
)

// Inventory is what a machine has to give. It never changes and is safe for
// concurrent use: a machine that changes gets another one.
type Inventory struct {
	Machine *topology.Machine
	// Domains is what claims are served from, in the order of [Domains].
	Domains []*Domain

	byName    map[string]*Domain
	shareable topology.CPUSet // what the pool is when nothing is granted
	reserved  topology.CPUSet // those of the configured ones that exist
}

func newInventory(m *topology.Machine, reserved topology.CPUSet, levels []Level) (*Inventory, error) {
	shareable := m.Online.Difference(m.Isolated)
	configured := reserved
	reserved = reserved.Intersection(shareable)
	if reserved.IsEmpty() {
		return nil, fmt.Errorf("no reserved CPU is online and free of isolcpus: reserve at least one of %s, "+
			"so that containers without a claim have a CPU to run on", shareable)
	}
	inv := &Inventory{
		Machine:   m,
		Domains:   Domains(m, configured, levels...),
		byName:    map[string]*Domain{},
		shareable: shareable,
		reserved:  reserved,
	}
	for _, d := range inv.Domains {
		inv.byName[d.Name] = d
	}
	return inv, nil
}

// Domain returns the domain of that name.
func (inv *Inventory) Domain(name string) (*Domain, bool) {
	d, ok := inv.byName[name]
	return d, ok
}

// siblings are the other CPUs of the cores that the CPUs are on. There are some
// after threads were switched on: a claim from before got what its cores were then.
func (inv *Inventory) siblings(cpus topology.CPUSet) topology.CPUSet {
	var all topology.CPUSet
	for _, core := range inv.Machine.Cores {
		if core.CPUs.Intersects(cpus) && !core.CPUs.IsSubsetOf(cpus) {
			all = all.Union(core.CPUs)
		}
	}
	if all.IsEmpty() {
		return all // nearly always, and on the way of every container
	}
	return all.Difference(cpus).Difference(inv.reserved)
}

// online are those of the CPUs that can run something at present: nearly always
// all of them.
func (inv *Inventory) online(cpus topology.CPUSet) topology.CPUSet {
	if cpus.IsSubsetOf(inv.Machine.Online) {
		return cpus
	}
	return cpus.Intersection(inv.Machine.Online)
}

// offline are those of the CPUs that cannot run anything at present.
func (inv *Inventory) offline(cpus topology.CPUSet) topology.CPUSet {
	return cpus.Difference(inv.Machine.Online)
}
