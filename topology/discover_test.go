package topology_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

const cpuDir = "sys/devices/system/cpu/"

// picture is a machine in lines that a test can state in full or in part.
type picture map[string]string

func pictureOf(m *topology.Machine) picture {
	groups := func(groups []topology.Group) string {
		lists := make([]string, len(groups))
		for i, g := range groups {
			lists[i] = g.CPUs.String()
		}
		return strings.Join(lists, " ")
	}
	p := picture{
		"online": m.Online.String(), "offline": m.Offline.String(),
		"isolated": m.Isolated.String(), "nohz_full": m.NohzFull.String(),
		"sockets": groups(m.Sockets), "dies": groups(m.Dies), "clusters": groups(m.Clusters),
		"l3": groups(m.L3Groups), "l2": groups(m.L2Groups), "cores": groups(m.Cores),
	}
	kinds := map[topology.CoreType][]int{}
	var ofCPU []string
	for _, cpu := range m.CPUs {
		kinds[cpu.CoreType] = append(kinds[cpu.CoreType], cpu.ID)
		ofCPU = append(ofCPU, fmt.Sprint(cpu.NUMANode))
	}
	for kind, ids := range kinds {
		p[string(kind)] = topology.NewCPUSet(ids...).String()
	}
	p["node of each CPU"] = strings.Join(ofCPU, " ")
	var nodes []string
	for _, n := range m.NUMANodes {
		memory := "?"
		if n.MemoryBytes != nil {
			memory = fmt.Sprint(*n.MemoryBytes)
		}
		nodes = append(nodes, fmt.Sprintf("%d:%s:%s:%v:%v", n.ID, n.CPUs, memory, n.Distances, n.Hugepages))
	}
	p["nodes"] = strings.Join(nodes, " ")
	p["pci"] = tree(m)
	for _, f := range m.PCI.Functions {
		p["pci"] += functionLine(m, f) + "\n"
	}
	return p
}

// four is a machine of four CPUs, two cores of two threads.
var four = topologytest.Spec{CoresPerL3: 2, Threads: 2, NUMAMemory: 1 << 30}

func TestDiscover(t *testing.T) {
	for name, tc := range map[string]struct {
		spec topologytest.Spec
		edit func(*topologytest.Tree)
		// want are the lines that matter; a line that is "" must be empty or absent.
		want picture
	}{
		"online": {
			spec: topologytest.Spec{CoresPerL3: 4, Threads: 2, Offline: "5-6", Isolated: "3-5", NohzFull: "2-7"},
			want: picture{"online": "0-4,7", "offline": "5-6", "isolated": "3-4", "nohz_full": "2-4,7", "cores": "0,4 1 2 3,7"},
		},
		"without cpu/online, CPUs count that have a topology and are not switched off": {
			spec: topologytest.Spec{CoresPerL3: 8},
			edit: func(t *topologytest.Tree) {
				t.Remove(cpuDir+"online").Remove(cpuDir+"present").
					Remove(cpuDir+"cpu2/topology").
					File(cpuDir+"cpu3/online", "0\n").
					Remove(cpuDir + "cpu4/online").
					Dir(cpuDir + "cpufreq").Dir(cpuDir + "cpu007").Dir(cpuDir + "cpu99999999999")
			},
			want: picture{"online": "0-1,4-7", "offline": "2-3", "sockets": "0-1,4-7"},
		},
		"an empty or garbled cpu/online is no statement": {
			spec: topologytest.Spec{CoresPerL3: 2},
			edit: func(t *topologytest.Tree) { t.File(cpuDir+"online", "(null)\n") },
			want: picture{"online": "0-1"},
		},
		"cpu/offline may name CPUs that do not exist": {
			spec: topologytest.Spec{CoresPerL3: 2},
			edit: func(t *topologytest.Tree) { t.File(cpuDir+"offline", "2-511\n") },
			want: picture{"offline": ""},
		},
		"an online CPU without a directory is a CPU of which nothing is told": {
			spec: four,
			edit: func(t *topologytest.Tree) { t.File(cpuDir+"online", "0-3,9\n") },
			want: picture{"online": "0-3,9", "cores": "0,2 1,3", "node of each CPU": "0 0 0 0 -1"},
		},
		"nohz_full of (null) is nothing": {
			spec: four, want: picture{"nohz_full": ""},
		},
		"CPU numbers beyond the mask's first words": {
			spec: topologytest.Spec{Sockets: 2, CoresPerL3: 40, Threads: 2},
			edit: removeAll("package_cpus_list", "core_siblings_list", "core_cpus_list", "thread_siblings_list", "shared_cpu_list", "cpulist"),
			want: picture{"sockets": "0-39,80-119 40-79,120-159", "l3": "0-39,80-119 40-79,120-159"},
		},
		"old names": {
			spec: four,
			edit: removeAll("package_cpus_list", "package_cpus", "core_cpus_list", "core_cpus"),
			want: picture{"sockets": "0-3", "cores": "0,2 1,3"},
		},
		"old names, masks only": {
			spec: four,
			edit: removeAll("package_cpus_list", "package_cpus", "core_cpus_list", "core_cpus",
				"core_siblings_list", "thread_siblings_list", "shared_cpu_list", "cpulist"),
			want: picture{"sockets": "0-3", "cores": "0,2 1,3", "l3": "0-3", "l2": "0,2 1,3",
				"nodes": "0:0-3:1073741824:[10]:[]"},
		},
		"a CPU list may end with a NUL": {
			spec: four,
			edit: func(t *topologytest.Tree) { t.File("sys/devices/system/node/node0/cpulist", "0-3\n\x00") },
			want: picture{"nodes": "0:0-3:1073741824:[10]:[]"},
		},
		"neither sockets nor cores": {
			spec: four,
			edit: removeAll("package_cpus_list", "package_cpus", "core_cpus_list", "core_cpus",
				"core_siblings_list", "core_siblings", "thread_siblings_list", "thread_siblings"),
			want: picture{"sockets": "", "cores": "", "l3": "0-3"},
		},
		"core ids that repeat": {
			spec: four,
			edit: forCPUs(func(t *topologytest.Tree, dir string) { t.File(dir+"topology/core_id", "0\n") }),
			want: picture{"cores": "0,2 1,3"},
		},
		"four threads per core": {
			spec: topologytest.Spec{CoresPerL3: 2, Threads: 4, AdjacentThreads: true},
			want: picture{"cores": "0-3 4-7"},
		},
		"eight threads per core": {
			spec: topologytest.Spec{CoresPerL3: 2, Threads: 8, AdjacentThreads: true, Offline: "9-11"},
			want: picture{"cores": "0-7 8,12-15"},
		},
		"dies, of which the ids repeat in each socket": {
			spec: topologytest.Spec{Sockets: 2, L3PerNUMA: 2, DiesPerSocket: 2, CoresPerL3: 2},
			want: picture{"dies": "0-1 2-3 4-5 6-7"},
		},
		"a die that equals its socket": {
			spec: topologytest.Spec{DiesPerSocket: 1, CoresPerL3: 2}, want: picture{"dies": "0-1"},
		},
		"die_id -1 is no die": {
			spec: four, want: picture{"dies": ""},
		},
		"no die_id is no die": {
			spec: topologytest.Spec{DiesPerSocket: 1, CoresPerL3: 2},
			edit: removeAll("die_id"), want: picture{"dies": ""},
		},
		"clusters": {
			spec: topologytest.Spec{CoresPerL3: 4, CoresPerCluster: 2}, want: picture{"clusters": "0-1 2-3"},
		},
		"cluster_id 65535 is no cluster": {
			spec: topologytest.Spec{CoresPerL3: 4, CoresPerCluster: 2},
			edit: forCPUs(func(t *topologytest.Tree, dir string) { t.File(dir+"topology/cluster_id", "65535\n") }),
			want: picture{"clusters": ""},
		},
		"an L3 across NUMA nodes": {
			spec: topologytest.Spec{NUMAPerSocket: 2, NUMAPerL3: 2, CoresPerL3: 2},
			want: picture{"l3": "0-3", "node of each CPU": "0 0 1 1"},
		},
		"no cache files at all": {
			spec: four,
			edit: forCPUs(func(t *topologytest.Tree, dir string) { t.Remove(dir + "cache") }),
			want: picture{"l2": "", "l3": ""},
		},
		"a CPU without an L2 has none, though others name it": {
			spec: topologytest.Spec{CoresPerL3: 4, CoresPerL2: 2},
			edit: func(t *topologytest.Tree) { t.Remove(cpuDir + "cpu1/cache/index2") },
			want: picture{"l2": "0 2-3", "l3": "0-3"},
		},
		"an L2 of type Data beside one of type Instruction": {
			spec: four,
			edit: forCPUs(func(t *topologytest.Tree, dir string) {
				t.File(dir+"cache/index2/type", "Data\n")
				t.File(dir+"cache/index0/level", "2\n").File(dir+"cache/index0/type", "Instruction\n").
					File(dir+"cache/index0/shared_cpu_list", "0-3\n")
			}),
			want: picture{"l2": "0,2 1,3"},
		},
		"caches without ids and sizes": {
			spec: four, edit: removeAll("id", "size"), want: picture{"l2": "0,2 1,3", "l3": "0-3"},
		},
		"a list copied from another CPU gives way to the mask": {
			spec: four,
			edit: forCPUs(func(t *topologytest.Tree, dir string) {
				t.File(dir+"cache/index2/shared_cpu_list", "0,2\n")
			}),
			want: picture{"l2": "0,2 1,3"},
		},
		"a CPU that claims another core's CPUs is alone in its claim": {
			spec: topologytest.Spec{CoresPerL3: 4, Threads: 2},
			edit: func(t *topologytest.Tree) { t.File(cpuDir+"cpu0/topology/core_cpus_list", "0-7\n") },
			want: picture{"cores": "0 1,5 2,6 3,7 4", "online": "0-7"},
		},
		"a CPU that says nothing goes with those that name it": {
			spec: four,
			edit: func(t *topologytest.Tree) { t.Remove(cpuDir + "cpu2/topology") },
			want: picture{"cores": "0,2 1,3", "sockets": "0-3"},
		},
		"garbled siblings do not lose the CPU": {
			spec: four,
			edit: func(t *topologytest.Tree) {
				for _, file := range []string{"core_cpus", "core_cpus_list", "thread_siblings", "thread_siblings_list"} {
					t.File(cpuDir+"cpu0/topology/"+file, "\xff\xfe-\x00,,9-3\n").
						File(cpuDir+"cpu2/topology/"+file, "")
				}
			},
			want: picture{"online": "0-3", "cores": "1,3"},
		},
		"kinds of cores by their performance-monitoring units": {
			spec: topologytest.Spec{CoresPerL3: 2, Threads: 2, EfficiencyCoresPerL3: 4},
			want: picture{"performance": "0-3", "efficiency": "4-7", "standard": ""},
		},
		"low-power cores are efficiency cores": {
			spec: topologytest.Spec{CoresPerL3: 2, EfficiencyCoresPerL3: 4},
			edit: func(t *topologytest.Tree) {
				t.File("sys/devices/cpu_atom/cpus", "2-3\n").File("sys/devices/cpu_lowpower/cpus", "4-5\n")
			},
			want: picture{"performance": "0-1", "efficiency": "2-5"},
		},
		"one kind alone has no kinds": {
			spec: topologytest.Spec{CoresPerL3: 2, EfficiencyCoresPerL3: 2},
			edit: func(t *topologytest.Tree) { t.Remove("sys/devices/cpu_atom") },
			want: picture{"standard": "0-3"},
		},
		"kinds of cores by capacity": {
			spec: topologytest.Spec{CoresPerL3: 2, EfficiencyCoresPerL3: 2, Capacity: true},
			want: picture{"performance": "0-1", "efficiency": "2-3", "standard": ""},
		},
		"capacities of one kind differ by a few percent": {
			spec: topologytest.Spec{CoresPerL3: 6}, edit: capacities("1024", "1001", "980", "700", "690", "720"),
			want: picture{"performance": "0-2", "efficiency": "3-5"},
		},
		"favoured cores are no kind": {
			spec: topologytest.Spec{CoresPerL3: 3}, edit: capacities("1024", "985", "985"),
			want: picture{"standard": "0-2"},
		},
		"of three kinds the middle one is standard": {
			spec: topologytest.Spec{CoresPerL3: 4}, edit: capacities("1024", "800", "400", "(null)"),
			want: picture{"performance": "0", "standard": "1,3", "efficiency": "2"},
		},
		"NUMA nodes with holes in their numbers, beyond 64, and with memory only": {
			spec: topologytest.Spec{
				Sockets: 2, NUMAIDs: []int{8, 250}, MemoryOnly: []int{2, 100}, NUMAMemory: 1 << 30,
				Hugepages: []topology.Hugepages{{SizeBytes: 1 << 30, Total: 1}, {SizeBytes: 2 << 20, Total: 512}},
			},
			want: picture{
				"node of each CPU": "8 250",
				"nodes": "2::1073741824:[10 17 17 17]:[] 8:0:1073741824:[17 10 17 21]:[{2097152 512} {1073741824 1}]" +
					" 100::1073741824:[17 17 10 17]:[] 250:1:1073741824:[17 21 17 10]:[{2097152 512} {1073741824 1}]",
			},
		},
		"no node directory": {
			spec: topologytest.Spec{NoNUMA: true}, want: picture{"nodes": "", "node of each CPU": "-1"},
		},
		"nodes overlap: the CPU's own link decides, or else the lower number": {
			spec: topologytest.Spec{NUMAPerSocket: 2, NUMAMemory: 1 << 30},
			edit: func(t *topologytest.Tree) {
				t.File("sys/devices/system/node/node0/cpulist", "0-1\n").
					File("sys/devices/system/node/node1/cpulist", "0-1\n").
					Remove(cpuDir + "cpu0/node0")
			},
			want: picture{"node of each CPU": "0 1", "nodes": "0:0-1:1073741824:[10 12]:[] 1:0-1:1073741824:[12 10]:[]"},
		},
		"a node names CPUs that are offline or do not exist": {
			spec: topologytest.Spec{CoresPerL3: 4, Offline: "2", NUMAMemory: 1 << 30},
			edit: func(t *topologytest.Tree) { t.File("sys/devices/system/node/node0/cpulist", "0-140\n") },
			want: picture{"nodes": "0:0-1,3:1073741824:[10]:[]"},
		},
		"a node of which nothing is told": {
			spec: topologytest.Spec{},
			edit: func(t *topologytest.Tree) {
				t.Remove("sys/devices/system/node/node0").Dir("sys/devices/system/node/node0")
			},
			want: picture{"nodes": "0::?:[]:[]", "node of each CPU": "-1"},
		},
		"a node with garbled files": {
			spec: topologytest.Spec{Hugepages: []topology.Hugepages{{SizeBytes: 2 << 20, Total: 3}}},
			edit: func(t *topologytest.Tree) {
				node := "sys/devices/system/node/node0/"
				t.File(node+"distance", "10 x\n").File(node+"meminfo", "Node 0 MemTotal: 99999999999999999999 kB\n").
					File(node+"hugepages/hugepages-2048kB/nr_hugepages", "many\n").
					File(node+"hugepages/hugepages-0kB/nr_hugepages", "1\n").
					File(node+"hugepages/hugepages-kB/nr_hugepages", "1\n")
			},
			want: picture{"nodes": "0:0:?:[]:[]"},
		},
		"directories in place of files": {
			spec: four,
			edit: func(t *topologytest.Tree) {
				t.Dir(cpuDir + "cpu0/topology/core_cpus_list").Dir("sys/devices/system/node/node0/meminfo").
					Dir(cpuDir + "isolated")
			},
			want: picture{"cores": "0,2 1,3", "nodes": "0:0-3:?:[10]:[]"},
		},
		"links that run in circles or lead nowhere": {
			spec: four,
			edit: func(t *topologytest.Tree) {
				t.Link(cpuDir+"cpu0/cache", "cache").
					Link(cpuDir+"cpu1/topology", "../cpu2/topology2").Link(cpuDir+"cpu2/topology2", "../cpu1/topology").
					Link("sys/devices/system/node/node7", "../../gone").
					Link("sys/devices/cpu_core", "/etc").Link("sys/devices/cpu_atom", "../../../../../etc")
			},
			want: picture{"online": "0-3", "cores": "0,2 1,3", "l3": "1-3", "node of each CPU": "0 0 0 0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := topologytest.FS(tc.spec)
			if tc.edit != nil {
				tc.edit(tree)
			}
			m, err := topology.Discover(tree)
			if err != nil {
				t.Fatal(err)
			}
			checkInvariants(t, m)
			all, got := pictureOf(m), picture{}
			for line := range tc.want {
				got[line] = all[line]
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// removeAll removes the files of these names everywhere.
func removeAll(names ...string) func(*topologytest.Tree) {
	return func(t *topologytest.Tree) {
		for _, file := range t.Files() {
			for _, name := range names {
				if strings.HasSuffix(file, "/"+name) {
					t.Remove(file)
				}
			}
		}
	}
}

// forCPUs edits the directory of each of four CPUs.
func forCPUs(edit func(t *topologytest.Tree, dir string)) func(*topologytest.Tree) {
	return func(t *topologytest.Tree) {
		for id := range 4 {
			edit(t, fmt.Sprintf("%scpu%d/", cpuDir, id))
		}
	}
}

func capacities(values ...string) func(*topologytest.Tree) {
	return func(t *topologytest.Tree) {
		for id, v := range values {
			t.File(fmt.Sprintf("%scpu%d/cpu_capacity", cpuDir, id), v+"\n")
		}
	}
}

func TestDiscoverKeepsTheKernelsNumbersAndSizes(t *testing.T) {
	tree := topologytest.FS(topologytest.Spec{Sockets: 2, CoresPerL3: 2})
	tree.File(cpuDir+"cpu0/topology/physical_package_id", "8442\n").
		File(cpuDir+"cpu2/topology/physical_package_id", "-1\n").
		File(cpuDir+"cpu2/cache/index3/size", "huge\n").
		Remove(cpuDir + "cpu2/cache/index3/id")
	m, err := topology.Discover(tree)
	if err != nil {
		t.Fatal(err)
	}
	cpus := topology.NewCPUSet
	if diff := cmp.Diff([]topology.Group{
		{KernelID: 8442, CPUs: cpus(0, 1)},
		{KernelID: topology.None, CPUs: cpus(2, 3)},
	}, m.Sockets, cmp.Comparer(topology.CPUSet.Equals)); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]topology.Group{
		{KernelID: 0, CPUs: cpus(0, 1), CacheBytes: 32 << 20},
		{KernelID: topology.None, CPUs: cpus(2, 3)},
	}, m.L3Groups, cmp.Comparer(topology.CPUSet.Equals)); diff != "" {
		t.Errorf("L3 groups (-want +got):\n%s", diff)
	}
}

func TestDiscoverFailsOnlyWithoutCPUs(t *testing.T) {
	for name, tree := range map[string]*topologytest.Tree{
		"an empty root":            topologytest.NewTree(),
		"a file in place of sys":   topologytest.NewTree().File("sys", "x"),
		"a CPU without a topology": topologytest.NewTree().Dir(cpuDir + "cpu0"),
		"every CPU switched off":   topologytest.NewTree().Dir(cpuDir+"cpu0/topology").File(cpuDir+"cpu0/online", "0\n"),
		"more CPUs than any kernel has": topologytest.NewTree().
			Dir(cpuDir+"cpu99999/topology").File(cpuDir+"online", "0-99999\n"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := topology.Discover(tree)
			if !errors.Is(err, topology.ErrNoCPUs) {
				t.Fatalf("got %v, want %v", err, topology.ErrNoCPUs)
			}
			for _, part := range []string{"sys/devices/system/cpu", "the root must be"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
		})
	}
}

// endless is a file system in which every file holds zeros without end.
type endless struct{ fs.FS }

func (e endless) Open(name string) (fs.File, error) {
	f, err := e.FS.Open(name)
	if err != nil || strings.HasPrefix(name, cpuDir+"online") {
		return f, err
	}
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return f, err
	}
	return endlessFile{f}, nil
}

type endlessFile struct{ fs.File }

func (endlessFile) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

func TestFilesWithoutEndAreAbsent(t *testing.T) {
	m, err := topology.Discover(endless{topologytest.FS(four)})
	if err != nil {
		t.Fatal(err)
	}
	checkInvariants(t, m)
	if got := m.Online.String(); got != "0-3" {
		t.Errorf("online: got %s", got)
	}
	if len(m.Cores) != 0 || m.NUMANodes[0].MemoryBytes != nil {
		t.Errorf("something was made of endless files: %+v", m)
	}
}

func TestListsThatRepeatThemselvesCostNoTime(t *testing.T) {
	tree := topologytest.FS(topologytest.Spec{CoresPerL3: 8, Threads: 2})
	for i, file := range tree.Files() {
		if strings.HasSuffix(file, "_list") {
			tree.File(file, fmt.Sprintf("%s%d", strings.Repeat("0-16383,", 8000), i)) // each another text
		}
	}
	begin := cpuTime(t)
	m, err := topology.Discover(tree)
	if err != nil {
		t.Fatal(err)
	}
	// Reading each of them to its end takes minutes.
	if took := cpuTime(t) - begin; took > 20*time.Second {
		t.Errorf("took %v of the processor's time", took)
	}
	checkInvariants(t, m)
}
