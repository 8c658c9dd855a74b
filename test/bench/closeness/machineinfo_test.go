package main

import (
	"maps"
	"slices"
	"testing"

	"k8s.io/klog/v2"
	cputopology "k8s.io/kubernetes/pkg/kubelet/cm/cpumanager/topology"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// counts is what the kubelet makes of a machine.
type counts struct{ cpus, cores, l3s, sockets, nodes int }

func TestTheKubeletSeesTheMachineThatTopoletSees(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spec topologytest.Spec
		want counts
	}{
		"several L3 groups to a node": {
			topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 4, CoresPerL3: 4, Threads: 2},
			counts{cpus: 128, cores: 64, l3s: 16, sockets: 2, nodes: 4},
		},
		"one L3 to a node, which the kubelet takes for the socket": {
			topologytest.Spec{Sockets: 2, CoresPerL3: 4, Threads: 2},
			counts{cpus: 16, cores: 8, l3s: 2, sockets: 2, nodes: 2},
		},
		"one L3 over several nodes": {
			topologytest.Spec{NUMAPerSocket: 4, NUMAPerL3: 2, CoresPerL3: 2},
			counts{cpus: 8, cores: 8, l3s: 2, sockets: 1, nodes: 4},
		},
		"no NUMA, so that sockets are nodes": {
			topologytest.Spec{Sockets: 2, L3PerNUMA: 2, CoresPerL3: 2, NoNUMA: true},
			counts{cpus: 8, cores: 8, l3s: 4, sockets: 2, nodes: 2},
		},
		"nodes with other numbers and one without CPUs": {
			topologytest.Spec{Sockets: 2, CoresPerL3: 2, NUMAIDs: []int{3, 7}, MemoryOnly: []int{9}},
			counts{cpus: 4, cores: 4, l3s: 2, sockets: 2, nodes: 2},
		},
		"CPUs offline": {
			topologytest.Spec{L3PerNUMA: 2, CoresPerL3: 2, Threads: 2, Offline: "3,7"},
			counts{cpus: 6, cores: 3, l3s: 2, sockets: 1, nodes: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := topologytest.New(c.spec)
			seen, err := cputopology.Discover(klog.New(nil), machineInfo(m))
			if err != nil {
				t.Fatal(err)
			}
			got := counts{seen.NumCPUs, seen.NumCores, seen.NumUncoreCache, seen.NumSockets, seen.NumNUMANodes}
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			sameGroups(t, m, seen.CPUDetails)
		})
	}
}

// sameGroups fails if CPUs are together for one side and apart for the other. The
// L3 is left to the counts, as the kubelet has the socket's number in its place.
func sameGroups(t *testing.T, m *topology.Machine, seen cputopology.CPUDetails) {
	t.Helper()
	ids := slices.Collect(maps.Keys(seen))
	if got := topology.NewCPUSet(ids...); !got.Equals(m.Online) {
		t.Fatalf("the kubelet sees CPUs %s of %s", got, m.Online)
	}
	for _, a := range m.CPUs {
		for _, b := range m.CPUs {
			x, y := seen[a.ID], seen[b.ID]
			if (x.CoreID == y.CoreID) != (a.Core == b.Core) || (x.SocketID == y.SocketID) != (a.Socket == b.Socket) {
				t.Errorf("CPUs %d and %d: %+v and %+v", a.ID, b.ID, x, y)
			}
			if len(m.NUMANodes) > 0 && x.NUMANodeID != a.NUMANode {
				t.Errorf("CPU %d: node %d, want %d", a.ID, x.NUMANodeID, a.NUMANode)
			}
		}
	}
}
