package draplugin

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/topolet/topolet/allocator"
)

// implementations are those of the scheduler's allocator that know consumable
// capacity. The scheduler takes the most stable one that has all features of the
// cluster.
var implementations = []implementation{
	{"*incubating.Allocator", structured.Features{
		AdminAccess: true, ConsumableCapacity: true, DeviceTaints: true, PartitionableDevices: true,
		PrioritizedList: true, DeviceBindingAndStatus: true,
	}, cel.NewCache(10, cel.Features{EnableConsumableCapacity: true})},
	{"*experimental.Allocator", structured.Features{
		AdminAccess: true, ConsumableCapacity: true, DeviceTaints: true, PartitionableDevices: true,
		PrioritizedList: true, DeviceBindingAndStatus: true, CompatibilityGroups: true, DerivedAttributes: true,
		FractionalCapacityRange: true, ListTypeAttributes: true, OptionalNodeOperations: true,
	}, cel.NewCache(10, cel.Features{EnableConsumableCapacity: true, EnableListTypeAttributes: true})},
}

type implementation struct {
	name     string
	features structured.Features
	cache    *cel.Cache
}

// scheduler allocates claims as kube-scheduler does: with its allocator, from
// the published slices and the DeviceClasses of the Helm chart.
type scheduler struct {
	node    *corev1.Node
	classes []*resourceapi.DeviceClass
	slices  []*resourceapi.ResourceSlice
	claims  map[types.UID]*resourceapi.ResourceClaim
}

func newScheduler(t testing.TB, r *rig) *scheduler {
	t.Helper()
	classes, err := chartClasses()
	if err != nil {
		t.Fatal(err)
	}
	s := &scheduler{
		node:    &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}},
		classes: classes,
		claims:  map[types.UID]*resourceapi.ResourceClaim{},
	}
	s.refresh(t, r)
	return s
}

// refresh reads what the driver publishes at present.
func (s *scheduler) refresh(t testing.TB, r *rig) {
	t.Helper()
	s.slices = nil
	keepTheRules(t, r.resources(r.ledger.Conflicts()).Pools[nodeName].Slices, len(Devices(r.ledger.Inventory(), Publication{})))
	for _, slice := range Slices(r.ledger, nodeName) {
		s.slices = append(s.slices, viaAPI(t, slice))
	}
}

// offers reports whether a device is published. That of a machine of very many
// units is not.
func (s *scheduler) offers(name string) bool {
	return slices.ContainsFunc(s.slices, func(slice *resourceapi.ResourceSlice) bool {
		return slices.ContainsFunc(slice.Spec.Devices, func(d resourceapi.Device) bool { return d.Name == name })
	})
}

// The classes that users name in their claims.
const (
	classCPUs     = "cpu.topolet.dev"
	classIsolated = "cpu-isolated.topolet.dev"
	classMemory   = "memory.topolet.dev"

	capacityHuge resourceapi.QualifiedName = "topolet.dev/hugepages2Mi"
)

var furtherLevels = []allocator.Level{allocator.L3Level, allocator.SocketLevel, allocator.MachineLevel}

// chartClasses reads them from the chart, once, those of all levels too.
var chartClasses = sync.OnceValues(func() ([]*resourceapi.DeviceClass, error) {
	template, err := os.ReadFile("../deploy/helm/topolet/templates/deviceclass.yaml")
	if err != nil {
		return nil, err
	}
	once, each, _ := strings.Cut(string(template), "{{- range .Values.config.levels }}\n")
	text := once
	for _, level := range furtherLevels {
		text += strings.ReplaceAll(each, "{{ . }}", string(level))
	}
	lines := strings.Split(text, "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "{{") })
	var classes []*resourceapi.DeviceClass
	for document := range strings.SplitSeq(strings.Join(lines, "\n"), "\n---\n") {
		class := &resourceapi.DeviceClass{}
		if err := yaml.UnmarshalStrict([]byte(document), class); err != nil {
			return nil, err
		}
		if len(class.Spec.Selectors) != 1 {
			return nil, fmt.Errorf("class %s has %d selectors", class.Name, len(class.Spec.Selectors))
		}
		classes = append(classes, class)
	}
	return classes, nil
})

// List implements [structured.DeviceClassLister].
func (s *scheduler) List() ([]*resourceapi.DeviceClass, error) { return s.classes, nil }

// Get implements [structured.DeviceClassLister].
func (s *scheduler) Get(name string) (*resourceapi.DeviceClass, error) {
	for _, class := range s.classes {
		if class.Name == name {
			return class, nil
		}
	}
	return nil, fmt.Errorf("no class %s", name)
}

// allocate writes the claim's status if the claim fits. All implementations must
// say the same.
func (s *scheduler) allocate(t testing.TB, claim *resourceapi.ResourceClaim) bool {
	t.Helper()
	var first *resourceapi.AllocationResult
	for i, by := range implementations {
		a, err := structured.NewAllocator(t.Context(), by.features, s.allocated(), s, s.slices, by.cache)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%T", a); got != by.name {
			t.Fatalf("the scheduler uses %s, want %s", got, by.name)
		}
		found, err := a.Allocate(t.Context(), s.node, []*resourceapi.ResourceClaim{claim})
		if err != nil {
			t.Fatal(err)
		}
		var result *resourceapi.AllocationResult
		if len(found) > 0 {
			result = &found[0]
		}
		if i == 0 {
			first = result
		}
		if got, want := summaryOf(result), summaryOf(first); got != want {
			t.Fatalf("%s allocates %q, %s %q", by.name, got, implementations[0].name, want)
		}
	}
	if first == nil {
		return false
	}
	claim.Status = resourceapi.ResourceClaimStatus{
		Allocation:  first,
		ReservedFor: []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "pod", UID: "pod-" + claim.UID}},
	}
	s.claims[claim.UID] = viaAPI(t, claim)
	return true
}

// allocated is the scheduler's book of what is in use.
func (s *scheduler) allocated() structured.AllocatedState {
	state := structured.AllocatedState{
		AllocatedDevices:         sets.New[structured.DeviceID](),
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
	}
	for _, c := range s.claims {
		for _, result := range c.Status.Allocation.Devices.Results {
			device := structured.MakeDeviceID(result.Driver, result.Pool, result.Device)
			if result.ShareID == nil { // another driver's, which has one user
				state.AllocatedDevices.Insert(device)
				continue
			}
			state.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(device, result.ShareID))
			state.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(device, result.ConsumedCapacity))
		}
	}
	return state
}

// summaryOf is each request with what it got, or nothing for a refusal.
func summaryOf(result *resourceapi.AllocationResult) string {
	if result == nil {
		return ""
	}
	words := []string{"allocated"}
	for _, r := range result.Devices.Results {
		consumed := r.ConsumedCapacity[CapacityCPUs]
		words = append(words, r.Request+"="+r.Device+":"+consumed.String())
	}
	return strings.Join(words, " ")
}

// wish is what one request asks for.
type wish struct {
	cpus     int64 // 0: does not say
	count    int64
	isolated bool
	level    allocator.Level // empty means NUMA nodes
	idle     bool            // the siblings
	// ordinary memory and huge pages of 2 MiB, in bytes, in place of CPUs
	memory, huge int64
}

func (w wish) isMemory() bool { return w.memory > 0 || w.huge > 0 }

func (w wish) class() string {
	if w.isMemory() {
		return classMemory
	}
	if w.level != "" && w.level != allocator.NUMALevel {
		return "cpu-" + string(w.level) + ".topolet.dev"
	}
	if w.isolated {
		return classIsolated
	}
	return classCPUs
}

func asking(uid string, aligned bool, wishes ...wish) *resourceapi.ResourceClaim {
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: uid, UID: types.UID(uid)}}
	devices := &claim.Spec.Devices
	for i, w := range wishes {
		requests := map[resourceapi.QualifiedName]resource.Quantity{}
		for name, amount := range map[resourceapi.QualifiedName]int64{CapacityCPUs: w.cpus, CapacityMemory: w.memory, capacityHuge: w.huge} {
			if amount > 0 {
				requests[name] = *quantity(amount)
			}
		}
		name := fmt.Sprintf("r%d", i)
		devices.Requests = append(devices.Requests, resourceapi.DeviceRequest{
			Name: name,
			Exactly: &resourceapi.ExactDeviceRequest{
				DeviceClassName: w.class(), AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: w.count,
				Capacity: &resourceapi.CapacityRequirements{Requests: requests},
			},
		})
		if w.idle {
			devices.Config = append(devices.Config, resourceapi.DeviceClaimConfiguration{
				Requests: []string{name},
				DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
					Driver:     DriverName,
					Parameters: runtime.RawExtension{Raw: []byte(`{"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig","siblings":"Idle"}`)},
				}},
			})
		}
	}
	if aligned {
		devices.Constraints = []resourceapi.DeviceConstraint{{
			MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(deviceattribute.StandardDeviceAttributeNUMANode)),
		}}
	}
	return claim
}

// Who takes all tenants has the device alone; who says nothing gets one core.
func TestTheSchedulerUnderstandsTenantsAndDefaults(t *testing.T) {
	r := newRig(t, twoNodes)
	s := newScheduler(t, r)
	modest := asking("modest", false, wish{count: 1})
	if !s.allocate(t, modest) {
		t.Fatal("refused")
	}
	r.mustPrepare(t, s.claims["modest"])
	if got := r.ledger.Grants()[0].CPUs().String(); got != "1,9" {
		t.Errorf("a claim that does not say how much got CPUs %s", got)
	}
	alone := asking("alone", false, wish{cpus: 2, count: 1})
	alone.Spec.Devices.Requests[0].Exactly.Capacity.Requests[CapacityTenants] = resource.MustParse("4")
	if !s.allocate(t, alone) {
		t.Fatal("refused")
	}
	if got := alone.Status.Allocation.Devices.Results[0].Device; got != "numa-1" {
		t.Errorf("the claim that wants to be alone is on %s", got)
	}
	if s.allocate(t, asking("late", false, wish{cpus: 6, count: 1})) {
		t.Error("somebody was put beside the claim that wants to be alone")
	}
}
