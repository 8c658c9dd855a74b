package topology_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// sets writes the CPUs of groups one after the other.
func sets(groups []topology.Group) string {
	words := make([]string, 0, len(groups))
	for _, g := range groups {
		words = append(words, g.CPUs.String())
	}
	return strings.Join(words, " ")
}

// nodeFacts and functionFacts are a line each for what a machine's layout settles.
func nodeFacts(m *topology.Machine) []string {
	var lines []string
	for _, n := range m.NUMANodes {
		line := fmt.Sprintf("%d: CPUs %s, distances %v", n.ID, n.CPUs, n.Distances)
		if len(n.NearestCPUNodes) > 0 {
			line += fmt.Sprintf(", nearest %v", n.NearestCPUNodes)
		}
		lines = append(lines, line)
	}
	return lines
}

func functionFacts(m *topology.Machine) []string {
	var lines []string
	for _, f := range m.PCI.Functions {
		kind := map[int]string{0x0108: "NVMe", 0x0200: "network"}[f.Class>>8]
		if kind == "" || f.Locality.NUMANode == topology.None {
			continue
		}
		line := fmt.Sprintf("%s at node %d, %s", kind, f.Locality.NUMANode, m.PCI.Roots[f.Root])
		if f.SRIOV != nil {
			line += fmt.Sprintf(", %d of %d VFs", len(f.SRIOV.VFs), f.SRIOV.TotalVFs)
		}
		if f.PhysicalFunction != topology.None {
			line += ", VF"
		}
		lines = append(lines, line)
	}
	return lines
}

// The layouts of these machines are in test/testbed/numa/machine.
func TestCapturedMachinesAreReadAsTheyWereLaidOut(t *testing.T) {
	for _, tc := range []struct {
		name               string
		isolated           string
		sockets, l3, cores string
		nodes, functions   []string
	}{
		{
			name:     "four-nodes",
			isolated: "18-19",
			sockets:  "0-11 12-23",
			l3:       "0-3 4-7 8-11 12-15 16-19 20-23",
			cores:    "0-1 2-3 4-5 6-7 8-9 10-11 12-13 14-15 16-17 18-19 20-21 22-23",
			nodes: []string{
				"0: CPUs 0-7, distances [10 12 21 21 17]",
				"1: CPUs 8-11, distances [12 10 21 21 19]",
				"2: CPUs 12-19, distances [21 21 10 12 28]",
				"3: CPUs 20-23, distances [21 21 12 10 28]",
				"4: CPUs , distances [17 19 28 28 10], nearest [0]",
			},
			functions: []string{
				"NVMe at node 0, pci0000:10, 2 of 2 VFs",
				"NVMe at node 0, pci0000:10, VF",
				"NVMe at node 0, pci0000:10, VF",
				"network at node 0, pci0000:10",
				"network at node 0, pci0000:10, 2 of 7 VFs",
				"network at node 0, pci0000:10, VF",
				"network at node 0, pci0000:10, VF",
				"NVMe at node 1, pci0000:20",
				"network at node 1, pci0000:20",
				"NVMe at node 2, pci0000:30",
				"network at node 2, pci0000:30",
				"NVMe at node 3, pci0000:40",
				"network at node 3, pci0000:40",
			},
		},
		{
			name:    "eight-nodes",
			sockets: "0-7 8-15",
			l3:      "0-1 2-3 4-5 6-7 8-9 10-11 12-13 14-15",
			cores:   "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
			nodes: []string{
				"0: CPUs 0-1, distances [10 12 12 12 32 32 32 32]",
				"1: CPUs 2-3, distances [12 10 12 12 32 32 32 32]",
				"2: CPUs 4-5, distances [12 12 10 12 32 32 32 32]",
				"3: CPUs 6-7, distances [12 12 12 10 32 32 32 32]",
				"4: CPUs 8-9, distances [32 32 32 32 10 12 12 12]",
				"5: CPUs 10-11, distances [32 32 32 32 12 10 12 12]",
				"6: CPUs 12-13, distances [32 32 32 32 12 12 10 12]",
				"7: CPUs 14-15, distances [32 32 32 32 12 12 12 10]",
			},
			functions: []string{
				"NVMe at node 0, pci0000:10",
				"network at node 1, pci0000:20",
				"NVMe at node 4, pci0000:50",
				"network at node 5, pci0000:60",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := topology.Discover(topologytest.Captured(tc.name))
			if err != nil {
				t.Fatal(err)
			}
			checkInvariants(t, m)
			if got := m.Isolated.String(); got != tc.isolated {
				t.Errorf("isolated CPUs %s, want %s", got, tc.isolated)
			}
			for _, part := range []struct{ name, want, got string }{
				{"sockets", tc.sockets, sets(m.Sockets)},
				{"L3 groups", tc.l3, sets(m.L3Groups)},
				{"cores", tc.cores, sets(m.Cores)},
				{"NUMA nodes", strings.Join(tc.nodes, "\n"), strings.Join(nodeFacts(m), "\n")},
				{"functions", strings.Join(tc.functions, "\n"), strings.Join(functionFacts(m), "\n")},
			} {
				if diff := cmp.Diff(part.want, part.got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", part.name, diff)
				}
			}
		})
	}
	if all := topologytest.CapturedMachines(); len(all) != 2 {
		t.Errorf("there are %v, of which 2 are looked at here", all)
	}
}

// The devices of one machine, by the addresses that its kernel gave them.
func TestDistancesOnACapturedMachine(t *testing.T) {
	m, err := topology.Discover(topologytest.Captured("four-nodes"))
	if err != nil {
		t.Fatal(err)
	}
	function := func(text string) topology.Place {
		t.Helper()
		a, err := topology.ParsePCIAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		return topology.AtPCI(a)
	}
	for _, tc := range []struct {
		name     string
		from, to topology.Place
		want     string
	}{
		{"two functions at one root", function("0000:11:00.0"), function("0000:12:00.0"), "same root"},
		{"a function and CPUs of its node", function("0000:11:00.0"), topology.AtCPUs(topology.NewCPUSet(4, 5)), "same NUMA node"},
		{"a function and the other node of its socket", function("0000:11:00.0"), topology.AtNUMANode(1), "same socket"},
		{"functions of two sockets", function("0000:11:00.0"), function("0000:41:00.0"), "other socket"},
		{"a function and memory without CPUs", function("0000:41:00.0"), topology.AtNUMANode(4), "other socket"},
	} {
		if got := m.Distance(tc.from, tc.to).Proximity.String(); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}
