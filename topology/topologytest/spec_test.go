package topologytest_test

import (
	"testing"
	"testing/fstest"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestTreeIsAFileSystem(t *testing.T) {
	tree := topologytest.NewTree().
		File("sys/devices/system/cpu/online", "0\n").
		Dir("sys/empty").
		Link("sys/cpu", "devices/system/cpu")
	if err := fstest.TestFS(tree, "sys/devices/system/cpu/online", "sys/empty", "sys/cpu"); err != nil {
		t.Fatal(err)
	}
}

func TestMachineHasTheStatedParts(t *testing.T) {
	type counts struct{ cpus, sockets, dies, clusters, l3, l2, cores, nodes int }
	for name, tc := range map[string]struct {
		spec topologytest.Spec
		want counts
	}{
		"the zero spec is a machine of one CPU": {
			topologytest.Spec{},
			counts{cpus: 1, sockets: 1, l3: 1, l2: 1, cores: 1, nodes: 1},
		},
		"two sockets of two nodes of two L3 groups": {
			topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 2, CoresPerL3: 4, Threads: 2},
			counts{cpus: 64, sockets: 2, l3: 8, l2: 32, cores: 32, nodes: 4},
		},
		"nodes that share an L3, in dies": {
			topologytest.Spec{Sockets: 2, NUMAPerSocket: 4, NUMAPerL3: 2, DiesPerSocket: 2, CoresPerL3: 2},
			counts{cpus: 16, sockets: 2, dies: 4, l3: 4, l2: 16, cores: 16, nodes: 8},
		},
		"a hybrid part with clusters": {
			topologytest.Spec{CoresPerL3: 4, Threads: 2, EfficiencyCoresPerL3: 8, CoresPerL2: 4, CoresPerCluster: 4},
			counts{cpus: 16, sockets: 1, clusters: 3, l3: 1, l2: 3, cores: 12, nodes: 1},
		},
		"a kernel without NUMA, a machine without L3": {
			topologytest.Spec{CoresPerL3: 2, NoNUMA: true, NoL3: true},
			counts{cpus: 2, sockets: 1, l2: 2, cores: 2},
		},
		"memory-only nodes": {
			topologytest.Spec{Sockets: 2, NUMAIDs: []int{3, 70}, MemoryOnly: []int{0, 8}},
			counts{cpus: 2, sockets: 2, l3: 2, l2: 2, cores: 2, nodes: 4},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := topologytest.New(tc.spec)
			got := counts{
				len(m.CPUs), len(m.Sockets), len(m.Dies), len(m.Clusters),
				len(m.L3Groups), len(m.L2Groups), len(m.Cores), len(m.NUMANodes),
			}
			if got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestThreadsAreNumberedAsTheArchitectureDoes(t *testing.T) {
	for name, tc := range map[string]struct {
		spec      topologytest.Spec
		firstCore string
		socket    string
	}{
		"x86 numbers the first threads first": {
			topologytest.Spec{Sockets: 2, CoresPerL3: 4, Threads: 2}, "0,8", "0-3,8-11"},
		"POWER numbers the threads of a core in a row": {
			topologytest.Spec{Sockets: 2, CoresPerL3: 4, Threads: 8, AdjacentThreads: true}, "0-7", "0-31"},
		"some firmware deals out the sockets in turn": {
			topologytest.Spec{Sockets: 2, CoresPerL3: 4, Threads: 2, Interleave: true}, "0,8", "0,2,4,6,8,10,12,14"},
		"offline CPUs are nobody's siblings": {
			topologytest.Spec{Sockets: 2, CoresPerL3: 4, Threads: 2, Offline: "8,9,15"}, "0", "0-3,10-11"},
	} {
		t.Run(name, func(t *testing.T) {
			m := topologytest.New(tc.spec)
			if got := m.Cores[0].CPUs.String(); got != tc.firstCore {
				t.Errorf("first core: got %s, want %s", got, tc.firstCore)
			}
			if got := m.Sockets[0].CPUs.String(); got != tc.socket {
				t.Errorf("first socket: got %s, want %s", got, tc.socket)
			}
		})
	}
}

func TestWrittenTreeIsTheSameMachine(t *testing.T) {
	spec := topologytest.Spec{Sockets: 2, CoresPerL3: 2, Threads: 2, Isolated: "1", NohzFull: "1-2"}
	dir := t.TempDir()
	if err := topologytest.Write(dir, spec); err != nil {
		t.Fatal(err)
	}
	root, err := topology.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	m, err := topology.Discover(root)
	if err != nil {
		t.Fatal(err)
	}
	want := topologytest.New(spec)
	if len(m.CPUs) != len(want.CPUs) || !m.Isolated.Equals(want.Isolated) || !m.NohzFull.Equals(want.NohzFull) {
		t.Errorf("got %+v, want %+v", m, want)
	}
}
