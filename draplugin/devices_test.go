package draplugin

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// picture is a device in a line that people can compare.
func picture(d resourceapi.Device) string {
	var words []string
	for name, a := range d.Attributes {
		words = append(words, strings.TrimPrefix(string(name), "topolet.dev/")+"="+valueOf(a))
	}
	for name, c := range d.Capacity {
		text := fmt.Sprintf("%s:%v default %v", strings.TrimPrefix(string(name), "topolet.dev/"), c.Value.String(), c.RequestPolicy.Default)
		if r := c.RequestPolicy.ValidRange; r != nil {
			text += fmt.Sprintf(" from %v by %v", r.Min, r.Step)
		}
		if v := c.RequestPolicy.ValidValues; v != nil {
			text += fmt.Sprintf(" only %v", v[0].String())
		}
		words = append(words, text)
	}
	slices.Sort(words)
	return d.Name + " " + strings.Join(words, ", ")
}

func valueOf(a resourceapi.DeviceAttribute) string {
	switch {
	case a.StringValue != nil:
		return *a.StringValue
	case a.IntValue != nil:
		return fmt.Sprint(*a.IntValue)
	case a.BoolValue != nil:
		return fmt.Sprint(*a.BoolValue)
	case a.IntValues != nil:
		return fmt.Sprint(a.IntValues)
	case a.StringValues != nil:
		return fmt.Sprint(a.StringValues)
	}
	return ""
}

func TestDevices(t *testing.T) {
	for _, tc := range []struct {
		machine string
		want    []string
	}{
		{"two threads per core", []string{
			"numa-0 coreType=standard, cpuNUMANode=0, cpus:14 default 2 from 2 by 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=0, socket=0, tenants:7 default 1 from 1 by 1, threadsPerCore=2",
			"numa-1 coreType=standard, cpuNUMANode=1, cpus:16 default 2 from 2 by 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=1, socket=0, tenants:8 default 1 from 1 by 1, threadsPerCore=2",
			"numa-2 coreType=standard, cpuNUMANode=2, cpus:16 default 2 from 2 by 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=2, socket=1, tenants:8 default 1 from 1 by 1, threadsPerCore=2",
			"numa-3 coreType=standard, cpuNUMANode=3, cpus:16 default 2 from 2 by 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=3, socket=1, tenants:8 default 1 from 1 by 1, threadsPerCore=2",
		}},
		{"four threads per core", []string{
			"numa-0 coreType=standard, cpuNUMANode=0, cpus:16 default 4 from 4 by 4, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=0, socket=0, tenants:4 default 1 from 1 by 1, threadsPerCore=4",
			"numa-1 coreType=standard, cpuNUMANode=1, cpus:20 default 4 from 4 by 4, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=1, socket=1, tenants:5 default 1 from 1 by 1, threadsPerCore=4",
		}},
		{"two types of cores", []string{
			"numa-0 coreType=performance, cpuNUMANode=0, cpus:6 default 2 from 2 by 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=0, socket=0, tenants:3 default 1 from 1 by 1, threadsPerCore=2",
			"numa-0-efficiency coreType=efficiency, cpuNUMANode=0, cpus:8 default 1 from 1 by 1, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=0, socket=0, tenants:8 default 1 from 1 by 1, threadsPerCore=1",
		}},
		// The smallest devices leave no room for a range.
		{"one core to give", []string{
			"numa-0 coreType=standard, cpuNUMANode=0, cpus:2 default 2 only 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=0, socket=0, tenants:1 default 1 only 1, threadsPerCore=2",
		}},
		{"one CPU to give", []string{
			"numa-0 coreType=standard, cpuNUMANode=0, cpus:1 default 1 only 1, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=0, socket=0, tenants:1 default 1 only 1, threadsPerCore=1",
		}},
		{"two cores to give", []string{
			"numa-0 coreType=standard, cpuNUMANode=0, cpus:4 default 2 from 2 by 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=0, socket=0, tenants:2 default 1 from 1 by 1, threadsPerCore=2",
		}},
		{"node numbers with holes", []string{
			"numa-0 coreType=standard, cpuNUMANode=0, cpus:2 default 1 from 1 by 1, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=0, socket=0, tenants:2 default 1 from 1 by 1, threadsPerCore=1",
			"numa-8 coreType=standard, cpuNUMANode=8, cpus:3 default 1 from 1 by 1, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=8, socket=0, tenants:3 default 1 from 1 by 1, threadsPerCore=1",
			"numa-250 coreType=standard, cpuNUMANode=250, cpus:3 default 1 from 1 by 1, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=250, socket=1, tenants:3 default 1 from 1 by 1, threadsPerCore=1",
			"numa-252 coreType=standard, cpuNUMANode=252, cpus:3 default 1 from 1 by 1, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=252, socket=1, tenants:3 default 1 from 1 by 1, threadsPerCore=1",
		}},
		// A node that does not exist must not be published.
		{"no NUMA", []string{
			"numa-0 coreType=standard, cpus:10 default 2 from 2 by 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, socket=0, tenants:5 default 1 from 1 by 1, threadsPerCore=2",
		}},
		{"nodes of memory only", []string{
			"numa-0 coreType=standard, cpuNUMANode=0, cpus:6 default 2 from 2 by 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=0, socket=0, tenants:3 default 1 from 1 by 1, threadsPerCore=2",
			"numa-1 coreType=standard, cpuNUMANode=1, cpus:8 default 2 from 2 by 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=1, socket=1, tenants:4 default 1 from 1 by 1, threadsPerCore=2",
		}},
		{"isolated CPUs", []string{
			"numa-0 coreType=standard, cpuNUMANode=0, cpus:4 default 2 from 2 by 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=0, socket=0, tenants:2 default 1 from 1 by 1, threadsPerCore=2",
			"numa-0-isolated coreType=standard, cpuNUMANode=0, cpus:2 default 2 only 2, family=cpu, isolated=true, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=0, socket=0, tenants:1 default 1 only 1, threadsPerCore=2",
			"numa-1 coreType=standard, cpuNUMANode=1, cpus:8 default 2 from 2 by 2, family=cpu, isolated=false, level=numa, networkFunctions=0, nvmeFunctions=0, resource.kubernetes.io/numaNode=1, socket=1, tenants:4 default 1 from 1 by 1, threadsPerCore=2",
		}},
	} {
		t.Run(tc.machine, func(t *testing.T) {
			spec, known := machines[tc.machine]
			if !known {
				t.Fatal("no such machine")
			}
			var got []string
			for _, d := range newRig(t, spec).resources(nil).Pools[nodeName].Slices[0].Devices {
				if !allocator.IsMemory(d.Name) {
					got = append(got, picture(d))
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
		})
	}
}

func TestADeviceCountsTheFunctionsBesideItsCPUs(t *testing.T) {
	spec := twoNodes
	spec.PCI = []topologytest.PCIRoot{
		{Bus: 0x10, NUMANode: 0, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.NVMe()), topologytest.Port(topologytest.NVMe())}},
		{Bus: 0x80, NUMANode: 1, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.NIC(8, 2)), topologytest.Port(topologytest.GPU())}},
	}
	got := map[string]string{}
	r := newRig(t, spec)
	for _, d := range Devices(r.ledger.Inventory(), Publication{})[:len(r.ledger.Inventory().Domains)] {
		got[d.Name] = fmt.Sprint(*d.Attributes[AttributeNetworkFunctions].IntValue, " network, ", *d.Attributes[AttributeNVMeFunctions].IntValue, " NVMe")
	}
	want := map[string]string{"numa-0": "0 network, 2 NVMe", "numa-1": "1 network, 0 NVMe"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("functions (-want +got):\n%s", diff)
	}
}

func TestThePublishedSlicesKeepTheRulesOfTheAPI(t *testing.T) {
	for name, spec := range machines {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, spec)
			inv := r.ledger.Inventory()
			keepTheRules(t, r.resources(nil).Pools[nodeName].Slices, len(inv.Domains)+len(inv.Memory))
		})
	}
}

func TestATaintMakesTheSlicesSmaller(t *testing.T) {
	spec := topologytest.Spec{NUMAPerSocket: resourceapi.ResourceSliceMaxDevices, CoresPerL3: 2}
	r := newRig(t, spec)
	r.mustPrepare(t, allocated("hit", cpus("numa-5", "1")))
	spec.Offline = r.ledger.Grants()[0].CPUs().String()
	if err := r.ledger.Replace(topologytest.New(spec)); err != nil {
		t.Fatal(err)
	}
	published := r.resources(r.ledger.Conflicts()).Pools[nodeName].Slices
	keepTheRules(t, published, resourceapi.ResourceSliceMaxDevices)
	if len(published) != 2 || len(published[0].Devices[5].Taints) != 1 {
		t.Errorf("%d slices, and the taints of the sixth device are %v", len(published), published[0].Devices[5].Taints)
	}
}

// keepTheRules checks slices against the rules of the API server, which refuses
// one that breaks any. Publishing to a real API server is part of the end-to-end
// tests.
func keepTheRules(t testing.TB, published []resourceslice.Slice, devices int) {
	t.Helper()
	if len(published) == 0 {
		t.Fatal("nothing is published")
	}
	seen := map[string]bool{}
	counters := map[string]bool{}
	for _, slice := range published {
		if len(slice.SharedCounters) > resourceapi.ResourceSliceMaxCounterSets || len(slice.SharedCounters) > 0 && len(slice.Devices) > 0 {
			t.Errorf("a slice has %d sets of counters and %d devices", len(slice.SharedCounters), len(slice.Devices))
		}
		for _, set := range slice.SharedCounters {
			if n := len(set.Counters); n > resourceapi.ResourceSliceMaxCountersPerCounterSet {
				t.Errorf("%s has %d counters", set.Name, n)
			}
			for name := range set.Counters {
				for _, problem := range append(validation.IsDNS1123Label(name), validation.IsDNS1123Label(set.Name)...) {
					t.Errorf("counter %s of %s: %s", name, set.Name, problem)
				}
				counters[set.Name+"/"+name] = true
			}
		}
	}
	for _, slice := range published {
		limit := resourceapi.ResourceSliceMaxDevices
		for _, d := range slice.Devices {
			if n := len(d.ConsumesCounters); n > resourceapi.ResourceSliceMaxDeviceCounterConsumptionsPerDevice {
				t.Errorf("%s consumes of %d sets", d.Name, n)
			}
			for _, consumed := range d.ConsumesCounters {
				for name := range consumed.Counters {
					if !counters[consumed.CounterSet+"/"+name] {
						t.Errorf("%s consumes %s/%s, which does not exist", d.Name, consumed.CounterSet, name)
					}
				}
			}
			if len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 || lists(d) > 0 {
				limit = resourceapi.ResourceSliceMaxDevicesWithAdvancedFeatures
			}
			if seen[d.Name] {
				t.Errorf("%s is published twice", d.Name)
			}
			seen[d.Name] = true
			for _, problem := range breaches(d) {
				t.Errorf("%s: %s", d.Name, problem)
			}
		}
		if n := len(slice.Devices); n > limit {
			t.Errorf("a slice has %d devices, the API takes %d", n, limit)
		}
	}
	if len(seen) != devices {
		t.Errorf("%d devices are published, want %d", len(seen), devices)
	}
}

// breaches lists what the API server would refuse about the device.
func breaches(d resourceapi.Device) []string {
	found := validation.IsDNS1123Label(d.Name)
	if n := len(d.Attributes) + len(d.Capacity); n > resourceapi.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		found = append(found, fmt.Sprintf("%d attributes and capacities", n))
	}
	for name, a := range d.Attributes {
		found = append(found, nameBreaches(name)...)
		if a.StringValue != nil && len(*a.StringValue) > resourceapi.DeviceAttributeMaxValueLength {
			found = append(found, fmt.Sprintf("%s is too long", name))
		}
		if a.IntValue != nil && *a.IntValue < 0 {
			found = append(found, fmt.Sprintf("%s is negative", name)) // of these, only a missing NUMA node could be
		}
	}
	for name, c := range d.Capacity {
		found = append(found, nameBreaches(name)...)
		for _, problem := range policyBreaches(c) {
			found = append(found, fmt.Sprintf("%s: %s", name, problem))
		}
	}
	return found
}

func nameBreaches(name resourceapi.QualifiedName) []string {
	domain, id, qualified := strings.Cut(string(name), "/")
	if !qualified {
		return []string{fmt.Sprintf("%s is not qualified", name)}
	}
	found := append(validation.IsDNS1123Subdomain(domain), validation.IsCIdentifier(id)...)
	if len(domain) > resourceapi.DeviceMaxDomainLength || len(id) > resourceapi.DeviceMaxIDLength {
		found = append(found, fmt.Sprintf("%s is too long", name))
	}
	return found
}

func policyBreaches(c resourceapi.DeviceCapacity) []string {
	policy := c.RequestPolicy
	if policy == nil || policy.Default == nil {
		return []string{"without a default a claim that does not say how much takes everything"}
	}
	var found []string
	multiple := func(what string, q resource.Quantity, low, step int64) {
		if (q.Value()-low)%step != 0 {
			found = append(found, fmt.Sprintf("%s %v is no multiple of %d from %d", what, q.String(), step, low))
		}
	}
	switch {
	case policy.ValidRange != nil && policy.ValidValues != nil:
		found = append(found, "both a range and values")
	case policy.ValidRange != nil:
		r := policy.ValidRange
		if r.Min == nil || r.Step == nil {
			return append(found, "the range lacks a minimum or a step")
		}
		if r.Min.Value()+r.Step.Value() > c.Value.Value() {
			found = append(found, fmt.Sprintf("one step above the minimum is above the value %v", c.Value.String()))
		}
		if policy.Default.Cmp(*r.Min) < 0 || policy.Default.Cmp(c.Value) > 0 {
			found = append(found, "the default is out of range")
		}
		multiple("default", *policy.Default, r.Min.Value(), r.Step.Value())
		multiple("value", c.Value, r.Min.Value(), r.Step.Value())
	case policy.ValidValues != nil:
		if !slices.ContainsFunc(policy.ValidValues, func(q resource.Quantity) bool { return q.Cmp(*policy.Default) == 0 }) {
			found = append(found, "the default is none of the values")
		}
		if slices.ContainsFunc(policy.ValidValues, func(q resource.Quantity) bool { return q.Cmp(c.Value) > 0 }) {
			found = append(found, "a value is above the capacity")
		}
	}
	return found
}

func TestAMachineWithNothingToGivePublishesAnEmptyPool(t *testing.T) {
	published := newRig(t, topologytest.Spec{}).resources(nil).Pools[nodeName].Slices
	if len(published) != 1 || len(published[0].Devices) != 0 {
		t.Errorf("published %v, want one empty slice", published)
	}
}

// Its CPUs would be near one node by their name and near another in truth.
func TestACoreAcrossNUMANodesIsInNoDevice(t *testing.T) {
	const nodes = "sys/devices/system/node/"
	tree := topologytest.FS(topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 2, Threads: 2}).
		File(nodes+"node0/cpulist", "0-1,4\n").
		File(nodes+"node1/cpulist", "2-3,5-7\n")
	m, err := topology.Discover(tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range newRigOn(t, m, allocator.Policy{ReservedCPUs: topology.NewCPUSet(0, 4)}).ledger.Inventory().Domains {
		if d.Name != "numa-1" || d.CPUs.String() != "2-3,6-7" {
			t.Errorf("%s has %s", d.Name, d.CPUs)
		}
	}
}
