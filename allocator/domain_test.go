package allocator

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// summary is what the tests compare of a domain.
type summary struct {
	Name    string
	NUMA    int
	Socket  int
	Type    topology.CoreType
	Threads int
	CPUs    string
}

func TestDomains(t *testing.T) {
	for name, test := range map[string]struct {
		machine  topologytest.Spec
		reserved string
		want     []summary
	}{
		"one per NUMA node, in whole cores": {
			machine:  topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, CoresPerL3: 2, Threads: 2},
			reserved: "0,8",
			want: []summary{
				{"numa-0", 0, 0, topology.Standard, 2, "1,9"},
				{"numa-1", 1, 0, topology.Standard, 2, "2-3,10-11"},
				{"numa-2", 2, 1, topology.Standard, 2, "4-5,12-13"},
				{"numa-3", 3, 1, topology.Standard, 2, "6-7,14-15"},
			},
		},
		"reserving one thread reserves its core": {
			machine:  topologytest.Spec{CoresPerL3: 3, Threads: 2},
			reserved: "4",
			want:     []summary{{"numa-0", 0, 0, topology.Standard, 2, "0,2-3,5"}},
		},
		"the kinds of a hybrid machine apart": {
			machine:  topologytest.Spec{CoresPerL3: 2, EfficiencyCoresPerL3: 4, Threads: 2, AdjacentThreads: true},
			reserved: "0-1",
			want: []summary{
				{"numa-0", 0, 0, topology.Performance, 2, "2-3"},
				{"numa-0-efficiency", 0, 0, topology.Efficiency, 1, "4-7"},
			},
		},
		"a core that misses a thread serves nobody": {
			machine:  topologytest.Spec{CoresPerL3: 3, Threads: 2, Offline: "5"},
			reserved: "0,3",
			want:     []summary{{"numa-0", 0, 0, topology.Standard, 2, "1,4"}},
		},
		"isolated cores apart": {
			machine:  topologytest.Spec{CoresPerL3: 4, Isolated: "2-3"},
			reserved: "0",
			want: []summary{
				{"numa-0", 0, 0, topology.Standard, 1, "1"},
				{"numa-0-isolated", 0, 0, topology.Standard, 1, "2-3"},
			},
		},
		"a core that is isolated in part serves nobody": {
			machine:  topologytest.Spec{CoresPerL3: 4, Threads: 2, Isolated: "2-3,7"},
			reserved: "0",
			want: []summary{
				{"numa-0", 0, 0, topology.Standard, 2, "1,5"},
				{"numa-0-isolated", 0, 0, topology.Standard, 2, "3,7"},
			},
		},
		"isolated efficient cores": {
			machine:  topologytest.Spec{CoresPerL3: 2, EfficiencyCoresPerL3: 4, Threads: 2, AdjacentThreads: true, Isolated: "6-7"},
			reserved: "0-1",
			want: []summary{
				{"numa-0", 0, 0, topology.Performance, 2, "2-3"},
				{"numa-0-efficiency", 0, 0, topology.Efficiency, 1, "4-5"},
				{"numa-0-efficiency-isolated", 0, 0, topology.Efficiency, 1, "6-7"},
			},
		},
		"node numbers with holes and a node of memory only": {
			machine:  topologytest.Spec{Sockets: 2, CoresPerL3: 2, NUMAIDs: []int{8, 250}, MemoryOnly: []int{300}},
			reserved: "0",
			want: []summary{
				{"numa-8", 8, 0, topology.Standard, 1, "1"},
				{"numa-250", 250, 1, topology.Standard, 1, "2-3"},
			},
		},
		"a kernel without NUMA": {
			machine:  topologytest.Spec{CoresPerL3: 2, NoNUMA: true},
			reserved: "0",
			want:     []summary{{"numa-0", topology.None, 0, topology.Standard, 1, "1"}},
		},
		"eight threads a core": {
			machine:  topologytest.Spec{CoresPerL3: 2, Threads: 8, AdjacentThreads: true},
			reserved: "0",
			want:     []summary{{"numa-0", 0, 0, topology.Standard, 8, "8-15"}},
		},
		"everything reserved": {
			machine:  topologytest.Spec{CoresPerL3: 2},
			reserved: "0-1",
			want:     nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []summary
			for _, d := range Domains(topologytest.New(test.machine), set(t, test.reserved)) {
				got = append(got, summary{d.Name, d.NUMANode(), d.Socket, d.CoreType, d.ThreadsPerCore, d.CPUs.String()})
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestDomainsHaveDifferentNamesOnOddMachines(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*topology.CPU)
		want   []string
	}{
		"three kinds of cores": {
			func(c *topology.CPU) {
				c.CoreType = []topology.CoreType{topology.Performance, topology.Standard, topology.Efficiency}[c.ID%3]
			},
			[]string{"numa-0 0,3", "numa-0-standard 1,4", "numa-0-efficiency 2,5"},
		},
		"CPUs that no NUMA node names": {
			func(c *topology.CPU) {
				if c.ID > 3 {
					c.NUMANode = topology.None
				}
			},
			[]string{"numa-0 0-3"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := topologytest.New(topologytest.Spec{CoresPerL3: 6})
			for i := range m.CPUs {
				test.change(&m.CPUs[i])
			}
			var got []string
			for _, d := range Domains(m, topology.CPUSet{}) {
				got = append(got, d.Name+" "+d.CPUs.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestMemoryComesFromTheNearestNodeThatHasAny(t *testing.T) {
	m := topologytest.New(topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, CoresPerL3: 2})
	none := uint64(0)
	m.NUMANodes[1].MemoryBytes = &none
	got := map[string][]int{}
	for _, d := range Domains(m, topology.CPUSet{}) {
		got[d.Name] = d.MemoryNodes
	}
	want := map[string][]int{"numa-0": {0}, "numa-1": {0}, "numa-2": {2}, "numa-3": {3}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDefaultReservedIsTheFirstCore(t *testing.T) {
	m := topologytest.New(topologytest.Spec{CoresPerL3: 4, Threads: 2})
	if got := DefaultReserved(m).String(); got != "0,4" {
		t.Errorf("got %s, want 0,4", got)
	}
	m = topologytest.New(topologytest.Spec{CoresPerL3: 4, Threads: 2, Offline: "0"})
	if got := DefaultReserved(m).String(); got != "1,5" && got != "4" {
		t.Errorf("with CPU 0 offline: got %s, want the core of the lowest online CPU", got)
	}
}

func set(t testing.TB, list string) topology.CPUSet {
	t.Helper()
	s, err := topology.ParseCPUSet(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
