package draplugin

import (
	"fmt"
	"slices"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/examples"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// exampleMachines have among them what all examples need.
var exampleMachines = map[string]func(t *testing.T) (*rig, *scheduler){
	"one CPU to give": func(t *testing.T) (*rig, *scheduler) {
		return exampleMachine(t, topologytest.New(topologytest.Spec{CoresPerL3: 2}))
	},
	"two types of cores": func(t *testing.T) (*rig, *scheduler) {
		return exampleMachine(t, topologytest.New(topologytest.Spec{CoresPerL3: 4, EfficiencyCoresPerL3: 8, Threads: 2}))
	},
	"huge pages": func(t *testing.T) (*rig, *scheduler) {
		return exampleMachine(t, topologytest.New(topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 4, Threads: 2, Hugepages: []topology.Hugepages{{SizeBytes: 2 << 20, Total: 8}}}))
	},
	"four NUMA nodes": func(t *testing.T) (*rig, *scheduler) {
		return exampleMachine(t, captured(t))
	},
	"four NUMA nodes, and everything published": func(t *testing.T) (*rig, *scheduler) {
		m := captured(t)
		r, s := exampleMachine(t, m, furtherLevels...)
		s.slices = append(s.slices, disksOf(t, m))
		return r, s
	},
}

func exampleMachine(t *testing.T, m *topology.Machine, levels ...allocator.Level) (*rig, *scheduler) {
	t.Helper()
	r := newRigOn(t, m, allocator.Policy{ReservedCPUs: allocator.DefaultReserved(m), Levels: levels})
	s := newScheduler(t, r)
	s.classes = append(slices.Clone(s.classes), &resourceapi.DeviceClass{
		ObjectMeta: metav1.ObjectMeta{Name: disksDriver},
		Spec: resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{{
			CEL: &resourceapi.CELDeviceSelector{Expression: fmt.Sprintf("device.driver == %q", disksDriver)},
		}}},
	})
	return r, s
}

func captured(t *testing.T) *topology.Machine {
	t.Helper()
	m, err := topology.Discover(topologytest.Captured("four-nodes"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// disksDriver is the other driver that the examples name.
const disksDriver = "nvme.example.com"

// disksOf publishes the machine's NVMe functions, virtual ones left out, as drivers of
// such devices do.
func disksOf(t *testing.T, m *topology.Machine) *resourceapi.ResourceSlice {
	t.Helper()
	var devices []resourceapi.Device
	for _, f := range m.PCI.Functions {
		if f.Class != classNVMe.code || f.PhysicalFunction != topology.None {
			continue
		}
		devices = append(devices, resourceapi.Device{
			Name: fmt.Sprintf("nvme%d", len(devices)),
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				deviceattribute.StandardDeviceAttributePCIBusID: {StringValue: ptr.To(f.Address.String())},
				deviceattribute.StandardDeviceAttributePCIeRoot: {StringValue: ptr.To(m.PCI.Roots[f.Root].String())},
				deviceattribute.StandardDeviceAttributeNUMANode: {IntValue: ptr.To(int64(f.NUMANode))},
			},
		})
	}
	return viaAPI(t, &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "disks"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: disksDriver, NodeName: ptr.To(nodeName), Devices: devices,
			Pool: resourceapi.ResourcePool{Name: nodeName, Generation: 1, ResourceSliceCount: 1},
		},
	})
}

// Every example is served where what it needs is there, as its comment promises, and
// the scheduler refuses it everywhere else.
func TestExamples(t *testing.T) {
	all, err := examples.Read("../deploy/examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		t.Run(e.Name, func(t *testing.T) {
			if _, ok := examples.Promises[e.Name]; !ok {
				t.Fatal("say in examples.Promises what it promises")
			}
			served := 0
			for on, machine := range exampleMachines {
				t.Run("on "+on, func(t *testing.T) {
					r, s := machine(t)
					if lacks := e.Lacks(s.slices); lacks != "" {
						refused(t, s, e, lacks)
						return
					}
					served++
					keepsPromise(t, r, s, e)
				})
			}
			if served == 0 {
				t.Error("no machine here has what it needs")
			}
		})
	}
}

// claimsOf are the claims of one pod of the example as the API server stores them.
func claimsOf(e examples.Example, pod int) []*resourceapi.ResourceClaim {
	var claims []*resourceapi.ResourceClaim
	for i, spec := range e.Claims {
		name := fmt.Sprintf("%s-%d-%d", e.Name, pod, i)
		claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}, Spec: *spec.DeepCopy()}
		for _, request := range claim.Spec.Devices.Requests {
			request.Exactly.AllocationMode, request.Exactly.Count = resourceapi.DeviceAllocationModeExactCount, 1
		}
		claims = append(claims, claim)
	}
	return claims
}

// refused checks that an example needs what it says that it needs.
func refused(t *testing.T, s *scheduler, e examples.Example, lacks string) {
	t.Helper()
	for _, claim := range claimsOf(e, 0) {
		if !s.allocate(t, claim) {
			return
		}
	}
	t.Errorf("it is allocated on a machine that lacks %s", lacks)
}

// keepsPromise makes pods of the example until the machine is full: the last ones
// would break a promise that the first ones keep by luck.
func keepsPromise(t *testing.T, r *rig, s *scheduler, e examples.Example) {
	t.Helper()
	if len(e.Claims) == 0 {
		return
	}
	served := 0
	for admitted(t, r, s, claimsOf(e, served)) {
		served++
	}
	if served == 0 {
		t.Fatal("the scheduler refuses it")
	}
	var taken topology.CPUSet
	for _, g := range r.ledger.Grants() {
		if taken.Intersects(g.CPUs()) {
			t.Errorf("%s has CPUs %s, of which others have some", g.Name, g.CPUs())
		}
		taken = taken.Union(g.CPUs())
		p := place{r, s.claims[types.UID(g.UID)], g, examples.Promises[e.Name]}
		p.check(t)
	}
	t.Logf("%d pods of it fill the machine", served)
}

// admitted has claims allocated and prepared, as far as the scheduler admits them.
func admitted(t *testing.T, r *rig, s *scheduler, claims []*resourceapi.ResourceClaim) bool {
	t.Helper()
	for _, claim := range claims {
		if !s.allocate(t, claim) {
			return false
		}
		r.mustPrepare(t, s.claims[claim.UID])
	}
	return true
}

// place is what a claim of an example got.
type place struct {
	*rig
	claim   *resourceapi.ResourceClaim
	grant   allocator.Grant
	promise examples.Promise
}

func (p place) check(t *testing.T) {
	t.Helper()
	want, m, cpus := p.promise, p.machine, p.grant.CPUs()
	nodes := p.parts(func(c topology.CPU) int { return c.NUMANode })
	groups := p.parts(func(c topology.CPU) int { return c.L3 })
	sockets := p.parts(func(c topology.CPU) int { return c.Socket })
	if want.Nodes != 0 && len(nodes) != want.Nodes {
		t.Errorf("CPUs %s are on NUMA nodes %v, want %d", cpus, nodes, want.Nodes)
	}
	if want.Groups != 0 && len(groups) != want.Groups {
		t.Errorf("CPUs %s are of the L3 groups %v, want %d", cpus, groups, want.Groups)
	}
	if !wholeCores(m, cpus) || cpus.Intersects(p.policy.ReservedCPUs) {
		t.Errorf("CPUs %s split a core, or are reserved", cpus)
	}
	if isolated := cpus.Intersection(m.Isolated); want.Isolated && !isolated.Equals(cpus) || !want.Isolated && !isolated.IsEmpty() {
		t.Errorf("of the CPUs %s, %s are isolated", cpus, isolated)
	}
	for id := range cpus.All() {
		if c, _ := m.CPU(id); want.CoreType != "" && c.CoreType != want.CoreType {
			t.Errorf("CPU %d is of the type %s", id, c.CoreType)
		}
	}
	for part, with := range map[examples.Part]func(topology.CPU) bool{
		examples.L3Group:  func(c topology.CPU) bool { return slices.Contains(groups, c.L3) },
		examples.NUMANode: func(c topology.CPU) bool { return slices.Contains(nodes, c.NUMANode) },
		examples.Socket:   func(c topology.CPU) bool { return slices.Contains(sockets, c.Socket) },
	} {
		if part != want.Whole {
			continue
		}
		whole := topology.CPUSet{}
		for _, c := range m.CPUs {
			if with(c) && !p.policy.ReservedCPUs.Contains(c.ID) && !m.Isolated.Contains(c.ID) {
				whole = whole.Union(topology.NewCPUSet(c.ID))
			}
		}
		if !cpus.Equals(whole) {
			t.Errorf("CPUs %s are not the whole %s, %s", cpus, part, whole)
		}
	}
	p.checkParts(t, nodes)
	p.checkFunctions(t, nodes)
}

// checkParts checks the parts of the grant one by one, and where the memory is.
func (p place) checkParts(t *testing.T, nodes []int) {
	t.Helper()
	want := p.promise
	var memory []int
	for i, part := range p.grant.Parts {
		memory = append(memory, part.MemoryNodes...)
		for name, asked := range p.asked(t, part.Name) {
			if got := amount(part, name); got < asked.Value() || name == CapacityCPUs && got >= asked.Value()+2 {
				t.Errorf("request %s got %d of %s, asked for %s", part.Name, got, name, asked.String())
			}
		}
		if want.Halves && part.CPUs.Size() != p.grant.Parts[1-i].CPUs.Size() {
			t.Errorf("one half is %s", part.CPUs)
		}
		runs := part.CPUs
		if want.Idle {
			runs = firstThreads(p.machine, part.CPUs)
		}
		if !part.RunsOn().Equals(runs) {
			t.Errorf("of CPUs %s the container runs on %s, want %s", part.CPUs, part.RunsOn(), runs)
		}
		if part.SharedPool != want.SharedPool {
			t.Errorf("request %s has the shared pool: %v", part.Name, part.SharedPool)
		}
	}
	slices.Sort(memory)
	if memory = slices.Compact(memory); want.LocalMemory != (len(memory) > 0) || want.LocalMemory && !slices.Equal(memory, nodes) {
		t.Errorf("CPUs of the NUMA nodes %v have memory of %v", nodes, memory)
	}
}

// asked is what a request asks for.
func (p place) asked(t *testing.T, request string) map[resourceapi.QualifiedName]resource.Quantity {
	t.Helper()
	for _, r := range p.claim.Spec.Devices.Requests {
		if r.Name == request {
			return r.Exactly.Capacity.Requests
		}
	}
	t.Fatalf("no request is called %s", request)
	return nil
}

// amount is how much of a capacity a part of a grant is.
func amount(part allocator.Part, name resourceapi.QualifiedName) int64 {
	switch name {
	case CapacityCPUs:
		return int64(part.CPUs.Size())
	case CapacityTenants:
		return int64(part.Count) // who has all CPUs has all tenants
	}
	for _, pages := range part.Memory {
		if pagesCapacity(pages.SizeBytes) == name {
			return int64(pages.Bytes) //nolint:gosec // some MiB
		}
	}
	return 0
}

// checkFunctions checks which PCI functions are beside the CPUs, and that those of the
// other driver are.
func (p place) checkFunctions(t *testing.T, nodes []int) {
	t.Helper()
	beside := map[int]bool{}
	for _, f := range p.machine.PCI.Functions {
		if f.Class>>classNetwork.shift == classNetwork.code && f.Locality.NUMANode != topology.None {
			beside[f.Locality.NUMANode] = true
		}
	}
	for _, node := range nodes {
		if p.promise.Network && !beside[node] {
			t.Errorf("NUMA node %d has no network function", node)
		}
	}
	var disks []int
	for _, result := range p.claim.Status.Allocation.Devices.Results {
		if result.Driver != disksDriver {
			continue
		}
		for _, d := range disksOf(t, p.machine).Spec.Devices {
			if d.Name != result.Device {
				continue
			}
			disks = append(disks, int(*d.Attributes[deviceattribute.StandardDeviceAttributeNUMANode].IntValue))
			root := *d.Attributes[deviceattribute.StandardDeviceAttributePCIeRoot].StringValue
			for _, r := range p.machine.PCI.Roots {
				if p.promise.Root && r.String() == root && !p.grant.CPUs().IsSubsetOf(*r.LocalCPUs) {
					t.Errorf("CPUs %s are not at the disk's root %s, which has %s", p.grant.CPUs(), root, r.LocalCPUs)
				}
			}
		}
	}
	slices.Sort(disks)
	if len(disks) != p.promise.Disks || len(disks) > 0 && !slices.Equal(disks, nodes) {
		t.Errorf("CPUs of the NUMA nodes %v have disks at the nodes %v", nodes, disks)
	}
}

// parts are the parts of the machine that the grant's CPUs are in, each once.
func (p place) parts(of func(topology.CPU) int) []int {
	var all []int
	for id := range p.grant.CPUs().All() {
		c, _ := p.machine.CPU(id)
		all = append(all, of(c))
	}
	slices.Sort(all)
	return slices.Compact(all)
}
