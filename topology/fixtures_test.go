package topology_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/render"
	"github.com/topolet/topolet/topology/topologytest"
)

// oracle is what is certain about a machine of the collection.
type oracle struct {
	OnlineCPUs   string   `json:"onlineCPUs"`
	Sockets      []string `json:"sockets"`
	Dies         []string `json:"dies"`
	Clusters     []string `json:"clusters"`
	Cores        []string `json:"cores"`
	L2Groups     []string `json:"l2Groups"`
	L3Groups     []string `json:"l3Groups"`
	IsolatedCPUs *string  `json:"isolatedCPUs"`
	NohzFullCPUs *string  `json:"nohzFullCPUs"`
	Skip         []string `json:"skip"`
	CoreTypes    *struct{ Performance, Efficiency, Any string }
	// CoreTypesOptional accepts standard cores where CoreTypes tells more.
	CoreTypesOptional bool
	NUMANodes         []oracleNode     `json:"numaNodes"`
	PCIDevices        []oracleFunction `json:"pciDevices"`
}

type oracleNode struct {
	ID          int
	CPUs        string
	MemoryBytes *uint64
	Distances   []int
}

// oracleFunction is a PCI function; nil is what the machine does not say.
type oracleFunction struct {
	Address  string
	Class    *string
	Vendor   *string
	Device   *string
	NUMANode *int
	CPUs     *string `json:"localCpulist"`
	PCIeRoot *string
}

// answer is the JSON of a machine, read without the types that wrote it.
type answer struct {
	OnlineCPUs   string           `json:"onlineCPUs"`
	IsolatedCPUs string           `json:"isolatedCPUs"`
	NohzFullCPUs string           `json:"nohzFullCPUs"`
	CPUs         []map[string]any `json:"cpus"`
	NUMANodes    []oracleNode     `json:"numaNodes"`
	PCIDevices   []struct {
		oracleFunction
		CPUs *string
	} `json:"pciDevices"`
}

func TestRealMachinesAreReadAsTheyAre(t *testing.T) {
	t.Parallel()
	archives := topologytest.RealMachines()
	if len(archives) == 0 {
		t.Skip("no collection of machines: shared/fixtures/topology is in no directory above this one, or is empty")
	}
	for _, archive := range archives {
		name := strings.TrimSuffix(filepath.Base(archive), ".tar.gz")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := discoverArchive(t, archive)
			checkInvariants(t, m)
			var want oracle
			text, err := os.ReadFile(strings.TrimSuffix(archive, ".tar.gz") + ".json")
			if err != nil {
				t.Fatal(err)
			}
			unmarshal(t, text, &want)
			var out bytes.Buffer
			if err := render.JSON(&out, m); err != nil {
				t.Fatal(err)
			}
			var got answer
			unmarshal(t, out.Bytes(), &got)
			compare(t, got, want)
		})
	}
}

func discoverArchive(t testing.TB, archive string) *topology.Machine {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, err := topologytest.Untar(f)
	if err != nil {
		t.Fatal(err)
	}
	m, err := topology.Discover(tree)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func unmarshal(t *testing.T, text []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
}

func compare(t *testing.T, got answer, want oracle) {
	t.Helper()
	certain := func(field string) bool { return !slices.Contains(want.Skip, field) }
	check := func(field string, got, want any) {
		t.Helper()
		if diff := cmp.Diff(want, got); certain(field) && diff != "" {
			t.Errorf("%s (-want +got):\n%s", field, diff)
		}
	}
	check("onlineCPUs", got.OnlineCPUs, want.OnlineCPUs)
	if want.IsolatedCPUs != nil {
		check("isolatedCPUs", got.IsolatedCPUs, *want.IsolatedCPUs)
	}
	if want.NohzFullCPUs != nil {
		check("nohzFullCPUs", got.NohzFullCPUs, *want.NohzFullCPUs)
	}
	for field, groups := range map[string][]string{
		"socket": want.Sockets, "die": want.Dies, "cluster": want.Clusters,
		"core": want.Cores, "l2": want.L2Groups, "l3": want.L3Groups,
	} {
		slices.Sort(groups)
		check(field, got.groups(field), groups)
	}
	if certain("cpus.coreType") {
		compareCoreTypes(t, got, want)
	}
	check("pciDevices", got.functions(certain("pciDevices.cpus")), want.PCIDevices)
	if want.NUMANodes == nil {
		check("numaNodes", got.NUMANodes, []oracleNode{})
		return
	}
	if certain("cpus.numaNode") {
		byNode := map[string]string{}
		for _, node := range want.NUMANodes {
			if node.CPUs != "" {
				byNode[fmt.Sprint(node.ID)] = node.CPUs
			}
		}
		check("cpus.numaNode", got.byLabel("numaNode"), byNode)
	}
	compareNodes(t, got.NUMANodes, want.NUMANodes, certain)
}

func compareNodes(t *testing.T, got, want []oracleNode, certain func(string) bool) {
	t.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	for i := range got {
		if i >= len(want) {
			break
		}
		if !certain("numaNodes.cpus") {
			got[i].CPUs, want[i].CPUs = "", ""
		}
		if !certain("numaNodes.memoryBytes") || want[i].MemoryBytes == nil {
			got[i].MemoryBytes, want[i].MemoryBytes = nil, nil
		}
		if !certain("numaNodes.distances") || want[i].Distances == nil {
			got[i].Distances, want[i].Distances = nil, nil
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("numaNodes (-want +got):\n%s", diff)
	}
}

func compareCoreTypes(t *testing.T, got answer, want oracle) {
	t.Helper()
	types := got.byLabel("coreType")
	standard := map[string]string{"standard": got.OnlineCPUs}
	if (want.CoreTypes == nil || want.CoreTypesOptional) && cmp.Equal(types, standard) {
		return
	}
	if want.CoreTypes == nil {
		t.Errorf("coreType: got %v, want %v", types, standard)
		return
	}
	anything := parse(t, want.CoreTypes.Any)
	for kind, cpus := range map[string]string{
		"performance": want.CoreTypes.Performance, "efficiency": want.CoreTypes.Efficiency,
	} {
		gotCPUs := parse(t, types[kind]).Difference(anything)
		if wantCPUs := parse(t, cpus).Difference(anything); !gotCPUs.Equals(wantCPUs) {
			t.Errorf("coreType %s: got %s, want %s", kind, gotCPUs, wantCPUs)
		}
	}
}

// byLabel returns the CPUs of each value of a field.
func (a answer) byLabel(field string) map[string]string {
	ids := map[string][]int{}
	for _, cpu := range a.CPUs {
		if v, ok := cpu[field]; ok && v != nil {
			ids[fmt.Sprint(v)] = append(ids[fmt.Sprint(v)], int(cpu["id"].(float64)))
		}
	}
	lists := map[string]string{}
	for label, cpus := range ids {
		lists[label] = topology.NewCPUSet(cpus...).String()
	}
	return lists
}

// groups returns the CPU lists of a field without their labels; nil for none.
func (a answer) groups(field string) []string {
	var lists []string
	for _, list := range a.byLabel(field) {
		lists = append(lists, list)
	}
	slices.Sort(lists)
	return lists
}

// functions returns the PCI functions as an oracle has them.
func (a answer) functions(withCPUs bool) []oracleFunction {
	functions := []oracleFunction{}
	for _, d := range a.PCIDevices {
		f := d.oracleFunction
		f.CPUs = nil
		if withCPUs {
			f.CPUs = d.CPUs
		}
		functions = append(functions, f)
	}
	return functions
}

func parse(t testing.TB, list string) topology.CPUSet {
	t.Helper()
	set, err := topology.ParseCPUSet(list)
	if err != nil {
		t.Fatal(err)
	}
	return set
}
