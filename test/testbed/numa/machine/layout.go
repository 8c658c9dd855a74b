// Package machine describes the virtual machines of the testbed and computes
// how QEMU is told to be one.
//
// A Layout is data: sockets, groups of CPUs with a common L3 cache, NUMA nodes
// and the PCI devices at each. It says what the guest's kernel is to find in
// sysfs; Args turns it into QEMU's arguments. A further machine is a further
// value in Layouts.
package machine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Layout is the shape of a machine.
type Layout struct {
	Name string
	// Sockets, L3PerSocket, CoresPerL3 and ThreadsPerCore are the same all
	// over the machine.
	Sockets, L3PerSocket, CoresPerL3, ThreadsPerCore int
	Nodes                                            []Node
	// IOMMU says that the machine has one, so that its functions can be given to vfio
	// drivers.
	IOMMU bool
	// Parallel has QEMU run each CPU in a thread of its own. Under load that is twice as
	// fast, but QEMU 10.0 may end at boot, when one CPU uses the memory map that another one
	// changes (iotlb_to_section).
	Parallel bool
	// Isolated are CPUs that the guest's scheduler leaves alone (isolcpus).
	Isolated []int
	// Distances is the table of the distances between the nodes, as in sysfs.
	Distances [][]int
}

// Node is one NUMA node. Its number is its place in Layout.Nodes.
type Node struct {
	// L3 are the groups of CPUs with a common L3 cache that belong to the
	// node, counted over all sockets. A node without is memory only.
	L3     []int
	Memory int // MiB
	// Hugepages are pages of 2 MiB of the memory, set aside when the kernel boots.
	Hugepages int
	Devices   []Device
}

// Kind is what a PCI device is.
type Kind string

// The kinds of PCI devices.
const (
	NVMe    Kind = "nvme"
	Network Kind = "network"
	// SRIOVNetwork is a network card that can have VFs.
	SRIOVNetwork Kind = "sriov-network"
)

// Device is a PCI device, on a root port of its own below its node's PCI root.
type Device struct {
	ID   string
	Kind Kind
	// VFs is how many SR-IOV functions are switched on; not for Network.
	VFs int
}

// DefaultLayout is the layout when none is named.
const DefaultLayout = "four-nodes"

// Layouts are the machines there are.
func Layouts() []Layout {
	return []Layout{
		{
			Name:    DefaultLayout,
			Sockets: 2, L3PerSocket: 3, CoresPerL3: 2, ThreadsPerCore: 2,
			Nodes: []Node{
				{L3: []int{0, 1}, Memory: 768, Hugepages: 32, Devices: []Device{{ID: "nvme0", Kind: NVMe, VFs: 2}, {ID: "net0", Kind: Network}, {ID: "sriov0", Kind: SRIOVNetwork, VFs: 2}}},
				{L3: []int{2}, Memory: 512, Devices: []Device{{ID: "nvme1", Kind: NVMe}, {ID: "net1", Kind: Network}}},
				{L3: []int{3, 4}, Memory: 768, Hugepages: 16, Devices: []Device{{ID: "nvme2", Kind: NVMe}, {ID: "net2", Kind: Network}}},
				{L3: []int{5}, Memory: 512, Devices: []Device{{ID: "nvme3", Kind: NVMe}, {ID: "net3", Kind: Network}}},
				{Memory: 512},
			},
			IOMMU:    true,
			Isolated: []int{18, 19},
			Distances: [][]int{
				{10, 12, 21, 21, 17},
				{12, 10, 21, 21, 19},
				{21, 21, 10, 12, 28},
				{21, 21, 12, 10, 28},
				{17, 19, 28, 28, 10},
			},
		},
		{
			Name:    "eight-nodes",
			Sockets: 2, L3PerSocket: 4, CoresPerL3: 2, ThreadsPerCore: 1,
			Nodes: []Node{
				{L3: []int{0}, Memory: 384, Devices: []Device{{ID: "nvme0", Kind: NVMe}}},
				{L3: []int{1}, Memory: 384, Devices: []Device{{ID: "net1", Kind: Network}}},
				{L3: []int{2}, Memory: 384},
				{L3: []int{3}, Memory: 384},
				{L3: []int{4}, Memory: 384, Devices: []Device{{ID: "nvme4", Kind: NVMe}}},
				{L3: []int{5}, Memory: 384, Devices: []Device{{ID: "net5", Kind: Network}}},
				{L3: []int{6}, Memory: 384},
				{L3: []int{7}, Memory: 384},
			},
			Distances: [][]int{
				{10, 12, 12, 12, 32, 32, 32, 32},
				{12, 10, 12, 12, 32, 32, 32, 32},
				{12, 12, 10, 12, 32, 32, 32, 32},
				{12, 12, 12, 10, 32, 32, 32, 32},
				{32, 32, 32, 32, 10, 12, 12, 12},
				{32, 32, 32, 32, 12, 10, 12, 12},
				{32, 32, 32, 32, 12, 12, 10, 12},
				{32, 32, 32, 32, 12, 12, 12, 10},
			},
		},
		{
			// For loads: memory for many containers, and no more cores than a host of two
			// CPUs emulates at once without them waiting for each other.
			Name:    "many-containers",
			Sockets: 2, L3PerSocket: 2, CoresPerL3: 2, ThreadsPerCore: 1,
			Nodes: []Node{
				{L3: []int{0, 1}, Memory: 3072},
				{L3: []int{2, 3}, Memory: 3072},
			},
			Parallel:  true,
			Distances: [][]int{{10, 21}, {21, 10}},
		},
	}
}

// Find returns the layout of that name.
func Find(name string) (Layout, error) {
	var names []string
	for _, l := range Layouts() {
		if l.Name == name {
			return l, nil
		}
		names = append(names, l.Name)
	}
	return Layout{}, fmt.Errorf("there is no layout %q; there are %s", name, strings.Join(names, " and "))
}

func (l Layout) cpusPerL3() int { return l.CoresPerL3 * l.ThreadsPerCore }

// CPUCount is the number of CPUs of the machine.
func (l Layout) CPUCount() int { return l.Sockets * l.L3PerSocket * l.cpusPerL3() }

// CPUsOfL3 are the CPUs with the L3 cache of that number. The kernel counts
// CPUs through the threads of a core, the cores of an L3 cache and the caches
// of a socket.
func (l Layout) CPUsOfL3(group int) []int {
	var cpus []int
	for i := range l.cpusPerL3() {
		cpus = append(cpus, group*l.cpusPerL3()+i)
	}
	return cpus
}

// Siblings are the CPUs that share a core with cpu, itself included.
func (l Layout) Siblings(cpu int) []int {
	first := cpu - cpu%l.ThreadsPerCore
	var cpus []int
	for i := range l.ThreadsPerCore {
		cpus = append(cpus, first+i)
	}
	return cpus
}

// CPUs are the CPUs of a node.
func (l Layout) CPUs(node int) []int {
	var cpus []int
	for _, group := range l.Nodes[node].L3 {
		cpus = append(cpus, l.CPUsOfL3(group)...)
	}
	return cpus
}

// Memory is the memory of the machine in MiB.
func (l Layout) Memory() int {
	sum := 0
	for _, n := range l.Nodes {
		sum += n.Memory
	}
	return sum
}

// maxMemory is what a machine may take of its host, in MiB.
const maxMemory = 8192

// maxNodes is how many PCI roots get a range of bus numbers each.
const maxNodes = 14

// Validate reports everything that is wrong with the layout.
func (l Layout) Validate() error {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("layout %s: %w", l.Name, fmt.Errorf(format, args...)))
	}
	if min(l.Sockets, l.L3PerSocket, l.CoresPerL3, l.ThreadsPerCore) < 1 {
		fail("give at least one socket, L3 group, core and thread")
	}
	if len(l.Nodes) == 0 || len(l.Nodes) > maxNodes {
		fail("it has %d nodes; there can be 1 to %d", len(l.Nodes), maxNodes)
	}
	if l.Memory() > maxMemory {
		fail("it has %d MiB of memory; at most %d are allowed", l.Memory(), maxMemory)
	}
	owner := map[int]int{}
	ids := map[string]bool{}
	for n, node := range l.Nodes {
		if node.Memory < 1 {
			fail("node %d has no memory, which QEMU refuses", n)
		}
		if node.Hugepages < 0 || 4*node.Hugepages > node.Memory {
			fail("node %d has %d huge pages of 2 MiB; they may be half of its %d MiB", n, node.Hugepages, node.Memory)
		}
		for _, group := range node.L3 {
			if group < 0 || group >= l.Sockets*l.L3PerSocket {
				fail("node %d has the L3 group %d, which does not exist", n, group)
			}
			if other, taken := owner[group]; taken {
				fail("the L3 group %d belongs to the nodes %d and %d", group, other, n)
			}
			owner[group] = n
		}
		if len(node.Devices) > portsPerNode {
			fail("node %d has %d devices; there is room for %d", n, len(node.Devices), portsPerNode)
		}
		for _, d := range node.Devices {
			if ids[d.ID] {
				fail("two devices are called %s", d.ID)
			}
			ids[d.ID] = true
			if !slices.Contains([]Kind{NVMe, Network, SRIOVNetwork}, d.Kind) {
				fail("%s is a %q; there are %s, %s and %s", d.ID, d.Kind, NVMe, Network, SRIOVNetwork)
			}
			if d.VFs > 0 && d.Kind == Network {
				fail("%s cannot have VFs: only %s and %s can", d.ID, NVMe, SRIOVNetwork)
			}
		}
	}
	for group := range l.Sockets * l.L3PerSocket {
		if _, ok := owner[group]; !ok {
			fail("the L3 group %d belongs to no node", group)
		}
	}
	for _, cpu := range l.Isolated {
		if cpu < 1 || cpu >= l.CPUCount() {
			fail("CPU %d cannot be isolated; CPUs 1 to %d can", cpu, l.CPUCount()-1)
		}
	}
	errs = append(errs, l.validateDistances())
	return errors.Join(errs...)
}

func (l Layout) validateDistances() error {
	square := len(l.Distances) == len(l.Nodes) && !slices.ContainsFunc(l.Distances, func(row []int) bool { return len(row) != len(l.Nodes) })
	if !square {
		return fmt.Errorf("layout %s: the table of distances needs a row and a column per node", l.Name)
	}
	for a, row := range l.Distances {
		for b, d := range row {
			if (a == b) != (d == 10) || d < 10 || d > 254 || d != l.Distances[b][a] {
				return fmt.Errorf("layout %s: the distance from node %d to node %d is %d; it is 10 to itself, 11 to 254 to others and the same both ways", l.Name, a, b, d)
			}
		}
	}
	return nil
}
