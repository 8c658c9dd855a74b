package draplugin

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// withMemory has two NUMA nodes of 10 GiB with CPUs, with huge pages in 3 GiB of
// them, and one without.
var withMemory = topologytest.Spec{
	NUMAPerSocket: 2, CoresPerL3: 4, Threads: 2, NUMAMemory: 10 << 30, MemoryOnly: []int{5},
	Hugepages: []topology.Hugepages{{SizeBytes: 2 << 20, Total: 512}, {SizeBytes: 1 << 30, Total: 2}},
}

func TestMemoryDevices(t *testing.T) {
	r := newRig(t, withMemory)
	var got []string
	for _, d := range Devices(r.ledger.Inventory(), Publication{})[2:] {
		got = append(got, picture(d))
	}
	want := []string{
		"memory-numa-0 cpuNUMANode=0, family=memory, hugepages1Gi:2Gi default 0 from 0 by 1Gi, hugepages2Mi:1Gi default 0 from 0 by 2Mi, memory:7Gi default 0 from 0 by 1Mi, memoryOnly=false, resource.kubernetes.io/numaNode=0",
		"memory-numa-1 cpuNUMANode=1, family=memory, hugepages1Gi:2Gi default 0 from 0 by 1Gi, hugepages2Mi:1Gi default 0 from 0 by 2Mi, memory:7Gi default 0 from 0 by 1Mi, memoryOnly=false, resource.kubernetes.io/numaNode=1",
		// Both nodes with CPUs are equally near.
		"memory-numa-5 family=memory, memory:10Gi default 0 from 0 by 1Mi, memoryOnly=true, resource.kubernetes.io/numaNode=5",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

// memoryResult is a result as the scheduler writes it.
func memoryResult(device string, consumed map[resourceapi.QualifiedName]string) resourceapi.DeviceRequestAllocationResult {
	result := resourceapi.DeviceRequestAllocationResult{
		Request: "memory", Driver: DriverName, Pool: nodeName, Device: device,
		ShareID: ptr.To(types.UID("share-" + device)),
	}
	for name, amount := range consumed {
		if result.ConsumedCapacity == nil {
			result.ConsumedCapacity = map[resourceapi.QualifiedName]resource.Quantity{}
		}
		result.ConsumedCapacity[name] = resource.MustParse(amount)
	}
	return result
}

func TestConsumedMemory(t *testing.T) {
	type capacities = map[resourceapi.QualifiedName]string
	for _, tc := range []struct {
		name     string
		consumed capacities
		want     []allocator.Pages
		said     string
	}{
		{name: "all kinds, the smallest pages first", consumed: capacities{"topolet.dev/hugepages1Gi": "1Gi", CapacityMemory: "5Mi", "topolet.dev/hugepages2Mi": "4Mi"},
			want: []allocator.Pages{{Bytes: 5 << 20}, {SizeBytes: 2 << 20, Bytes: 4 << 20}, {SizeBytes: 1 << 30, Bytes: 1 << 30}}},
		{name: "what is not asked for is left out", consumed: capacities{CapacityMemory: "0", "topolet.dev/hugepages2Mi": "2Mi"},
			want: []allocator.Pages{{SizeBytes: 2 << 20, Bytes: 2 << 20}}},
		{name: "nothing", consumed: capacities{CapacityMemory: "0"}},
		{name: "what is not ours", consumed: capacities{CapacityMemory: "0", "topolet.dev/hugepagesMany": "1", "example.com/memory": "1Gi"}},
		{name: "less than nothing", consumed: capacities{CapacityMemory: "-1"}, said: `consumedCapacity[topolet.dev/memory]: "-1" is not valid`},
		{name: "more than a number holds", consumed: capacities{CapacityMemory: "16E"}, said: "ask for a number of bytes"},
		{name: "no capacities at all", said: "DRAConsumableCapacity must be on"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := consumedMemory(memoryResult("memory-numa-0", tc.consumed), "results[0]")
			if (err != nil) != (tc.said != "") || err != nil && !strings.Contains(err.Error(), tc.said) {
				t.Fatalf("the error is %v, want %q", err, tc.said)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestAClaimForCPUsAndMemoryOfOneNode(t *testing.T) {
	r := newRig(t, withMemory)
	s := newScheduler(t, r)
	both := asking("both", true, wish{cpus: 8, count: 1}, wish{count: 1, memory: 6 << 30, huge: 3 << 20})
	if !s.allocate(t, both) {
		t.Fatal("refused")
	}
	devices := r.mustPrepare(t, s.claims["both"])
	g := r.ledger.Grants()[0]
	want := []allocator.Pages{{Bytes: 6 << 30}, {SizeBytes: 2 << 20, Bytes: 4 << 20}}
	if diff := cmp.Diff(want, g.Parts[1].Memory); diff != "" {
		t.Errorf("memory (-want +got):\n%s", diff)
	}
	// Node 0 has fewer than 8 CPUs to give.
	if g.CPUs().String() != "4-7,12-15" || !cmp.Equal(g.Parts[1].MemoryNodes, []int{1}) {
		t.Errorf("got CPUs %s and memory of nodes %v", g.CPUs(), g.Parts[1].MemoryNodes)
	}
	if got := devices[1].Metadata.Attributes["resource.kubernetes.io/numaNode"].IntValue; got == nil || *got != 1 {
		t.Errorf("the metadata of the memory are %v", devices[1].Metadata)
	}
	spec := r.disk(t)[specName("both")]
	for _, line := range []string{`"TOPOLET_CPUS_BOTH_R0=4-7,12-15"`, `"TOPOLET_MEMORY_NODES_BOTH_R1=1"`} {
		if !strings.Contains(spec, line) {
			t.Errorf("the CDI spec lacks %s: %s", line, spec)
		}
	}
	for name, claim := range map[string]*resourceapi.ResourceClaim{
		"more than the node has left":     asking("more", true, wish{cpus: 2, count: 1}, wish{count: 1, memory: 8 << 30}),
		"huge pages that no node has":     asking("huge", false, wish{count: 1, huge: 2 << 30}),
		"CPUs beside memory without CPUs": asking("far", true, wish{cpus: 2, count: 1}, wish{count: 1, memory: 9 << 30}),
	} {
		if s.allocate(t, claim) {
			t.Errorf("the scheduler allocates %s", name)
		}
	}
	if !s.allocate(t, asking("far", false, wish{count: 1, memory: 9 << 30})) {
		t.Error("the scheduler refuses the memory without CPUs")
	}
}

func TestAttributesWithSeveralValues(t *testing.T) {
	spec := withMemory
	spec.PCI = []topologytest.PCIRoot{
		{Bus: 0x10, NUMANode: 0, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.NVMe())}},
		{Bus: 0x20, NUMANode: 0, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.NIC(8, 0))}},
		{Bus: 0x80, NUMANode: 1, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.GPU())}},
	}
	m := topologytest.New(spec)
	r := newRigOn(t, m, allocator.Policy{ReservedCPUs: allocator.DefaultReserved(m), Levels: []allocator.Level{allocator.SocketLevel}})
	for _, tc := range []struct {
		lists bool
		want  map[string]string
	}{
		{false, map[string]string{"numa-0": "0 ", "numa-1": "1 pci0000:80", "socket-0": " "}},
		{true, map[string]string{"numa-0": "0 [pci0000:10 pci0000:20]", "numa-1": "1 pci0000:80", "socket-0": "[0 1] [pci0000:10 pci0000:20 pci0000:80]"}},
	} {
		got := map[string]string{}
		for _, d := range Devices(r.ledger.Inventory(), Publication{Lists: tc.lists}) {
			if !allocator.IsMemory(d.Name) {
				got[d.Name] = valueOf(d.Attributes["resource.kubernetes.io/numaNode"]) + " " + valueOf(d.Attributes["resource.kubernetes.io/pcieRoot"])
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("lists %v (-want +got):\n%s", tc.lists, diff)
		}
	}
}

func TestWhatTheSchedulerCountsAsRequested(t *testing.T) {
	r := newRig(t, withMemory)
	got := map[string]string{}
	for _, d := range Devices(r.ledger.Inventory(), Publication{NodeAllocatable: true}) {
		for name, counted := range d.NodeAllocatableResources {
			got[d.Name+" "+string(name)] = string(*counted.Mapping.CapacityKey) + " x " + counted.Mapping.CapacityMultiplier.String()
		}
	}
	want := map[string]string{
		"numa-0 cpu": "topolet.dev/cpus x 1", "numa-1 cpu": "topolet.dev/cpus x 1",
		"memory-numa-5 memory": "topolet.dev/memory x 1",
	}
	for _, node := range []string{"0", "1"} {
		want["memory-numa-"+node+" memory"] = "topolet.dev/memory x 1"
		want["memory-numa-"+node+" hugepages-2Mi"] = "topolet.dev/hugepages2Mi x 1"
		want["memory-numa-"+node+" hugepages-1Gi"] = "topolet.dev/hugepages1Gi x 1"
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestBytesBeyondTheAPIsNumbers(t *testing.T) {
	q := bytesQuantity(math.MaxUint64)
	if q.Sign() < 0 {
		t.Errorf("%s is negative", q.String())
	}
}
