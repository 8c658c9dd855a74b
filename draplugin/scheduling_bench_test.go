package draplugin

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/structured"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/snapshot"
	"github.com/topolet/topolet/topology/topologytest"
)

// kube-scheduler gives up after 10 seconds, and then the pod waits for its next try
// although other nodes may have room.
var searchLimit = flag.Duration("search-limit", time.Second, "when a benchmark gives up a search for devices; it counts how often")

// withGPUs is a machine of two sockets that has, spread evenly over its NUMA nodes,
// PCIe roots with a GPU and a network card each.
func withGPUs(numaPerSocket, l3PerNUMA, roots int) *topology.Machine {
	spec := topologytest.Spec{Sockets: 2, NUMAPerSocket: numaPerSocket, L3PerNUMA: l3PerNUMA, CoresPerL3: 8, Threads: 2}
	for i := range roots {
		spec.PCI = append(spec.PCI, topologytest.PCIRoot{
			Domain: uint32(i), NUMANode: i * spec.Sockets * numaPerSocket / roots,
			Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.GPU()), topologytest.Port(topologytest.NIC(0, 0))},
		})
	}
	return topologytest.New(spec)
}

func madeUpMachines() map[string]*topology.Machine {
	return map[string]*topology.Machine{
		"2 x 192 cores, 24 NUMA nodes, 16 GPUs": withGPUs(12, 2, 16),
		"2 x 64 cores, 2 NUMA nodes, 8 GPUs":    withGPUs(1, 8, 8),
	}
}

// largestRealMachines are the three with the most CPUs.
func largestRealMachines(t testing.TB) map[string]*topology.Machine {
	t.Helper()
	type machine struct {
		name  string
		model *topology.Machine
	}
	var all []machine
	for _, archive := range topologytest.RealMachines() {
		root, err := snapshot.Open(archive)
		if err != nil {
			t.Fatal(err)
		}
		m, err := topology.Discover(root)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, machine{strings.TrimSuffix(filepath.Base(archive), ".tar.gz"), m})
	}
	if len(all) == 0 {
		t.Log("the real machines are left out: shared/fixtures/topology is in no directory above this one")
	}
	slices.SortStableFunc(all, func(a, b machine) int { return cmp.Compare(len(b.model.CPUs), len(a.model.CPUs)) })
	largest := map[string]*topology.Machine{}
	for _, m := range all[:min(3, len(all))] {
		largest[m.name] = m.model
	}
	return largest
}

// pod is what a pod asks for on a machine of which others have something.
type pod struct {
	name string
	// left are the CPUs that others leave of a NUMA node, by its index, and gpus
	// how many GPUs they leave.
	left func(o *offer, node int) int
	gpus int
	asks func(*offer) []*resourceapi.ResourceClaim
	fits bool
	// explodes says that the allocator tries a number of combinations that grows
	// with the factorial of the requests.
	explodes bool
}

func everything(o *offer, node int) int { return o.nodes[node].CPUs.Size() }

// roomIn leaves 8 CPUs in the last NUMA nodes, and in the others not quite.
func roomIn(nodes int) func(*offer, int) int {
	return func(o *offer, node int) int {
		if node >= len(o.nodes)-nodes {
			return 8
		}
		return 6
	}
}

// besideLast leaves 8 CPUs beside the last 8 GPUs, and elsewhere not quite.
func besideLast(o *offer, node int) int {
	for _, gpu := range o.gpus[len(o.gpus)-8:] {
		if o.nodes[node].NUMANode() == nodeOf(gpu) {
			return 8
		}
	}
	return 6
}

func several(n int, cpus int64) func(*offer) []*resourceapi.ResourceClaim {
	return func(o *offer) []*resourceapi.ResourceClaim { return o.several(n, cpus) }
}

// cpuPods are for any machine of at least 4 NUMA nodes of 8 CPUs.
var cpuPods = []pod{
	{name: "8 CPUs of an empty machine", left: everything, asks: several(1, 8), fits: true},
	{name: "8 CPUs, room in the last node", left: roomIn(1), asks: several(1, 8), fits: true},
	{name: "8 CPUs, no room", left: roomIn(0), asks: several(1, 8)},
	{name: "24 CPUs, 22 left on each node", left: func(*offer, int) int { return 22 }, asks: several(1, 24)},
	{name: "4 times 8 CPUs of an empty machine", left: everything, asks: several(4, 8), fits: true},
	{name: "4 times 8 CPUs, room for 3", left: roomIn(3), asks: several(4, 8)},
}

// manyPods are for machines of at least 8 NUMA nodes.
var manyPods = []pod{
	{name: "8 times 8 CPUs, room for 8", left: roomIn(8), asks: several(8, 8), fits: true},
	{name: "8 times 8 CPUs, room for 7", left: roomIn(7), asks: several(8, 8), explodes: true},
}

func pairs(n int, parts ...string) func(*offer) []*resourceapi.ResourceClaim {
	return func(o *offer) []*resourceapi.ResourceClaim { return o.pairs(n, parts...) }
}

const allGPUs = 1 << 10

// pairPods are for machines of at least 8 GPUs.
var pairPods = []pod{
	{name: "4 pairs, CPUs first", gpus: allGPUs, left: everything, asks: pairs(4, partCPUs, partGPU, partNIC), fits: true},
	{name: "4 pairs, CPUs first, a GPU short", gpus: 3, left: everything, asks: pairs(4, partCPUs, partGPU, partNIC)},
	{name: "4 pairs, GPU first", gpus: allGPUs, left: everything, asks: pairs(4, partGPU, partNIC, partCPUs), fits: true},
	{name: "4 pairs, GPU first, a GPU short", gpus: 3, left: everything, asks: pairs(4, partGPU, partNIC, partCPUs)},
	{name: "8 pairs, CPUs first", gpus: allGPUs, left: everything, asks: pairs(8, partCPUs, partGPU, partNIC), fits: true},
	{name: "8 pairs, CPUs first, a GPU short", gpus: 7, left: everything, asks: pairs(8, partCPUs, partGPU, partNIC), explodes: true},
	{name: "8 pairs, GPU first", gpus: allGPUs, left: everything, asks: pairs(8, partGPU, partNIC, partCPUs), fits: true},
	{name: "8 pairs, GPU first, a GPU short", gpus: 7, left: everything, asks: pairs(8, partGPU, partNIC, partCPUs), explodes: true},
}

// manyNodesPods are for the machine of this name.
var manyNodesPods = []pod{
	{name: "8 pairs, GPU first, CPUs beside the last 8", gpus: allGPUs, left: besideLast, asks: pairs(8, partGPU, partNIC, partCPUs), fits: true},
}

// Other ways to write the same. There are no words for them where each CPU is a
// device.
var (
	countPods = []pod{
		{name: "count of 8 times 8 CPUs, room for 8", left: roomIn(8), asks: (*offer).counted, fits: true},
		{name: "count of 8 times 8 CPUs, room for 7", left: roomIn(7), asks: (*offer).counted},
		{name: "8 pairs, each kind apart, CPUs beside the last 8", gpus: allGPUs, left: besideLast, asks: (*offer).pairsApart, fits: true, explodes: true},
	}
	wholePods = []pod{
		{name: "8 pairs, each kind apart", gpus: allGPUs, left: everything, asks: (*offer).pairsApart, fits: true},
		{name: "8 pairs, each kind apart, a GPU short", gpus: 7, left: everything, asks: (*offer).pairsApart, explodes: true},
		{name: "all there is", gpus: allGPUs, left: everything, asks: (*offer).wholeMachine, fits: true},
		{name: "all there is, a GPU short", gpus: 7, left: everything, asks: (*offer).wholeMachine},
	}
	twoSocketPods = []pod{
		{name: "counts on one node", gpus: allGPUs, left: everything, asks: (*offer).halfMachine, fits: true},
		{name: "counts on one node, a GPU short", gpus: 3, left: everything, asks: (*offer).halfMachine},
	}
)

// pods are those that a machine has enough NUMA nodes and GPUs for.
func (o *offer) pods() []pod {
	var all []pod
	if len(o.nodes) >= 4 {
		all = append(all, cpuPods...)
	}
	if len(o.nodes) >= 8 {
		all = append(all, manyPods...)
	}
	if len(o.gpus) == 0 {
		return all
	}
	all = append(all, pairPods...)
	if len(o.nodes) >= 8 {
		all = append(all, manyNodesPods...)
	}
	switch {
	case o.perCPU:
		return all
	case len(o.nodes) >= 8:
		all = append(all, countPods...)
	default:
		all = append(all, twoSocketPods...)
	}
	return append(all, wholePods...)
}

// find has the scheduler's allocator look for a pod's devices. It returns nothing if
// they do not fit, and how often it looked for a next device.
func (o *offer) find(ctx context.Context, by implementation, used structured.AllocatedState, claims []*resourceapi.ResourceClaim) ([]resourceapi.AllocationResult, int64, error) {
	a, err := structured.NewAllocator(ctx, by.features, used, o, o.slices, by.cache)
	if err != nil {
		return nil, 0, err
	}
	found, err := a.Allocate(ctx, o.node, claims)
	// The type of the statistics has no name outside of the allocator's packages.
	stats := reflect.ValueOf(a).MethodByName("GetStats").Call(nil)[0]
	return found, stats.FieldByName("NumAllocateOneInvocations").Int(), err
}

// prepare returns what others have, and what the pod asks for.
func (p pod) prepare(t testing.TB, o *offer) (structured.AllocatedState, []*resourceapi.ResourceClaim) {
	t.Helper()
	o.leave(func(node int) int { return p.left(o, node) }, p.gpus)
	return o.allocated(), p.asks(o)
}

// machineOffers are the machines as topolet publishes them, in two ways.
func machineOffers(t testing.TB) map[string]*offer {
	t.Helper()
	machines := largestRealMachines(t)
	maps.Copy(machines, madeUpMachines())
	offers := map[string]*offer{}
	for name, m := range machines {
		offers[name+"/NUMA nodes"] = newOffer(t, m)
		offers[name+"/all levels"] = newOffer(t, m, furtherLevels...)
	}
	return offers
}

// BenchmarkScheduling measures how long the scheduler looks for a pod's devices on
// one node. For each pod it looks at all nodes until enough are found to choose from:
// some 400 in a cluster of 1,000.
func BenchmarkScheduling(b *testing.B) {
	offers := machineOffers(b)
	for _, name := range slices.Sorted(maps.Keys(offers)) {
		for i, by := range implementations {
			b.Run(name+"/"+by.name, func(b *testing.B) {
				for _, p := range offers[name].pods() {
					if i == 0 || !p.explodes { // one is enough to wait for
						b.Run(p.name, func(b *testing.B) { offers[name].bench(b, by, p) })
					}
				}
			})
		}
	}
	for name, m := range madeUpMachines() {
		o := newPerCPUOffer(b, m)
		for _, p := range o.pods() {
			b.Run(name+"/a device for each CPU/"+implementations[0].name+"/"+p.name, func(b *testing.B) { o.bench(b, implementations[0], p) })
		}
	}
}

func (o *offer) bench(b *testing.B, by implementation, p pod) {
	used, claims := p.prepare(b, o)
	var steps, givenUp int64
	for b.Loop() {
		n, finished := o.findOnce(b, by, p, used, claims)
		steps += n
		if !finished {
			givenUp++
		}
	}
	b.ReportMetric(float64(steps)/float64(b.N), "steps/op")
	if givenUp > 0 {
		b.ReportMetric(float64(givenUp)/float64(b.N), "given-up/op")
	}
}

// findOnce returns the steps, and whether the search ended by itself.
func (o *offer) findOnce(b *testing.B, by implementation, p pod, used structured.AllocatedState, claims []*resourceapi.ResourceClaim) (int64, bool) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), *searchLimit)
	defer cancel()
	found, steps, err := o.find(ctx, by, used, claims)
	if errors.Is(err, context.DeadlineExceeded) {
		return steps, false
	}
	if err != nil {
		b.Fatal(err)
	}
	if (len(found) > 0) != p.fits {
		b.Fatalf("found %v", found)
	}
	return steps, true
}

// What the benchmark measures must be what it says it is. And no search but those
// known for it may become long.
func TestThePodsOfTheBenchmarkGetWhatTheyAskFor(t *testing.T) {
	const manySteps = 2000
	offers := machineOffers(t)
	offers["a device for each CPU"] = newPerCPUOffer(t, withGPUs(1, 8, 8))
	for name, o := range offers {
		for _, p := range o.pods() {
			if p.explodes || o.perCPU && (!p.fits || strings.Contains(p.name, "CPUs first")) {
				continue
			}
			for _, by := range implementations {
				used, claims := p.prepare(t, o)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a mistake may make it endless
				found, steps, err := o.find(ctx, by, used, claims)
				cancel()
				if err != nil {
					t.Fatalf("%s, %s, %s: %v", name, p.name, by.name, err)
				}
				if fits := len(found) > 0; fits != p.fits || steps > manySteps {
					t.Errorf("%s, %s, %s: found %t, want %t, after %d steps", name, p.name, by.name, fits, p.fits, steps)
				}
				for _, result := range found {
					o.checkPairs(t, p.name, result.Devices.Results)
				}
			}
		}
	}
}

// checkPairs wants what one number is in the request's name of on one NUMA node.
func (o *offer) checkPairs(t *testing.T, pod string, results []resourceapi.DeviceRequestAllocationResult) {
	t.Helper()
	nodes := map[string]int{}
	for _, r := range results {
		_, pair, paired := strings.Cut(r.Request, "-")
		node := o.nodeOf(r)
		if before, seen := nodes[pair]; paired && seen && before != node {
			t.Errorf("%s: %s is on NUMA node %d, the rest of its pair on %d", pod, r.Request, node, before)
		}
		nodes[pair] = node
	}
}
