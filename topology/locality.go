package topology

// Locality is what a PCI function is near to: the best that follows from what
// the kernel says about the function and about what it hangs on. The zero value
// of CPUs together with a NUMANode of None is a function of which nothing
// follows; never take that for node 0.
type Locality struct {
	// NUMANode is the kernel's number of the node, or None. On a machine with
	// NUMA nodes it is always one of [Machine.NUMANodes].
	NUMANode int
	// CPUs are the near CPUs: those of the node, or of its nearest nodes with
	// CPUs where it has none; or, without a node, those that the kernel calls
	// local, such as a socket's. All CPUs of the machine being local says nothing
	// and is not repeated here, unless one node has them all.
	CPUs CPUSet
	// From says what the locality follows from.
	From LocalitySource
}

// LocalitySource says what a [Locality] follows from.
type LocalitySource string

// The sources in the order in which they are asked.
const (
	// LocalityUnknown: from nothing.
	LocalityUnknown LocalitySource = ""
	// LocalityFromNode: from the function's numa_node.
	LocalityFromNode LocalitySource = "numa_node"
	// LocalityFromCPUs: from the function's local CPUs.
	LocalityFromCPUs LocalitySource = "local_cpus"
	// LocalityFromParent: from the physical function, or a bridge above.
	LocalityFromParent LocalitySource = "parent"
	// LocalityFromRoot: from the CPUs near the root's bus.
	LocalityFromRoot LocalitySource = "root"
)

// Known reports whether anything is known.
func (l Locality) Known() bool { return l.From != LocalityUnknown }

// locate derives the locality of every function. The NUMA nodes are settled by
// then.
func (m *Machine) locate() {
	done := make([]bool, len(m.PCI.Functions))
	for i := range m.PCI.Functions {
		m.locateFunction(i, done)
	}
}

// locateFunction derives that of the ancestors first, where it is needed. There
// are no circles to get lost in: the way leads from a virtual function to its
// physical one at most once, and else up.
func (m *Machine) locateFunction(i int, done []bool) Locality {
	f := &m.PCI.Functions[i]
	if done[i] {
		return f.Locality
	}
	done[i] = true
	f.Locality = m.ownLocality(*f)
	for _, above := range []int{f.PhysicalFunction, f.Parent} {
		if f.Locality.Known() || above == None {
			continue
		}
		if f.Locality = m.locateFunction(above, done); f.Locality.Known() && f.Locality.From != LocalityFromRoot {
			f.Locality.From = LocalityFromParent
		}
	}
	if root, ok := m.PCI.RootOf(*f); ok && !f.Locality.Known() {
		f.Locality = m.localityOf(root.LocalCPUs, LocalityFromRoot)
	}
	return f.Locality
}

// ownLocality is what the function's own files tell.
func (m *Machine) ownLocality(f PCIFunction) Locality {
	if node, ok := m.NUMANode(f.NUMANode); ok {
		cpus := node.CPUs
		for _, id := range node.NearestCPUNodes {
			near, _ := m.NUMANode(id)
			cpus = cpus.Union(near.CPUs)
		}
		return Locality{NUMANode: node.ID, CPUs: cpus, From: LocalityFromNode}
	}
	return m.localityOf(f.LocalCPUs, LocalityFromCPUs)
}

// localityOf is what follows from local CPUs.
func (m *Machine) localityOf(cpus *CPUSet, from LocalitySource) Locality {
	unknown := Locality{NUMANode: None}
	if cpus == nil || cpus.IsEmpty() {
		return unknown
	}
	found := Locality{NUMANode: None, CPUs: *cpus, From: from}
	holding := 0
	for _, node := range m.NUMANodes {
		if cpus.IsSubsetOf(node.CPUs) {
			found.NUMANode = node.ID
			holding++
		}
	}
	switch {
	case holding == 1:
		return found
	case cpus.Equals(m.Online):
		return unknown
	}
	found.NUMANode = None // nodes that overlap
	return found
}
