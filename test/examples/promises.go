package examples

import "github.com/topolet/topolet/topology"

// Promise is what an example's comment says of the CPUs of its claims. What is not
// said of them is false of them, but for a count of 0.
type Promise struct {
	// Nodes and Groups are on how many NUMA nodes and in how many L3 groups the CPUs
	// of each claim are; 0 is not said.
	Nodes, Groups int
	// Halves are as large as each other, each on a NUMA node.
	Halves bool
	// Whole are all CPUs of this part of the machine that claims can have.
	Whole Part
	// CoreType is that of all cores; empty is not said.
	CoreType topology.CoreType
	// Isolated are CPUs that the kernel's scheduler leaves alone.
	Isolated bool
	// Idle are the siblings of the CPUs on which the containers run.
	Idle bool
	// SharedPool is theirs as well.
	SharedPool bool
	// LocalMemory is on the CPUs' own NUMA nodes, and there is no other.
	LocalMemory bool
	// Network is a network function on each NUMA node of the CPUs.
	Network bool
	// Disks are devices of the driver nvme.example.com, one on each NUMA node of the
	// CPUs.
	Disks int
	// Root is a PCIe root that the CPUs and the disk have in common.
	Root bool
}

// Part is a part of the machine.
type Part string

// The parts that an example has to itself.
const (
	L3Group  Part = "L3 group"
	NUMANode Part = "NUMA node"
	Socket   Part = "socket"
)

// Promises are those of all examples, by their names.
var Promises = map[string]Promise{
	"cpu-config":        {Nodes: 1, SharedPool: true},
	"efficiency-cores":  {Nodes: 1, CoreType: topology.Efficiency},
	"hugepages":         {Nodes: 1, LocalMemory: true},
	"isolated-cpus":     {Nodes: 1, Isolated: true},
	"l3-share":          {Nodes: 1, Groups: 1},
	"memory":            {Nodes: 1, LocalMemory: true},
	"numa-aligned":      {Nodes: 1},
	"nvme-node":         {Nodes: 1, Disks: 1},
	"nvme-root":         {Nodes: 1, Disks: 1, Root: true},
	"one-cpu":           {Nodes: 1},
	"performance-cores": {Nodes: 1, CoreType: topology.Performance},
	"plain-pod":         {},
	"shared-claim":      {Nodes: 1},
	"two-claims":        {Nodes: 1},
	"two-nodes":         {Nodes: 2, Halves: true, Network: true},
	"two-nodes-nvme":    {Nodes: 2, Halves: true, Disks: 2},
	"whole-cores":       {Nodes: 1, Idle: true, LocalMemory: true},
	"whole-l3":          {Nodes: 1, Groups: 1, Whole: L3Group},
	"whole-node":        {Nodes: 1, Whole: NUMANode},
	"whole-socket":      {Whole: Socket},
}
