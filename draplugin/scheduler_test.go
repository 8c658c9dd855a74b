package draplugin

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
)

// scheduler allocates claims as kube-scheduler does: with its allocator, from
// the published slices and the DeviceClass of the Helm chart.
type scheduler struct {
	node   *corev1.Node
	class  *resourceapi.DeviceClass
	slices []*resourceapi.ResourceSlice
	cache  *cel.Cache
	claims map[types.UID]*resourceapi.ResourceClaim
}

func newScheduler(t testing.TB, r *rig) *scheduler {
	t.Helper()
	s := &scheduler{
		node:   &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}},
		class:  chartClass(t),
		cache:  cel.NewCache(10, cel.Features{EnableConsumableCapacity: true}),
		claims: map[types.UID]*resourceapi.ResourceClaim{},
	}
	published := r.resources(nil).Pools[nodeName].Slices
	for i, slice := range published {
		s.slices = append(s.slices, viaAPI(t, &resourceapi.ResourceSlice{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("slice-%03d", i)},
			Spec: resourceapi.ResourceSliceSpec{
				Driver: DriverName, NodeName: ptr.To(nodeName), Devices: slice.Devices,
				Pool: resourceapi.ResourcePool{Name: nodeName, Generation: 1, ResourceSliceCount: int64(len(published))},
			},
		}))
	}
	return s
}

// chartClass is the class that users name in their claims.
func chartClass(t testing.TB) *resourceapi.DeviceClass {
	t.Helper()
	template, err := os.ReadFile("../deploy/helm/topolet/templates/deviceclass.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(template), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "{{") })
	class := &resourceapi.DeviceClass{}
	if err := yaml.Unmarshal([]byte(strings.Join(lines, "\n")), class); err != nil {
		t.Fatal(err)
	}
	if len(class.Spec.Selectors) != 1 {
		t.Fatalf("the chart's class has %d selectors", len(class.Spec.Selectors))
	}
	return class
}

// List implements [structured.DeviceClassLister].
func (s *scheduler) List() ([]*resourceapi.DeviceClass, error) {
	return []*resourceapi.DeviceClass{s.class}, nil
}

// Get implements [structured.DeviceClassLister].
func (s *scheduler) Get(name string) (*resourceapi.DeviceClass, error) {
	if name != s.class.Name {
		return nil, fmt.Errorf("no class %s", name)
	}
	return s.class, nil
}

// allocate writes the claim's status if the claim fits.
func (s *scheduler) allocate(t testing.TB, claim *resourceapi.ResourceClaim) bool {
	t.Helper()
	state := structured.AllocatedState{
		AllocatedDevices:         sets.New[structured.DeviceID](),
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
	}
	for _, c := range s.claims {
		for _, result := range c.Status.Allocation.Devices.Results {
			device := structured.MakeDeviceID(result.Driver, result.Pool, result.Device)
			state.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(device, result.ShareID))
			state.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(device, result.ConsumedCapacity))
		}
	}
	a, err := structured.NewAllocator(t.Context(), structured.Features{
		AdminAccess: true, ConsumableCapacity: true, DeviceTaints: true, PartitionableDevices: true,
		PrioritizedList: true, DeviceBindingAndStatus: true,
	}, state, s, s.slices, s.cache)
	if err != nil {
		t.Fatal(err)
	}
	found, err := a.Allocate(t.Context(), s.node, []*resourceapi.ResourceClaim{claim})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		return false
	}
	claim.Status = resourceapi.ResourceClaimStatus{
		Allocation:  &found[0],
		ReservedFor: []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "pod", UID: "pod-" + claim.UID}},
	}
	s.claims[claim.UID] = viaAPI(t, claim)
	return true
}

// wish is what one request asks for.
type wish struct {
	cpus  int64 // 0: does not say
	count int64
}

func asking(uid string, aligned bool, wishes ...wish) *resourceapi.ResourceClaim {
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: uid, UID: types.UID(uid)}}
	for i, w := range wishes {
		requests := map[resourceapi.QualifiedName]resource.Quantity{}
		if w.cpus > 0 {
			requests[CapacityCPUs] = *quantity(w.cpus)
		}
		claim.Spec.Devices.Requests = append(claim.Spec.Devices.Requests, resourceapi.DeviceRequest{
			Name: fmt.Sprintf("r%d", i),
			Exactly: &resourceapi.ExactDeviceRequest{
				DeviceClassName: "cpu.topolet.dev", AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: w.count,
				Capacity: &resourceapi.CapacityRequirements{Requests: requests},
			},
		})
	}
	if aligned {
		claim.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{
			MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(deviceattribute.StandardDeviceAttributeNUMANode)),
		}}
	}
	return claim
}

// What the scheduler admits never fails in Prepare, and what it refuses would
// not have fitted.
func TestWhatTheSchedulerAdmitsIsPrepared(t *testing.T) {
	const sequences, steps = 25, 20
	for _, name := range slices.Sorted(maps.Keys(machines)) {
		if name == "many NUMA nodes" {
			continue // the search for what does not fit grows with the power of the requests
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScheduler(t, newRig(t, machines[name]))
			admitted, refused := 0, 0
			for seed := range sequences {
				r := newRig(t, machines[name])
				s.claims = map[types.UID]*resourceapi.ResourceClaim{}
				a, b := life(t, r, s, rand.New(rand.NewPCG(uint64(seed), 1)), steps) //nolint:gosec // small numbers
				if t.Failed() {
					t.Fatalf("in sequence %d", seed)
				}
				admitted, refused = admitted+a, refused+b
			}
			// A sequence that never meets a limit shows nothing.
			if admitted < sequences || refused < sequences {
				t.Errorf("%d claims admitted, %d refused: the test asks for the wrong things", admitted, refused)
			}
		})
	}
}

// life lets claims come and go at random, and in the end lets all of them go.
func life(t *testing.T, r *rig, s *scheduler, random *rand.Rand, steps int) (admitted, refused int) {
	t.Helper()
	largest := 0
	for _, d := range r.ledger.Inventory().Domains {
		largest = max(largest, d.CPUs.Size())
	}
	for step := range steps {
		if random.IntN(3) == 0 && len(s.claims) > 0 {
			uids := slices.Sorted(maps.Keys(s.claims))
			uid := uids[random.IntN(len(uids))]
			if err := r.unprepare(t, uid); err != nil {
				t.Error(err)
			}
			delete(s.claims, uid)
			continue
		}
		wishes := make([]wish, 1+random.IntN(3))
		for i := range wishes {
			wishes[i] = wish{cpus: int64(random.IntN(largest + 3)), count: 1}
			if random.IntN(4) == 0 {
				wishes[i].count = 2
			}
			if random.IntN(2) == 0 {
				wishes[i].cpus = int64(1 + random.IntN(3))
			}
		}
		// Without NUMA nodes no two devices are known to be on the same one.
		aligned := random.IntN(2) == 0
		claim := asking(fmt.Sprintf("claim-%d", step), aligned, wishes...)
		if !s.allocate(t, claim) {
			refused++
			if len(wishes) == 1 && wishes[0].count == 1 && !aligned {
				wouldNotFit(t, r, max(wishes[0].cpus, 1))
			}
			continue
		}
		admitted++
		if result := r.prepare(t, s.claims[claim.UID]); result.Err != nil {
			t.Errorf("the scheduler admitted what cannot be prepared: %v", result.Err)
			return admitted, refused
		}
		sound(t, r, s)
	}
	for uid := range maps.Clone(s.claims) {
		if err := r.unprepare(t, uid); err != nil {
			t.Error(err)
		}
		delete(s.claims, uid)
	}
	// Nothing is lost: every device can be had as a whole.
	for _, d := range r.ledger.Inventory().Domains {
		if _, err := r.ledger.Grant(allocator.Claim{UID: allocator.ClaimUID(d.Name)},
			[]allocator.Request{{Name: "all", Domain: d.Name, Count: d.CPUs.Size()}}); err != nil {
			t.Errorf("in the end: %v", err)
		}
	}
	return admitted, refused
}

// wouldNotFit checks a refusal against the free cores.
func wouldNotFit(t *testing.T, r *rig, n int64) {
	t.Helper()
	free := r.machine.Online
	for _, g := range r.ledger.Grants() {
		free = free.Difference(g.CPUs())
	}
	for _, d := range r.ledger.Inventory().Domains {
		threads := int64(d.ThreadsPerCore)
		rounded := (n + threads - 1) / threads * threads
		if int64(d.CPUs.IntersectionSize(free)) >= rounded {
			t.Errorf("the scheduler refused %d CPUs, and %s has %s free", n, d.Name, d.CPUs.Intersection(free))
		}
	}
}

// sound checks the grants of all claims against what the scheduler allocated.
func sound(t *testing.T, r *rig, s *scheduler) {
	t.Helper()
	grants := r.ledger.Grants()
	if len(grants) != len(s.claims) {
		t.Errorf("%d grants for %d claims", len(grants), len(s.claims))
	}
	domains := map[string]*allocator.Domain{}
	for _, d := range r.ledger.Inventory().Domains {
		domains[d.Name] = d
	}
	var taken topology.CPUSet
	for _, g := range grants {
		results := s.claims[types.UID(g.UID)].Status.Allocation.Devices.Results
		if len(results) != len(g.Parts) {
			t.Fatalf("claim %s has %d results and %d parts", g.UID, len(results), len(g.Parts))
		}
		for i, part := range g.Parts {
			consumed := results[i].ConsumedCapacity[CapacityCPUs]
			switch {
			case int64(part.CPUs.Size()) != consumed.Value():
				t.Errorf("claim %s got %s for %v CPUs", g.UID, part.CPUs, consumed.String())
			case part.Domain != results[i].Device, !part.CPUs.IsSubsetOf(domains[part.Domain].CPUs):
				t.Errorf("claim %s got %s of %s, allocated from %s", g.UID, part.CPUs, part.Domain, results[i].Device)
			case part.CPUs.Intersects(taken), part.CPUs.Intersects(r.ledger.Pool()):
				t.Errorf("claim %s got %s, which somebody else has too", g.UID, part.CPUs)
			case !wholeCores(r.machine, part.CPUs):
				t.Errorf("claim %s got %s, which splits a core", g.UID, part.CPUs)
			}
			taken = taken.Union(part.CPUs)
		}
	}
}

func wholeCores(m *topology.Machine, cpus topology.CPUSet) bool {
	for _, core := range m.Cores {
		if core.CPUs.Intersects(cpus) && !core.CPUs.IsSubsetOf(cpus) {
			return false
		}
	}
	return true
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
