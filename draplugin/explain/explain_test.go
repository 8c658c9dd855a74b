package explain

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/examples"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func init() { klog.SetLogger(klog.Logger{}) }

var update = flag.Bool("update", false, "write the answers in testdata anew")

// fourNodes is a machine of four NUMA nodes on two sockets, each of two L3 groups of
// four cores with two threads.
var fourNodes = topologytest.New(topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 2, CoresPerL3: 4, Threads: 2})

func nodeOf(m *topology.Machine, levels ...allocator.Level) Node {
	return Node{Name: "node-7", Machine: m, Policy: allocator.Policy{
		ReservedCPUs: allocator.DefaultReserved(m), ReservedMemory: allocator.Reserve{Percent: 10}, Levels: levels,
	}}
}

// holding is the node with a grant of some CPUs of a device.
func (n Node) holding(name, device, cpus string) Node {
	set, err := topology.ParseCPUSet(cpus)
	if err != nil {
		panic(err)
	}
	n.Grants = append(n.Grants, allocator.Grant{
		Claim: allocator.Claim{UID: allocator.ClaimUID(name), Namespace: "prod", Name: name},
		Parts: []allocator.Part{{Request: allocator.Request{Name: "cpus", Domain: device, Share: "share-" + name, Count: set.Size()}, CPUs: set}},
	})
	return n
}

func read(t testing.TB, files ...string) []Object {
	t.Helper()
	var objects []Object
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		some, err := Read(filepath.Base(file), f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, some...)
	}
	return objects
}

func explain(t testing.TB, n Node, objects []Object) Answer {
	t.Helper()
	answer, err := Explain(t.Context(), n, objects)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestAnswers(t *testing.T) {
	empty := nodeOf(fourNodes)
	// Of node 0 two cores are left, of node 1 six, of node 2 three, of node 3 all.
	busy := empty.holding("web", "numa-0", "1-5,33-37").holding("db", "numa-1", "8-9,40-41").holding("cache", "numa-2", "16-20,48-52")
	withGPU := empty
	for _, o := range read(t, "testdata/gpu-slices.yaml") {
		withGPU.Others = append(withGPU.Others, o.Value.(*resourceapi.ResourceSlice))
	}
	captured, err := topology.Discover(topologytest.Captured("four-nodes"))
	if err != nil {
		t.Fatal(err)
	}
	var some []string
	for _, name := range []string{"cpu-config", "memory", "numa-aligned", "shared-claim", "two-claims", "whole-cores"} {
		some = append(some, "../../deploy/examples/"+name+".yaml")
	}
	for name, test := range map[string]struct {
		node  Node
		files []string
	}{
		"fits":                 {empty, []string{"testdata/fits.yaml"}},
		"fits-beside-others":   {busy, []string{"testdata/fits.yaml", "testdata/wide.yaml"}},
		"too-many":             {busy, []string{"testdata/large.yaml"}},
		"classes":              {empty, []string{"testdata/classes.yaml"}},
		"constraint":           {empty, []string{"testdata/constraint.yaml"}},
		"pod":                  {empty, []string{"testdata/pod.yaml"}},
		"other-driver-unknown": {empty, []string{"testdata/gpu.yaml"}},
		"other-driver-known":   {withGPU, []string{"testdata/gpu.yaml"}},
		"levels":               {nodeOf(fourNodes, allocator.L3Level, allocator.MachineLevel), []string{"testdata/level.yaml"}},
		"held-already":         {empty.holding("wide", "numa-0", "1-2,33-34"), []string{"testdata/wide.yaml"}},
		"offline":              {nodeOf(topologytest.New(topologytest.Spec{CoresPerL3: 4, Threads: 2, Offline: "3,7"})).holding("web", "numa-0", "3,7"), []string{"testdata/fits.yaml"}},
		"examples":             {nodeOf(captured), some},
	} {
		t.Run(name, func(t *testing.T) {
			answer := explain(t, test.node, read(t, test.files...))
			var out bytes.Buffer
			if err := answer.WriteText(&out); err != nil {
				t.Fatal(err)
			}
			golden(t, name, out.Bytes())
			for line := range strings.Lines(out.String()) {
				if strings.TrimRight(line, " \n") != strings.TrimSuffix(line, "\n") {
					t.Errorf("white space at the end of %q", line)
				}
			}
			data, err := json.Marshal(answer)
			if err != nil {
				t.Fatal(err)
			}
			var back Answer
			if err := json.Unmarshal(data, &back); err != nil {
				t.Errorf("as JSON: %v", err)
			}
		})
	}
}

// golden compares with a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("-want +got (go test -update writes it anew):\n%s", diff)
	}
}

func TestTheExamplesFit(t *testing.T) {
	m, err := topology.Discover(topologytest.Captured("four-nodes"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := examples.Read("../../deploy/examples")
	if err != nil {
		t.Fatal(err)
	}
	node := nodeOf(m, allocator.L3Level, allocator.SocketLevel)
	ledger, err := node.ledger()
	if err != nil {
		t.Fatal(err)
	}
	fit := 0
	for _, e := range all {
		answer, err := Explain(t.Context(), node, read(t, e.File))
		switch lacks := e.Lacks(draplugin.Slices(ledger, node.Name)); {
		case len(e.Claims) == 0:
			if err == nil || !strings.Contains(err.Error(), "no ResourceClaim") {
				t.Errorf("%s: %v", e.Name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", e.Name, err)
		case lacks != "":
			if answer.Claims[0].Verdict == Fits {
				t.Errorf("%s fits although the machine lacks %s", e.Name, lacks)
			}
		case answer.Err() != nil || answer.Claims[0].Verdict != Fits:
			t.Errorf("%s: %v", e.Name, answer)
		default:
			fit++
		}
	}
	if fit < 10 {
		t.Errorf("only %d examples fit", fit)
	}
}

func TestMistakesInFiles(t *testing.T) {
	const head = "apiVersion: resource.k8s.io/v1\nkind: ResourceClaim\nmetadata: {name: c}\n"
	request := func(text string) string {
		return head + "spec: {devices: {requests: [{name: cpus, exactly: {" + text + "}}]}}\n"
	}
	const class = "deviceClassName: cpu.topolet.dev"
	for name, test := range map[string]struct {
		text string
		said []string
	}{
		"no YAML":                       {"\t", []string{"f.yaml, document 1", "not YAML"}},
		"a key twice":                   {head + head, []string{"not YAML", `"apiVersion" already set`}},
		"no object":                     {"- a\n", []string{"f.yaml, document 1", "not a Kubernetes object"}},
		"the second document":           {head + "spec: {devices: {requests: [{name: a, exactly: {" + class + "}}]}}\n---\nkind: Pod\n", []string{"document 2", "Pod: apiVersion", "use v1"}},
		"no kind":                       {"metadata: {name: c}", []string{"c: kind", "such as ResourceClaim"}},
		"an old version":                {strings.Replace(head, "/v1", "/v1beta1", 1), []string{"ResourceClaim c: apiVersion", `"resource.k8s.io/v1beta1"`, "use resource.k8s.io/v1"}},
		"no name":                       {"apiVersion: v1\nkind: Pod\n", []string{"Pod: metadata.name"}},
		"a field that does not exist":   {request(class + ", capcity: {}"), []string{"spec.devices.requests[0].exactly.capcity", "no such field", "spelling"}},
		"a field in other letters":      {request("deviceclassname: a"), []string{"exactly.deviceclassname", "capitals"}},
		"a value of another type":       {request(class + `, count: "2"`), []string{"spec.devices.requests", "count", `"string"`, "a number"}},
		"a number in place of a text":   {head + "spec: {devices: {requests: [{name: 1}]}}", []string{"spec.devices.requests", "name", `"number"`, "quotes"}},
		"a quantity that is none":       {request(class + ", capacity: {requests: {topolet.dev/cpus: four}}"), []string{"spec.devices.requests[0].exactly.capacity.requests[topolet.dev/cpus]", `"four"`, "write a number"}},
		"less than nothing":             {request(class + ", capacity: {requests: {topolet.dev/cpus: -4}}"), []string{"capacity.requests[topolet.dev/cpus]", `"-4"`, "more than nothing"}},
		"no requests":                   {head + "spec: {devices: {}}", []string{"spec.devices.requests", "at least one"}},
		"no class":                      {request(""), []string{"spec.devices.requests[0].exactly.deviceClassName", "such as cpu.topolet.dev"}},
		"no such mode":                  {request(class + ", allocationMode: Most"), []string{"allocationMode", `"Most"`, "ExactCount or All"}},
		"a count with all":              {request(class + ", allocationMode: All, count: 2"), []string{"count", `"2"`, "leave it out"}},
		"CPUs as the count":             {request(class + ", count: 40"), []string{"exactly.count", `"40"`, "1 to 32", "capacity.requests"}},
		"a selector of nothing":         {request(class + ", selectors: [{}]"), []string{"selectors[0].cel", "expression"}},
		"neither exactly nor the other": {head + "spec: {devices: {requests: [{name: a}]}}", []string{"spec.devices.requests[0]", "either exactly or firstAvailable"}},
		"two requests of a name":        {head + "spec: {devices: {requests: [{name: a, exactly: {" + class + "}}, {name: a, exactly: {" + class + "}}]}}", []string{"requests[1].name", `"a"`, "of its own"}},
		"a constraint of nobody":        {head + "spec: {devices: {requests: [{name: a, exactly: {" + class + "}}], constraints: [{matchAttribute: x/y, requests: [b]}]}}", []string{"spec.devices.constraints[0].requests[0]", `"b"`, "requests: a"}},
		"a constraint of nothing":       {head + "spec: {devices: {requests: [{name: a, exactly: {" + class + "}}], constraints: [{}]}}", []string{"constraints[0]", "matchAttribute or distinctAttribute"}},
		"a configuration of nothing":    {head + "spec: {devices: {requests: [{name: a, exactly: {" + class + "}}], config: [{}]}}", []string{"config[0].opaque", "driver and parameters"}},
		"a pod's claim of nothing":      {"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [], resourceClaims: [{name: a}]}", []string{"Pod p: spec.resourceClaims[0]", "either"}},
		"a list with a mistake":         {"apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod}]", []string{"document 1, item 1", "metadata.name"}},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := Read("f.yaml", strings.NewReader(test.text))
			if err == nil {
				t.Fatalf("no error; read %v", objects)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has more than one line: %v", err)
			}
			for _, part := range test.said {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
		})
	}
}

func TestMistakesInTheQuestion(t *testing.T) {
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [], resourceClaims: [{name: a, %s: none}]}"
	for name, test := range map[string]struct {
		node Node
		text string
		said []string
	}{
		"no claims":            {nodeOf(fourNodes), "# nothing\n", []string{"no ResourceClaim"}},
		"no template":          {nodeOf(fourNodes), fmt.Sprintf(pod, "resourceClaimTemplateName"), []string{"f.yaml, document 1: Pod p: spec.resourceClaims[0].resourceClaimTemplateName", `"none"`, "give the file"}},
		"no claim of the name": {nodeOf(fourNodes), fmt.Sprintf(pod, "resourceClaimName"), []string{"resourceClaimName", `"none"`, "namespace default"}},
		"grants of another machine": {nodeOf(fourNodes).holding("web", "l3-9", "1"), "apiVersion: resource.k8s.io/v1\nkind: ResourceClaim\nmetadata: {name: c}\n" +
			"spec: {devices: {requests: [{name: a, exactly: {deviceClassName: cpu.topolet.dev}}]}}", []string{"prod/web", "l3-9", "of the same node"}},
		"everything reserved elsewhere": {Node{Name: "n", Machine: fourNodes, Policy: allocator.Policy{ReservedCPUs: topology.NewCPUSet(900)}}, "apiVersion: resource.k8s.io/v1\nkind: ResourceClaim\nmetadata: {name: c}\n" +
			"spec: {devices: {requests: [{name: a, exactly: {deviceClassName: cpu.topolet.dev}}]}}", []string{"reserve at least one"}},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := Read("f.yaml", strings.NewReader(test.text))
			if err != nil {
				t.Fatal(err)
			}
			_, err = Explain(t.Context(), test.node, objects)
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range test.said {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
		})
	}
}

// asking is a claim for so many CPUs of a level.
func asking(name string, level allocator.Level, cpus int64) Object {
	class := "cpu.topolet.dev"
	if level != allocator.NUMALevel {
		class = "cpu-" + string(level) + ".topolet.dev"
	}
	claim := &resourceapi.ResourceClaim{}
	claim.Namespace, claim.Name = "default", name
	claim.Spec.Devices.Requests = []resourceapi.DeviceRequest{{Name: "cpus", Exactly: &resourceapi.ExactDeviceRequest{
		DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1,
		Capacity: &resourceapi.CapacityRequirements{Requests: map[resourceapi.QualifiedName]resource.Quantity{
			draplugin.CapacityCPUs: *resource.NewQuantity(cpus, resource.DecimalSI),
		}},
	}}}
	return Object{From: "test", Kind: "ResourceClaim", Name: name, Value: claim}
}

// What is said to be nearest fits, one core more does not, and no device is said to
// have more. What is said to fit has its CPUs to itself.
func TestTheNearestFits(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8)) //nolint:gosec // a seed makes it repeatable
	refused := 0
	for range 60 {
		m := topologytest.New(topologytest.Spec{
			Sockets: 1 + random.IntN(2), NUMAPerSocket: 1 + random.IntN(2), L3PerNUMA: 1 + random.IntN(2),
			CoresPerL3: 2 + random.IntN(4), Threads: 1 + random.IntN(2),
		})
		levels := []allocator.Level{allocator.NUMALevel}
		if random.IntN(2) == 0 {
			levels = append(levels, allocator.L3Level, allocator.MachineLevel)
		}
		n := nodeOf(m, levels[1:]...)
		var objects []Object
		for i := range 12 {
			level := levels[random.IntN(len(levels))]
			objects = append(objects, asking("c"+strconv.Itoa(i), level, int64(1+random.IntN(m.Online.Size()/len(m.NUMANodes)+2))))
			answer := explain(t, n, objects)
			last := answer.Claims[i]
			checkDisjoint(t, answer)
			if last.Verdict == Fits {
				continue
			}
			refused++
			objects = objects[:i]
			checkNearest(t, n, objects, last.Refusals[0], level, m.Cores[0].CPUs.Size())
			objects = append(objects, asking("c"+strconv.Itoa(i), level, 1)) // in its place
			if explain(t, n, objects).Claims[i].Verdict != Fits {
				break // full
			}
		}
	}
	if refused < 60 {
		t.Errorf("%d claims were refused: the test asks for too little", refused)
	}
}

func checkDisjoint(t *testing.T, a Answer) {
	t.Helper()
	var taken topology.CPUSet
	for _, c := range a.Claims {
		for _, r := range c.Requests {
			if r.CPUs.Intersects(taken) || r.Choice == nil || !r.Choice.CPUs.Equals(r.CPUs) {
				t.Fatalf("claim %s has CPUs %s, which others have or nothing explains", c.Name, r.CPUs)
			}
			taken = taken.Union(r.CPUs)
		}
	}
}

func checkNearest(t *testing.T, n Node, before []Object, refusal Refusal, level allocator.Level, step int) {
	t.Helper()
	most := 0
	for _, d := range refusal.Devices {
		var free, of int
		if _, err := fmt.Sscanf(d.Reason, "%d of %d CPU", &free, &of); err == nil {
			most = max(most, free)
		}
	}
	nearest := 0
	if len(refusal.Nearest) > 0 {
		var err error
		if nearest, err = strconv.Atoi(refusal.Nearest[0].Value); err != nil {
			t.Fatal(err)
		}
	}
	if nearest != most {
		t.Fatalf("the nearest is said to be %d CPUs, and the devices to have %d: %+v", nearest, most, refusal)
	}
	fits := func(cpus int) bool {
		answer := explain(t, n, append(slices.Clip(before), asking("again", level, int64(cpus))))
		return answer.Claims[len(before)].Verdict == Fits
	}
	if nearest > 0 && !fits(nearest) || fits(nearest+step) {
		t.Fatalf("%d CPUs are said to be the most that fits: %+v", nearest, refusal)
	}
}

// Whatever is read without an error can be answered.
func FuzzExplain(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	n := nodeOf(topologytest.New(topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 3, Threads: 2}))
	f.Fuzz(func(t *testing.T, text []byte) {
		objects, err := Read("f.yaml", bytes.NewReader(text))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has more than one line: %q", err)
			}
			return
		}
		n := n
		for _, o := range objects {
			if slice, ok := o.Value.(*resourceapi.ResourceSlice); ok {
				n.Others = append(n.Others, slice)
			}
		}
		answer, err := Explain(t.Context(), n, objects)
		if err != nil {
			return
		}
		if err := answer.WriteText(&bytes.Buffer{}); err != nil {
			t.Error(err)
		}
	})
}
