package draplugin

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
)

// Drivers of which nothing is known but what they publish. The class of each has
// its name.
const (
	driverGPU = "gpu.example"
	driverNIC = "nic.example"
	// driverPerCPU publishes a device for each CPU.
	driverPerCPU = "percpu.example"
)

var classGPU = pciClass{0x03, 16}

// offer is a whole machine as the scheduler sees it: what topolet publishes of it,
// the GPUs and network functions of other drivers, and what others have of that.
type offer struct {
	*scheduler
	nodes  []*allocator.Domain
	perCPU bool
	gpus   []resourceapi.Device
}

func newOffer(t testing.TB, m *topology.Machine, levels ...allocator.Level) *offer {
	t.Helper()
	o := newCPUOffer(t, m, levels...)
	o.publishFunctions(m)
	return o
}

// newPerCPUOffer is the same machine by a driver with a device for each CPU.
func newPerCPUOffer(t testing.TB, m *topology.Machine) *offer {
	t.Helper()
	o := newCPUOffer(t, m)
	o.slices, o.perCPU = nil, true
	var devices []resourceapi.Device
	for _, node := range o.nodes {
		for id := range node.CPUs.All() {
			devices = append(devices, resourceapi.Device{Name: cpuName(id), Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"cpuID":  {IntValue: ptr.To(int64(id))},
				"socket": {IntValue: ptr.To(int64(node.Socket))},
				deviceattribute.StandardDeviceAttributeNUMANode: {IntValue: ptr.To(int64(node.NUMANode()))},
			}})
		}
	}
	o.publish(driverPerCPU, devices)
	o.publishFunctions(m)
	return o
}

func newCPUOffer(t testing.TB, m *topology.Machine, levels ...allocator.Level) *offer {
	t.Helper()
	reserved := allocator.DefaultReserved(m)
	return &offer{
		scheduler: newScheduler(t, newRigOn(t, m, allocator.Policy{ReservedCPUs: reserved, Levels: levels})),
		nodes:     allocator.Domains(m, reserved),
	}
}

func cpuName(id int) string { return fmt.Sprintf("cpu-%03d", id) }

func (o *offer) publishFunctions(m *topology.Machine) {
	o.gpus = functionsOf(m, classGPU)
	o.publish(driverGPU, o.gpus)
	o.publish(driverNIC, functionsOf(m, classNetwork))
}

// functionsOf are the devices of a driver for the functions of a class.
func functionsOf(m *topology.Machine, class pciClass) []resourceapi.Device {
	var devices []resourceapi.Device
	for _, f := range m.PCI.Functions {
		if f.Class>>class.shift != class.code || f.Root == topology.None || f.Locality.NUMANode == topology.None {
			continue
		}
		devices = append(devices, resourceapi.Device{
			Name: "pci-" + strings.NewReplacer(":", "-", ".", "-").Replace(f.Address.String()),
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				deviceattribute.StandardDeviceAttributeNUMANode: {IntValue: ptr.To(int64(f.Locality.NUMANode))},
				deviceattribute.StandardDeviceAttributePCIeRoot: {StringValue: ptr.To(m.PCI.Roots[f.Root].String())},
			},
		})
	}
	return devices
}

// publish adds the pool of another driver, and its class.
func (o *offer) publish(driver string, devices []resourceapi.Device) {
	pool := slices.Collect(slices.Chunk(devices, resourceapi.ResourceSliceMaxDevices))
	for i, some := range pool {
		o.slices = append(o.slices, &resourceapi.ResourceSlice{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", driver, i)},
			Spec: resourceapi.ResourceSliceSpec{
				Driver: driver, NodeName: ptr.To(nodeName), Devices: some,
				Pool: resourceapi.ResourcePool{Name: nodeName, Generation: 1, ResourceSliceCount: int64(len(pool))},
			},
		})
	}
	o.classes = append(slices.Clip(o.classes), &resourceapi.DeviceClass{
		ObjectMeta: metav1.ObjectMeta{Name: driver},
		Spec: resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{{
			CEL: &resourceapi.CELDeviceSelector{Expression: fmt.Sprintf("device.driver == %q", driver)},
		}}},
	})
}

// leave has others use all but so many CPUs of each NUMA node, by its index, and
// all but so many GPUs.
func (o *offer) leave(cpusOf func(node int) int, gpus int) {
	var used []resourceapi.DeviceRequestAllocationResult
	for i, node := range o.nodes {
		taken := node.CPUs.Size() - min(cpusOf(i), node.CPUs.Size())
		switch {
		case taken == 0:
		case o.perCPU:
			for _, id := range node.CPUs.List()[:taken] {
				used = append(used, exclusive(driverPerCPU, cpuName(id)))
			}
		default:
			used = append(used, cpus(node.Name, fmt.Sprint(taken)))
		}
	}
	for _, gpu := range o.gpus[min(gpus, len(o.gpus)):] {
		used = append(used, exclusive(driverGPU, gpu.Name))
	}
	o.claims = map[types.UID]*resourceapi.ResourceClaim{"others": allocated("others", used...)}
}

func exclusive(driver, device string) resourceapi.DeviceRequestAllocationResult {
	return resourceapi.DeviceRequestAllocationResult{Request: "device", Driver: driver, Pool: nodeName, Device: device}
}

// nodeOf is the NUMA node of an allocated device, or topology.None.
func (o *offer) nodeOf(r resourceapi.DeviceRequestAllocationResult) int {
	for _, slice := range o.slices {
		for _, d := range slice.Spec.Devices {
			if slice.Spec.Driver == r.Driver && d.Name == r.Device {
				return nodeOf(d)
			}
		}
	}
	return topology.None
}

func nodeOf(d resourceapi.Device) int {
	if node := d.Attributes[deviceattribute.StandardDeviceAttributeNUMANode].IntValue; node != nil {
		return int(*node)
	}
	return topology.None
}

// wantCPUs asks for CPUs of one NUMA node.
func (o *offer) wantCPUs(name string, n int64) resourceapi.DeviceRequest {
	r := want(name, classCPUs, 1)
	r.Exactly.Capacity = &resourceapi.CapacityRequirements{Requests: map[resourceapi.QualifiedName]resource.Quantity{CapacityCPUs: *quantity(n)}}
	if o.perCPU {
		r = want(name, driverPerCPU, n)
	}
	return r
}

func want(name, class string, count int64) resourceapi.DeviceRequest {
	return resourceapi.DeviceRequest{Name: name, Exactly: &resourceapi.ExactDeviceRequest{
		DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: count,
	}}
}

// together are requests that are to be served from one NUMA node.
type together []resourceapi.DeviceRequest

// claimsOf asks for everything in one claim. That of a device for each CPU has no
// room for so many: there, what belongs together has a claim of its own.
func (o *offer) claimsOf(groups ...together) []*resourceapi.ResourceClaim {
	var claims []*resourceapi.ResourceClaim
	for _, requests := range groups {
		if o.perCPU || len(claims) == 0 {
			claims = append(claims, newClaim(len(claims)))
		}
		devices := &claims[len(claims)-1].Spec.Devices
		devices.Requests = append(devices.Requests, requests...)
		if o.perCPU || len(requests) > 1 {
			devices.Constraints = append(devices.Constraints, sameNode(requests))
		}
	}
	return claims
}

func newClaim(i int) *resourceapi.ResourceClaim {
	name := fmt.Sprintf("claim-%d", i)
	return &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
}

func sameNode(requests together) resourceapi.DeviceConstraint {
	c := resourceapi.DeviceConstraint{
		MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(deviceattribute.StandardDeviceAttributeNUMANode)),
	}
	for _, r := range requests {
		c.Requests = append(c.Requests, r.Name)
	}
	return c
}

// several asks for CPUs several times, each time of one NUMA node.
func (o *offer) several(n int, cpus int64) []*resourceapi.ResourceClaim {
	var groups []together
	for i := range n {
		groups = append(groups, together{o.wantCPUs(fmt.Sprintf("cpus-%d", i), cpus)})
	}
	return o.claimsOf(groups...)
}

// counted asks once for 8 CPUs of each of 8 NUMA nodes.
func (o *offer) counted() []*resourceapi.ResourceClaim {
	r := o.wantCPUs("cpus", 8)
	r.Exactly.Count = 8
	return o.claimsOf(together{r})
}

// The parts of a pair, of which the CPUs are 8.
const (
	partCPUs = "cpus"
	partGPU  = "gpu"
	partNIC  = "nic"
)

// pairs asks so many times for the parts, in this order.
func (o *offer) pairs(n int, parts ...string) []*resourceapi.ResourceClaim {
	var groups []together
	for i := range n {
		var pair together
		for _, part := range parts {
			name := fmt.Sprintf("%s-%d", part, i)
			switch part {
			case partGPU:
				pair = append(pair, want(name, driverGPU, 1))
			case partNIC:
				pair = append(pair, want(name, driverNIC, 1))
			default:
				pair = append(pair, o.wantCPUs(name, 8))
			}
		}
		groups = append(groups, pair)
	}
	return o.claimsOf(groups...)
}

// pairsApart asks for 8 pairs with all GPUs first, then all network functions, then
// all CPUs.
func (o *offer) pairsApart() []*resourceapi.ResourceClaim {
	const n = 8
	claims := o.pairs(n, partGPU, partNIC, partCPUs)
	requests := claims[0].Spec.Devices.Requests
	var apart together
	for part := range 3 {
		for i := range n {
			apart = append(apart, requests[3*i+part])
		}
	}
	claims[0].Spec.Devices.Requests = apart
	return claims
}

// wholeMachine asks for all GPUs, and in a second claim, as one has no room for
// everything, for all network functions and CPUs of each NUMA node that has some: 8
// for each GPU.
func (o *offer) wholeMachine() []*resourceapi.ResourceClaim {
	gpus, nics := want("gpus", driverGPU, 0), want("nics", driverNIC, 0)
	gpus.Exactly.AllocationMode = resourceapi.DeviceAllocationModeAll
	nics.Exactly.AllocationMode = resourceapi.DeviceAllocationModeAll
	places := map[int]bool{}
	for _, gpu := range o.gpus {
		places[nodeOf(gpu)] = true
	}
	beside := o.wantCPUs("cpus", int64(8*len(o.gpus)/len(places)))
	beside.Exactly.Count = int64(len(places))
	beside.Exactly.Selectors = []resourceapi.DeviceSelector{{
		CEL: &resourceapi.CELDeviceSelector{Expression: `device.attributes["topolet.dev"].networkFunctions > 0`},
	}}
	first, second := newClaim(0), newClaim(1)
	first.Spec.Devices.Requests = together{gpus}
	second.Spec.Devices.Requests = together{nics, beside}
	return []*resourceapi.ResourceClaim{first, second}
}

// halfMachine asks for 4 GPUs, 4 network functions and 32 CPUs of one NUMA node.
func (o *offer) halfMachine() []*resourceapi.ResourceClaim {
	return o.claimsOf(together{want("gpus", driverGPU, 4), want("nics", driverNIC, 4), o.wantCPUs("cpus", 32)})
}
