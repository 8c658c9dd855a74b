package draplugin

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// Capacities of CPU devices. Claims must ask for them by these names: the
// scheduler compares them literally.
const (
	// CapacityCPUs is the number of CPUs, consumed in whole cores.
	CapacityCPUs resourceapi.QualifiedName = DriverName + "/cpus"
	// CapacityTenants is the number of claims that fit at most. A claim that
	// asks for all of it has the device to itself.
	CapacityTenants resourceapi.QualifiedName = DriverName + "/tenants"
)

// Attributes of CPU devices, beside the standard NUMA node.
const (
	AttributeLevel          resourceapi.QualifiedName = DriverName + "/level"
	AttributeSocket         resourceapi.QualifiedName = DriverName + "/socket"
	AttributeCoreType       resourceapi.QualifiedName = DriverName + "/coreType"
	AttributeThreadsPerCore resourceapi.QualifiedName = DriverName + "/threadsPerCore"
	AttributeIsolated       resourceapi.QualifiedName = DriverName + "/isolated"
	// AttributeFamily is what a device is: [FamilyCPU] or [FamilyMemory].
	AttributeFamily resourceapi.QualifiedName = DriverName + "/family"
	// AttributeCPUNode is the NUMA node of a device's CPUs, or of those nearest to its
	// memory. Memory without CPUs, such as a high-bandwidth stack, has another one
	// than its own.
	AttributeCPUNode resourceapi.QualifiedName = DriverName + "/cpuNUMANode"
	// AttributeNetworkFunctions and AttributeNVMeFunctions count the PCI functions
	// of these classes on the device's NUMA nodes, virtual functions left out. By
	// them a claim gets CPUs beside the host's own network card or disk, which no
	// driver publishes.
	AttributeNetworkFunctions resourceapi.QualifiedName = DriverName + "/networkFunctions"
	AttributeNVMeFunctions    resourceapi.QualifiedName = DriverName + "/nvmeFunctions"
	// AttributeCPUSet is in the metadata of a prepared claim only: the CPUs that
	// it got.
	AttributeCPUSet resourceapi.QualifiedName = DriverName + "/cpuset"
)

// The families of devices.
const (
	FamilyCPU    = "cpu"
	FamilyMemory = "memory"
)

// Publication says what is published that not every cluster understands.
type Publication struct {
	// Lists publishes attributes of several values (feature gate
	// DRAListTypeAttributes).
	Lists bool
	// NodeAllocatable has the scheduler count what claims hold as requested by their
	// pods (feature gate DRANodeAllocatableResources, KEP-5517).
	NodeAllocatable bool

	// oneFace leaves out the vfio devices of functions that have a kernel device too. The
	// scheduler cannot tell that they are one where the API server drops counters.
	oneFace bool
}

// Devices returns a consumable device for each domain, in the same order and
// under the same name, then those of memory, then everything else. A domain of so many
// units that the API has no room for its counters is left out: a machine level of more
// than 64; and so is hardware of more than 63 parts.
func Devices(inv *allocator.Inventory, publication Publication) []resourceapi.Device {
	devices := make([]resourceapi.Device, 0, len(inv.Domains)+len(inv.Memory)+len(inv.Devices))
	counters := countersOf(inv.Domains)
	for _, d := range inv.Domains {
		consumed := counters.consumedBy(d)
		if len(consumed) > resourceapi.ResourceSliceMaxDeviceCounterConsumptionsPerDevice {
			continue
		}
		cpus, threads := int64(d.CPUs.Size()), int64(d.ThreadsPerCore)
		device := resourceapi.Device{
			Name:                     d.Name,
			Attributes:               attributes(inv.Machine, d, publication.Lists),
			AllowMultipleAllocations: ptr.To(true),
			ConsumesCounters:         consumed,
			Capacity: map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{
				CapacityCPUs:    capacity(cpus, threads),
				CapacityTenants: capacity(cpus/threads, 1),
			},
		}
		if publication.NodeAllocatable {
			device.NodeAllocatableResources = counting(corev1.ResourceCPU, CapacityCPUs)
		}
		devices = append(devices, device)
	}
	for _, d := range inv.Memory {
		devices = append(devices, memoryDevice(d, publication))
	}
	uses := hardwareCountersOf(inv.Devices)
	for i := range inv.Devices {
		if d := &inv.Devices[i]; uses.fits(d) && (!publication.oneFace || !isSecondFace(d, inv)) {
			devices = append(devices, hardwareDevice(d, uses))
		}
	}
	return devices
}

// isSecondFace reports whether a device is for handing a function over that can be used
// through its own driver as well.
func isSecondFace(d *device.Device, inv *allocator.Inventory) bool {
	return d.Managed && slices.ContainsFunc(inv.Devices, func(other device.Device) bool {
		return other.Personality == device.Kernel && other.Address == d.Address
	})
}

// counting has the scheduler count what is consumed of a capacity as the node's
// resource of another name.
func counting(name corev1.ResourceName, capacity resourceapi.QualifiedName) map[corev1.ResourceName]resourceapi.NodeAllocatableResource {
	return map[corev1.ResourceName]resourceapi.NodeAllocatableResource{
		name: {Mapping: &resourceapi.NodeAllocatableMapping{CapacityKey: &capacity, CapacityMultiplier: quantity(1)}},
	}
}

func attributes(m *topology.Machine, d *allocator.Domain, lists bool) map[resourceapi.QualifiedName]resourceapi.DeviceAttribute {
	attrs := map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
		AttributeFamily:           {StringValue: ptr.To(FamilyCPU)},
		AttributeLevel:            {StringValue: ptr.To(string(d.Level))},
		AttributeCoreType:         {StringValue: ptr.To(string(d.CoreType))},
		AttributeThreadsPerCore:   {IntValue: ptr.To(int64(d.ThreadsPerCore))},
		AttributeIsolated:         {BoolValue: ptr.To(d.Isolated)},
		AttributeNetworkFunctions: {IntValue: ptr.To(functionsNear(m, d, classNetwork))},
		AttributeNVMeFunctions:    {IntValue: ptr.To(functionsNear(m, d, classNVMe))},
	}
	if node := d.NUMANode(); node != topology.None {
		attrs[AttributeCPUNode] = resourceapi.DeviceAttribute{IntValue: ptr.To(int64(node))}
	}
	var nodes []int64
	for _, node := range d.NUMANodes {
		nodes = append(nodes, int64(node))
	}
	setAttribute(attrs, deviceattribute.StandardDeviceAttributeNUMANode, lists, nodes, resourceapi.DeviceAttribute{IntValues: nodes},
		func(n int64) resourceapi.DeviceAttribute { return resourceapi.DeviceAttribute{IntValue: &n} })
	roots := rootsNear(m, d)
	setAttribute(attrs, deviceattribute.StandardDeviceAttributePCIeRoot, lists, roots, resourceapi.DeviceAttribute{StringValues: roots},
		func(s string) resourceapi.DeviceAttribute { return resourceapi.DeviceAttribute{StringValue: &s} })
	if d.Socket != topology.None {
		attrs[AttributeSocket] = resourceapi.DeviceAttribute{IntValue: ptr.To(int64(d.Socket))}
	}
	return attrs
}

// setAttribute sets the attribute to its only value; or to all of them, where lists
// are published and the API has room for so many.
func setAttribute[T any](attrs map[resourceapi.QualifiedName]resourceapi.DeviceAttribute, name resourceapi.QualifiedName, lists bool,
	values []T, list resourceapi.DeviceAttribute, scalar func(T) resourceapi.DeviceAttribute,
) {
	switch {
	case len(values) == 1:
		attrs[name] = scalar(values[0])
	case len(values) > 1 && lists && len(values) <= maxListValues:
		attrs[name] = list
	}
}

// maxListValues leaves room for two lists and the scalar attributes among the values
// that the API allows for a device.
const maxListValues = resourceapi.ResourceSliceMaxAttributeValuesPerDevice/2 - 8

// rootsNear are the PCIe roots with functions on a domain's NUMA nodes, as Kubernetes
// names them; on a machine without NUMA, all.
func rootsNear(m *topology.Machine, d *allocator.Domain) []string {
	var roots []string
	for _, f := range m.PCI.Functions {
		if f.Root == topology.None || !isNear(m, d, f) {
			continue
		}
		if root := m.PCI.Roots[f.Root].String(); !slices.Contains(roots, root) {
			roots = append(roots, root)
		}
	}
	slices.Sort(roots)
	return roots
}

func isNear(m *topology.Machine, d *allocator.Domain, f topology.PCIFunction) bool {
	return slices.Contains(d.NUMANodes, f.Locality.NUMANode) || len(m.NUMANodes) == 0
}

// pciClass is the leading part of a PCI class, and by how many bits it leads.
type pciClass struct{ code, shift int }

var (
	classNetwork = pciClass{0x02, 16}
	classNVMe    = pciClass{0x010802, 0}
)

// functionsNear counts the physical functions of a class on a domain's NUMA nodes;
// on a machine without NUMA, those everywhere.
func functionsNear(m *topology.Machine, d *allocator.Domain, class pciClass) int64 {
	var n int64
	for _, f := range m.PCI.Functions {
		if f.Class != topology.None && f.Class>>class.shift == class.code &&
			f.PhysicalFunction == topology.None && isNear(m, d, f) {
			n++
		}
	}
	return n
}

// capacity is consumed in multiples of step, and step of it by a request that
// does not name it.
func capacity(value, step int64) resourceapi.DeviceCapacity {
	policy := &resourceapi.CapacityRequestPolicy{Default: quantity(step)}
	if value >= 2*step {
		policy.ValidRange = &resourceapi.CapacityRequestPolicyRange{Min: quantity(step), Step: quantity(step)}
	} else {
		// The API refuses a range whose minimum plus step exceeds the value.
		policy.ValidValues = []resource.Quantity{*quantity(step)}
	}
	return resourceapi.DeviceCapacity{Value: *quantity(value), RequestPolicy: policy}
}

func quantity(n int64) *resource.Quantity { return resource.NewQuantity(n, resource.DecimalSI) }
