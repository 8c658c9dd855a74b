package allocator

import (
	"fmt"
	"slices"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// Policy is what of a machine is given away, and how it is divided.
type Policy struct {
	// ReservedCPUs always stay in the shared pool. At least one of them must be
	// online and not isolated.
	ReservedCPUs topology.CPUSet
	// ReservedMemory is kept back on each NUMA node.
	ReservedMemory Reserve
	// Levels are those beside the NUMA nodes.
	Levels []Level
	// KernelKeeps says that while a container has CPUs to itself the kernel keeps all
	// others off them, whatever these have been told.
	KernelKeeps bool
}

// Inventory is what a machine has to give. It never changes and is safe for
// concurrent use: a machine that changes gets another one.
type Inventory struct {
	Machine *topology.Machine
	// Domains is what claims for CPUs are served from, in the order of [Domains].
	Domains []*Domain
	// Memory is what claims for memory are served from.
	Memory []*MemoryDomain
	// Devices is everything else, in the order of [device.Discover].
	Devices []device.Device

	byName    map[string]*Domain
	shareable topology.CPUSet // what the pool is when nothing is granted
	reserved  topology.CPUSet // those of the configured ones that exist
}

// NewInventory returns what a machine has to give under a policy.
func NewInventory(m *topology.Machine, policy Policy) (*Inventory, error) {
	shareable := m.Online.Difference(m.Isolated)
	reserved := policy.ReservedCPUs.Intersection(shareable)
	if reserved.IsEmpty() {
		return nil, fmt.Errorf("no reserved CPU is online and free of isolcpus: reserve at least one of %s, "+
			"so that containers without a claim have a CPU to run on", shareable)
	}
	inv := &Inventory{
		Machine:   m,
		Domains:   Domains(m, policy.ReservedCPUs, policy.Levels...),
		Memory:    MemoryDomains(m, policy.ReservedMemory),
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

// MemoryDomain returns the memory domain of that name.
func (inv *Inventory) MemoryDomain(name string) (*MemoryDomain, bool) {
	i := slices.IndexFunc(inv.Memory, func(d *MemoryDomain) bool { return d.Name == name })
	if i < 0 {
		return nil, false
	}
	return inv.Memory[i], true
}

// near are the CPUs nearest to the memory and the devices that the requests are for.
func (inv *Inventory) near(requests []Request) topology.CPUSet {
	var cpus topology.CPUSet
	for _, r := range requests {
		var nodes []int
		if d, ok := inv.MemoryDomain(r.Domain); ok {
			nodes = d.CPUNodes
		} else if d, ok := inv.Device(r.Domain); ok {
			nodes = []int{d.NUMANode}
		}
		if nodes == nil {
			continue
		}
		for _, n := range inv.Machine.NUMANodes {
			if slices.Contains(nodes, n.ID) {
				cpus = cpus.Union(n.CPUs)
			}
		}
	}
	return cpus
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
