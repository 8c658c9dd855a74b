package topology

import "cmp"

// Proximity is how near two things of a machine are, nearest first: values can
// be compared with < and >.
type Proximity int

// The steps of proximity. Each says what two things share, and that they share
// nothing nearer.
const (
	// SameSwitch: two PCI functions below one bridge, be it a switch or a root
	// port. What they send each other need not pass the root.
	SameSwitch Proximity = iota + 1
	// SameRoot: two PCI functions below one PCIe root.
	SameRoot
	// SameNUMANode: one NUMA node has both.
	SameNUMANode
	// SameSocket: one socket has both.
	SameSocket
	// OtherSocket: they are on different sockets, or one of them is on several.
	OtherSocket
	// UnknownProximity: the machine does not tell.
	UnknownProximity
)

var proximityNames = map[Proximity]string{
	SameSwitch: "same switch", SameRoot: "same root", SameNUMANode: "same NUMA node",
	SameSocket: "same socket", OtherSocket: "other socket",
}

// String names the step.
func (p Proximity) String() string {
	if name, ok := proximityNames[p]; ok {
		return name
	}
	return "unknown"
}

// Distance is how far one thing is from another.
type Distance struct {
	Proximity Proximity
	// NUMA is the kernel's distance between the NUMA nodes, 10 within a node and
	// more beyond; None where the nodes or their distance are not known. Firmware
	// states it, in units of nothing: it serves to compare.
	NUMA int
}

// Compare orders distances: by what is shared, then by the kernel's numbers. A
// distance without such a number comes after those that have one.
func (d Distance) Compare(o Distance) int {
	return cmp.Or(cmp.Compare(d.Proximity, o.Proximity), cmp.Compare(uint(d.NUMA), uint(o.NUMA)))
}

// Place is one end of a distance. Make it with [AtCPUs], [AtNUMANode] or [AtPCI].
type Place struct {
	kind placeKind
	cpus CPUSet
	node int
	pci  PCIAddress
}

type placeKind int

const (
	cpusPlace placeKind = iota
	nodePlace
	pciPlace
)

// AtCPUs is where the CPUs are. The distance of several is that of the farthest.
func AtCPUs(cpus CPUSet) Place { return Place{kind: cpusPlace, cpus: cpus} }

// AtNUMANode is the node with this kernel number: its memory, and its CPUs if it
// has any.
func AtNUMANode(id int) Place { return Place{kind: nodePlace, node: id} }

// AtPCI is the PCI function with this address.
func AtPCI(a PCIAddress) Place { return Place{kind: pciPlace, pci: a} }

// Distance returns how far the second place is from the first. Proximity is the
// same in both directions; the kernel's numbers need not be.
func (m *Machine) Distance(from, to Place) Distance {
	a, b := m.site(from), m.site(to)
	d := Distance{Proximity: m.sharedPCI(a, b), NUMA: m.farthest(a.nodes, b.nodes)}
	if d.Proximity != UnknownProximity {
		return d
	}
	switch {
	case len(a.nodes) == 1 && len(b.nodes) == 1 && a.nodes[0] == b.nodes[0]:
		d.Proximity = SameNUMANode
	case len(a.sockets) == 0 || len(b.sockets) == 0:
	case len(a.sockets) == 1 && len(b.sockets) == 1 && a.sockets[0] == b.sockets[0]:
		d.Proximity = SameSocket
	default:
		d.Proximity = OtherSocket
	}
	return d
}

// NUMADistance returns the kernel's distance from one node to another, both by
// the kernel's numbers (nodeN/distance).
func (m *Machine) NUMADistance(from, to int) (int, bool) {
	return m.nodeDistance(m.nodeIndex(from), m.nodeIndex(to))
}

// nodeDistance is NUMADistance for indices.
func (m *Machine) nodeDistance(from, to int) (int, bool) {
	if from == None || to == None || len(m.NUMANodes[from].Distances) != len(m.NUMANodes) {
		return 0, false
	}
	return m.NUMANodes[from].Distances[to], true
}

// site is a place in terms of nodes and sockets; no nodes, or no sockets, is not
// known.
type site struct {
	nodes   []int // the kernel's numbers
	sockets []int // indices in Machine.Sockets
	pci     int   // index in PCI.Functions, or None
}

func (m *Machine) site(p Place) site {
	switch p.kind {
	case nodePlace:
		node, ok := m.NUMANode(p.node)
		if !ok {
			return site{pci: None}
		}
		s := m.siteOf(node.CPUs)
		for _, id := range node.NearestCPUNodes {
			if near, ok := m.NUMANode(id); ok && node.CPUs.IsEmpty() {
				s.sockets = merge(s.sockets, m.siteOf(near.CPUs).sockets)
			}
		}
		if node.CPUs.IsEmpty() && len(s.sockets) > 1 {
			s.sockets = nil // as near to the one socket as to the other
		}
		s.nodes = []int{node.ID}
		return s
	case pciPlace:
		i, ok := m.PCI.index(p.pci)
		if !ok {
			return site{pci: None}
		}
		near := m.PCI.Functions[i].Locality
		s := m.siteOf(near.CPUs)
		if near.NUMANode != None {
			s = m.site(AtNUMANode(near.NUMANode))
		}
		s.pci = i
		return s
	}
	return m.siteOf(p.cpus)
}

// siteOf finds the nodes and the sockets of CPUs. One CPU without leaves all
// without.
func (m *Machine) siteOf(cpus CPUSet) site {
	s := site{pci: None}
	nodesKnown, socketsKnown := true, true
	for id := range cpus.All() {
		cpu, ok := m.CPU(id)
		if !ok {
			return site{pci: None}
		}
		nodesKnown = nodesKnown && cpu.NUMANode != None
		socketsKnown = socketsKnown && cpu.Socket != None
		s.nodes, s.sockets = merge(s.nodes, []int{cpu.NUMANode}), merge(s.sockets, []int{cpu.Socket})
	}
	if !nodesKnown {
		s.nodes = nil
	}
	if !socketsKnown {
		s.sockets = nil
	}
	return s
}

// merge adds the values that are not there yet. The lists are short.
func merge(list, values []int) []int {
next:
	for _, v := range values {
		for _, have := range list {
			if have == v {
				continue next
			}
		}
		list = append(list, v)
	}
	return list
}

// farthest returns the greatest distance from one of the nodes to one of the
// others, None where one is not known.
func (m *Machine) farthest(from, to []int) int {
	most := None
	for _, a := range from {
		for _, b := range to {
			d, ok := m.NUMADistance(a, b)
			if !ok {
				return None
			}
			most = max(most, d)
		}
	}
	return most
}

// sharedPCI tells whether two functions share a bridge, or at least the root.
func (m *Machine) sharedPCI(a, b site) Proximity {
	if a.pci == None || b.pci == None {
		return UnknownProximity
	}
	if a.pci == b.pci {
		return SameSwitch
	}
	functions := m.PCI.Functions
	above := map[int]bool{}
	for f := a.pci; f != None; f = functions[f].Parent {
		above[f] = true
	}
	for f := b.pci; f != None; f = functions[f].Parent {
		if above[f] {
			return SameSwitch
		}
	}
	if functions[a.pci].Root != None && functions[a.pci].Root == functions[b.pci].Root {
		return SameRoot
	}
	return UnknownProximity
}
