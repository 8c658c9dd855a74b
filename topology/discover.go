package topology

import (
	"errors"
	"fmt"
	"io/fs"
)

// ErrNoCPUs is the one reason for which [Discover] fails.
var ErrNoCPUs = errors.New("no online CPU found")

// Discover reads the machine from a file-system root, the directory that holds
// the kernel's sys tree: the real one from [OpenRoot], a snapshot, or a test's.
//
// The data passes through in one direction: [sysfs] turns files into numbers and
// sets, and takes whatever is missing, empty, oversized or garbled for absent;
// the readers, one for each subtree, fill in the [Machine]; nothing is guessed
// to fill a gap. So the only error is a tree without any CPU.
//
//	cpu.go       sys/devices/system/cpu             online, offline, isolated
//	siblings.go  sys/devices/system/cpu/cpuN/topology   sockets to cores
//	cache.go     sys/devices/system/cpu/cpuN/cache      L2 and L3 groups
//	coretype.go  sys/devices/cpu_core …, cpuN/cpu_capacity
//	node.go      sys/devices/system/node            NUMA nodes
//	pcidiscover.go  sys/bus/pci/devices             the PCIe tree
//
// Last, locality.go derives what each PCI function is near to; nothing of that
// is read.
func Discover(root fs.FS) (*Machine, error) {
	s := newSysfs(root)
	m := &Machine{}
	if err := s.readCPUs(m); err != nil {
		return nil, fmt.Errorf("%w in %s (%w): the root must be the directory that holds the machine's sys",
			ErrNoCPUs, cpuDir, err)
	}
	s.readSiblings(m)
	s.readCaches(m)
	s.readCoreTypes(m)
	s.readNodes(m)
	s.readPCI(m)
	m.locate()
	return m, nil
}
