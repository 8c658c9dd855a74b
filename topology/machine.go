// Package topology is the picture of one machine: its sockets, dies, clusters,
// L2 and L3 groups, cores and CPUs, and beside them the NUMA nodes and the PCIe
// tree.
//
// [Discover] reads the picture from a file-system root that holds the kernel's
// sys and proc trees. The root is the real host, an unpacked snapshot or a test
// fixture; discovery cannot tell them apart. A [Machine] never changes once it
// is built: a CPU that goes offline means a new discovery and a new Machine.
//
// As in hwloc, the CPU side is a tree of groups, and memory and devices hang
// beside it: NUMA nodes are attached by the CPUs they name, so a node without CPUs
// is as normal as a CPU without a node; PCI functions are attached by what they
// are near to ([Locality]), which may be nothing in particular.
// [Machine.Distance] tells how far any two of them are apart.
package topology

import (
	"cmp"
	"slices"
)

// None says that the machine does not tell: a CPU outside any die, a core
// without an id of the kernel's, a CPU that no NUMA node names.
const None = -1

// Machine is an immutable picture of one machine. It is safe for concurrent use.
type Machine struct {
	// Online are the CPUs the kernel schedules on (sys/devices/system/cpu/online).
	// Every other CPU set of the machine, but for Offline, is cut down to these.
	Online CPUSet
	// Offline are the CPUs that are present but not online.
	Offline CPUSet
	// Isolated are the CPUs that the boot parameter isolcpus took out of the
	// scheduler's load balancing (sys/devices/system/cpu/isolated).
	Isolated CPUSet
	// NohzFull are the CPUs without a periodic tick (sys/devices/system/cpu/nohz_full).
	NohzFull CPUSet

	// CPUs are the online CPUs in ascending order of their ids.
	CPUs []CPU

	// The levels of the CPU tree, each a list of disjoint groups ordered by
	// their lowest CPU. A CPU refers to its group by the index in the list, so
	// an index is unique over the whole machine. A level that the machine does
	// not tell has no groups.
	Sockets  []Group
	Dies     []Group
	Clusters []Group
	L3Groups []Group
	L2Groups []Group
	Cores    []Group

	// NUMANodes are the kernel's nodes in ascending order of their ids, also
	// those without CPUs or without memory. Ids may have holes.
	NUMANodes []NUMANode

	// PCI is the PCIe tree, empty where the machine has no PCI.
	PCI PCI
}

// CPU is one online logical CPU. The fields Socket to Core are indices into the
// lists of [Machine], or None.
type CPU struct {
	// ID is the kernel's CPU number.
	ID int

	Socket  int
	Die     int
	Cluster int
	L3      int
	L2      int
	Core    int

	// NUMANode is the kernel's number of the node that names this CPU, or None.
	// It is an id, not an index: see [Machine.NUMANode].
	NUMANode int

	CoreType CoreType
}

// Group is a set of CPUs that share something: a socket, a die, a cache, a core.
type Group struct {
	// KernelID is the number in the kernel's own file (physical_package_id,
	// die_id, cluster_id, core_id, cache id), or None. It may repeat, be huge,
	// or have holes: use it to speak to people, never to tell groups apart.
	KernelID int
	CPUs     CPUSet
	// CacheBytes is the size of the cache of an L2 or L3 group (cache/indexN/size);
	// 0 where the machine does not tell.
	CacheBytes uint64
}

// CoreType is the kind of a core on a machine with more than one kind.
type CoreType string

// The kinds of cores. A machine with one kind has standard cores only; of three
// or more kinds, those between the fastest and the slowest are standard.
const (
	Standard    CoreType = "standard"
	Performance CoreType = "performance"
	Efficiency  CoreType = "efficiency"
)

// NUMANode is one memory node of the kernel.
type NUMANode struct {
	// ID is the kernel's node number.
	ID   int
	CPUs CPUSet
	// MemoryBytes is MemTotal of the node's meminfo; nil where there is none.
	MemoryBytes *uint64
	// Distances are the numbers of the node's distance file, unchanged: one for
	// each node in ascending order of ids. Nil where there is none.
	Distances []int
	// Hugepages are the page sizes that the node offers, ascending.
	Hugepages []Hugepages
	// NearestCPUNodes are, for a node without CPUs, the kernel's numbers of the
	// nodes with CPUs at the least distance from it; several that are equally near
	// are all there. Nil for a node with CPUs, and where distances are not told.
	NearestCPUNodes []int
}

// MemoryOnly reports whether the node is memory without a CPU: that of a
// high-bandwidth stack, of a CXL device, of a GPU. A node with neither is not.
func (n NUMANode) MemoryOnly() bool {
	return n.CPUs.IsEmpty() && n.MemoryBytes != nil && *n.MemoryBytes > 0
}

// Hugepages is one size of huge pages on one NUMA node
// (sys/devices/system/node/nodeN/hugepages).
type Hugepages struct {
	SizeBytes uint64
	// Total is the number of pages in the pool (nr_hugepages).
	Total uint64
}

// CPU returns the online CPU with this id.
func (m *Machine) CPU(id int) (CPU, bool) {
	lo, hi := 0, len(m.CPUs)
	for lo < hi {
		mid := (lo + hi) / 2
		if m.CPUs[mid].ID < id {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(m.CPUs) && m.CPUs[lo].ID == id {
		return m.CPUs[lo], true
	}
	return CPU{}, false
}

// NUMANode returns the node with this kernel number.
func (m *Machine) NUMANode(id int) (NUMANode, bool) {
	if i := m.nodeIndex(id); i != None {
		return m.NUMANodes[i], true
	}
	return NUMANode{}, false
}

// nodeIndex returns the place of the node in the list, or None.
func (m *Machine) nodeIndex(id int) int {
	i, ok := slices.BinarySearchFunc(m.NUMANodes, id, func(n NUMANode, id int) int { return cmp.Compare(n.ID, id) })
	if !ok {
		return None
	}
	return i
}
