package allocator

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestFurtherLevels(t *testing.T) {
	for name, test := range map[string]struct {
		machine topologytest.Spec
		level   Level
		want    []string
	}{
		"L3 groups": {
			topologytest.Spec{Sockets: 2, L3PerNUMA: 2, CoresPerL3: 2, Threads: 2}, L3Level,
			[]string{"l3-0 [0] 0-1,8-9", "l3-1 [0] 2-3,10-11", "l3-2 [1] 4-5,12-13", "l3-3 [1] 6-7,14-15"},
		},
		"an L3 group across NUMA nodes": {
			topologytest.Spec{NUMAPerSocket: 4, NUMAPerL3: 2, CoresPerL3: 4}, L3Level,
			[]string{"l3-0 [0 1] 0-7", "l3-1 [2 3] 8-15"},
		},
		"sockets": {
			topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, CoresPerL3: 2}, SocketLevel,
			[]string{"socket-0 [0 1] 0-3", "socket-1 [2 3] 4-7"},
		},
		"the machine": {
			topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, CoresPerL3: 2, Isolated: "5"}, MachineLevel,
			[]string{"machine [0 1 2 3] 0-4,6-7", "machine-isolated [2] 5"},
		},
		"the kinds of a hybrid machine apart": {
			topologytest.Spec{CoresPerL3: 2, EfficiencyCoresPerL3: 4, Threads: 2, AdjacentThreads: true}, SocketLevel,
			[]string{"socket-0 [0] 0-3", "socket-0-efficiency [0] 4-7"},
		},
		"a kernel without NUMA": {
			topologytest.Spec{CoresPerL3: 2, NoNUMA: true}, MachineLevel,
			[]string{"machine [] 0-1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range Domains(topologytest.New(test.machine), topology.CPUSet{}, test.level) {
				if d.Level == test.level {
					got = append(got, fmt.Sprint(d.Name, " ", d.NUMANodes, " ", d.CPUs))
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestAnL3GroupKeepsItsNameWhenAnotherGoesOffline(t *testing.T) {
	spec := topologytest.Spec{L3PerNUMA: 3, CoresPerL3: 2}
	names := func() map[string]string {
		found := map[string]string{}
		for _, d := range Domains(topologytest.New(spec), topology.CPUSet{}, L3Level) {
			found[d.CPUs.String()] = d.Name
		}
		return found
	}
	before := names()
	spec.Offline = "2-3"
	if after := names(); after["4-5"] != before["4-5"] {
		t.Errorf("the group of CPUs 4-5 was %s and is %s", before["4-5"], after["4-5"])
	}
}

// Counters rest on this: two domains of different levels exclude each other if and
// only if they have CPUs in common.
func TestDomainsHaveAUnitInCommonWhereTheyHaveCPUsInCommon(t *testing.T) {
	for name, spec := range map[string]topologytest.Spec{
		"several of everything":         {Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 2, CoresPerL3: 2, Threads: 2, Isolated: "3,19"},
		"an L3 group across NUMA nodes": {Sockets: 2, NUMAPerSocket: 4, NUMAPerL3: 2, CoresPerL3: 4},
		"a hybrid machine":              {CoresPerL3: 4, EfficiencyCoresPerL3: 4, Threads: 2, CoresPerCluster: 2},
		"a kernel without NUMA":         {Sockets: 2, L3PerNUMA: 2, CoresPerL3: 2, NoNUMA: true},
		"sockets and nothing else":      {Sockets: 2, CoresPerL3: 2, NoNUMA: true, NoL3: true},
	} {
		t.Run(name, func(t *testing.T) {
			domains := Domains(topologytest.New(spec), topology.NewCPUSet(0), L3Level, SocketLevel, MachineLevel)
			for _, a := range domains {
				for _, b := range domains {
					if common := commonUnit(a, b); common != a.CPUs.Intersects(b.CPUs) {
						t.Errorf("%s (%s) and %s (%s): a unit in common: %t", a.Name, a.CPUs, b.Name, b.CPUs, common)
					}
				}
			}
		})
	}
}

func commonUnit(a, b *Domain) bool {
	units := map[string]bool{}
	for _, u := range a.Units {
		units[u.Name] = true
	}
	for _, u := range b.Units {
		if units[u.Name] {
			return true
		}
	}
	return false
}

func TestAChoiceOutOfTheMachineTakesFewNUMANodesOfOneSocket(t *testing.T) {
	m := topologytest.New(topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, CoresPerL3: 4})
	domains := Domains(m, topology.CPUSet{}, MachineLevel)
	machine := domains[len(domains)-1]
	for _, test := range []struct {
		free string
		n    int
		want string
	}{
		{"0-15", 4, "0-3"},
		{"0-15", 8, "0-7"},
		{"0-15", 12, "0-11"},
		{"2-15", 8, "8-15"}, // a whole socket rather than three nodes
		{"0-1,4-5,8-10", 2, "8-9"},
		{"0-1,4-5,8-11", 4, "8-11"}, // one node rather than two
	} {
		got, err := machine.Choose(set(t, test.free), test.n, topology.CPUSet{})
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != test.want {
			t.Errorf("%d of %s: %s, want %s", test.n, test.free, got, test.want)
		}
	}
}

// A claim finds its device again, and nobody else gets it, while a whole socket or L3
// group is offline.
func TestTheNamesOfDomainsDoNotChangeWhenOthersGoOffline(t *testing.T) {
	spec := topologytest.Spec{Sockets: 3, L3PerNUMA: 2, CoresPerL3: 2, Threads: 2}
	names := func() map[string]string {
		m := topologytest.New(spec)
		found := map[string]string{}
		for _, d := range Domains(m, topology.CPUSet{}, L3Level, SocketLevel) {
			found[d.Name] = fmt.Sprint(d.CPUs, d.Socket, d.Units)
		}
		return found
	}
	all := names()
	spec.Offline = topologytest.New(spec).Sockets[1].CPUs.String()
	left := names()
	if len(left) != len(all)/3*2 {
		t.Errorf("%d domains are left of %d", len(left), len(all))
	}
	for name, what := range left {
		if what != all[name] {
			t.Errorf("%s was %s and is %s", name, all[name], what)
		}
	}
}
