package draplugin

import "github.com/topolet/topolet/topology/topologytest"

// machines are those that CPU managers have been known to get wrong.
var machines = map[string]topologytest.Spec{
	"two threads per core":        {Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 2, CoresPerL3: 4, Threads: 2},
	"one thread per core":         {Sockets: 2, CoresPerL3: 8, Interleave: true},
	"four threads per core":       {Sockets: 2, NUMAPerSocket: 1, CoresPerL3: 5, Threads: 4, AdjacentThreads: true},
	"two types of cores":          {CoresPerL3: 4, EfficiencyCoresPerL3: 8, Threads: 2},
	"one core to give":            {CoresPerL3: 2, Threads: 2},
	"one CPU to give":             {CoresPerL3: 2},
	"two cores to give":           {CoresPerL3: 3, Threads: 2},
	"node numbers with holes":     {Sockets: 2, NUMAPerSocket: 2, CoresPerL3: 3, NUMAIDs: []int{0, 8, 250, 252}},
	"no NUMA":                     {CoresPerL3: 6, Threads: 2, NoNUMA: true},
	"nodes of memory only":        {Sockets: 2, CoresPerL3: 4, Threads: 2, MemoryOnly: []int{2, 3}},
	"a core with a thread off":    {Sockets: 2, CoresPerL3: 4, Threads: 2, Offline: "9"},
	"isolated CPUs":               {Sockets: 2, CoresPerL3: 4, Threads: 2, Isolated: "2,10"},
	"an L3 across NUMA nodes":     {NUMAPerSocket: 4, NUMAPerL3: 2, CoresPerL3: 4, Threads: 2},
	"many NUMA nodes":             {Sockets: 16, NUMAPerSocket: 10, CoresPerL3: 1, Threads: 2},
	"clusters of efficient cores": {CoresPerL3: 2, EfficiencyCoresPerL3: 8, Threads: 2, CoresPerCluster: 4, Capacity: true},
}
