package topology_test

import (
	"slices"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestDistances(t *testing.T) {
	m := topologytest.New(twoSockets())
	cpus := func(list string) topology.Place { return topology.AtCPUs(parse(t, list)) }
	pci := func(text string) topology.Place { return topology.AtPCI(at(t, text)) }
	node := topology.AtNUMANode
	for name, tc := range map[string]struct {
		from, to  topology.Place
		proximity topology.Proximity
		numa      int
	}{
		"a function and itself":                             {pci("0000:01:00.0"), pci("0000:01:00.0"), topology.SameSwitch, 10},
		"two functions of a card":                           {pci("0000:02:00.0"), pci("0000:02:00.1"), topology.SameSwitch, 10},
		"a virtual function and its physical one":           {pci("0000:21:00.0"), pci("0000:21:10.1"), topology.SameSwitch, 10},
		"two ports of a switch":                             {pci("0000:43:00.0"), pci("0000:44:00.0"), topology.SameSwitch, 10},
		"two root ports of a root":                          {pci("0000:43:00.0"), pci("0000:45:00.0"), topology.SameRoot, 10},
		"functions of two nodes of a socket":                {pci("0000:01:00.0"), pci("0000:21:00.0"), topology.SameSocket, 12},
		"functions of two sockets":                          {pci("0000:01:00.0"), pci("0000:45:00.0"), topology.OtherSocket, 21},
		"a function that only its bus places":               {pci("0000:61:00.0"), node(3), topology.SameNUMANode, 10},
		"a function that nothing places":                    {pci("10000:01:00.0"), node(0), topology.UnknownProximity, topology.None},
		"a function that does not exist":                    {pci("0000:99:00.0"), node(0), topology.UnknownProximity, topology.None},
		"a function that nothing places, and its neighbour": {pci("10000:01:00.0"), pci("10000:00:00.0"), topology.SameSwitch, topology.None},
		"CPUs at their node":                                {cpus("0-1"), node(0), topology.SameNUMANode, 10},
		"CPUs at their function":                            {cpus("4"), pci("0000:43:00.0"), topology.SameNUMANode, 10},
		"CPUs of two nodes are as far as the farther":       {cpus("0-2"), node(0), topology.SameSocket, 12},
		"CPUs of two sockets":                               {cpus("0,7"), node(0), topology.OtherSocket, 21},
		"no CPUs":                                           {cpus(""), node(0), topology.UnknownProximity, topology.None},
		"CPUs that do not exist":                            {cpus("0,99"), node(0), topology.UnknownProximity, topology.None},
		"two nodes of a socket":                             {node(2), node(3), topology.SameSocket, 12},
		"a node of memory only and itself":                  {node(4), node(4), topology.SameNUMANode, 10},
		"a node of memory only between two sockets":         {node(4), node(0), topology.UnknownProximity, 17},
		"a node that does not exist":                        {node(9), node(0), topology.UnknownProximity, topology.None},
	} {
		t.Run(name, func(t *testing.T) {
			want := topology.Distance{Proximity: tc.proximity, NUMA: tc.numa}
			if got := m.Distance(tc.from, tc.to); got != want {
				t.Errorf("got %s, %d; want %s, %d", got.Proximity, got.NUMA, want.Proximity, want.NUMA)
			}
			if got := m.Distance(tc.to, tc.from); got != want {
				t.Errorf("the other way: got %s, %d; want %s, %d", got.Proximity, got.NUMA, want.Proximity, want.NUMA)
			}
		})
	}
}

func TestDistancesAreOrdered(t *testing.T) {
	inOrder := []topology.Distance{
		{Proximity: topology.SameSwitch, NUMA: 10}, {Proximity: topology.SameSwitch, NUMA: topology.None},
		{Proximity: topology.SameRoot, NUMA: 10}, {Proximity: topology.SameNUMANode, NUMA: 10},
		{Proximity: topology.SameSocket, NUMA: 12}, {Proximity: topology.OtherSocket, NUMA: 21},
		{Proximity: topology.OtherSocket, NUMA: 32}, {Proximity: topology.UnknownProximity, NUMA: 10},
	}
	got := slices.Clone(inOrder)
	slices.Reverse(got)
	slices.SortFunc(got, topology.Distance.Compare)
	if !slices.Equal(got, inOrder) {
		t.Errorf("got %v", got)
	}
}

func TestMemoryOnlyNodesBelongToTheNearestNodesWithCPUs(t *testing.T) {
	for name, tc := range map[string]struct {
		distance   string
		memory     string
		memoryOnly bool
		nearest    []int
	}{
		"one node is nearest":          {"21 17 10\n", "Node 4 MemTotal: 1024 kB\n", true, []int{1}},
		"two are as near":              {"17 17 10\n", "Node 4 MemTotal: 1024 kB\n", true, []int{0, 1}},
		"distances are not told":       {"(null)\n", "Node 4 MemTotal: 1024 kB\n", true, nil},
		"distances to some nodes only": {"17 10\n", "Node 4 MemTotal: 1024 kB\n", true, nil},
		"a node without memory":        {"17 21 10\n", "Node 4 MemTotal: 0 kB\n", false, []int{0}},
		"memory is not told":           {"17 21 10\n", "\n", false, []int{0}},
	} {
		t.Run(name, func(t *testing.T) {
			files := topologytest.FS(topologytest.Spec{Sockets: 2, MemoryOnly: []int{4}})
			files.File("sys/devices/system/node/node4/distance", tc.distance).
				File("sys/devices/system/node/node4/meminfo", tc.memory)
			m, err := topology.Discover(files)
			if err != nil {
				t.Fatal(err)
			}
			checkInvariants(t, m)
			n, _ := m.NUMANode(4)
			if n.MemoryOnly() != tc.memoryOnly || !slices.Equal(n.NearestCPUNodes, tc.nearest) {
				t.Errorf("memory only %t, nearest %v", n.MemoryOnly(), n.NearestCPUNodes)
			}
		})
	}
}

func TestAFunctionAtMemoryIsNearItsNearestCPUs(t *testing.T) {
	nic := topologytest.NIC(0, 0)
	m := topologytest.New(topologytest.Spec{
		Sockets: 2, CoresPerL3: 2, MemoryOnly: []int{4}, PCI: []topologytest.PCIRoot{
			{NUMANode: 4, Functions: []topologytest.PCIFunction{topologytest.Port(nic)}},
		},
	})
	f, _ := m.PCI.Function(at(t, diskName))
	if got := f.Locality; got.NUMANode != 4 || got.CPUs.String() != "0-3" {
		t.Errorf("got %+v", got)
	}
}
