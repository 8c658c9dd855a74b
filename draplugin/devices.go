package draplugin

import (
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
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

// Devices returns a consumable device for each domain, in the same order and
// under the same name. A domain of so many units that the API has no room for its
// counters is left out: a machine level of more than 64.
func Devices(inv *allocator.Inventory) []resourceapi.Device {
	devices := make([]resourceapi.Device, 0, len(inv.Domains))
	counters := countersOf(inv.Domains)
	for _, d := range inv.Domains {
		consumed := counters.consumedBy(d)
		if len(consumed) > resourceapi.ResourceSliceMaxDeviceCounterConsumptionsPerDevice {
			continue
		}
		cpus, threads := int64(d.CPUs.Size()), int64(d.ThreadsPerCore)
		devices = append(devices, resourceapi.Device{
			Name:                     d.Name,
			Attributes:               attributes(inv.Machine, d),
			AllowMultipleAllocations: ptr.To(true),
			ConsumesCounters:         consumed,
			Capacity: map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{
				CapacityCPUs:    capacity(cpus, threads),
				CapacityTenants: capacity(cpus/threads, 1),
			},
		})
	}
	return devices
}

func attributes(m *topology.Machine, d *allocator.Domain) map[resourceapi.QualifiedName]resourceapi.DeviceAttribute {
	attrs := map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
		AttributeLevel:            {StringValue: ptr.To(string(d.Level))},
		AttributeCoreType:         {StringValue: ptr.To(string(d.CoreType))},
		AttributeThreadsPerCore:   {IntValue: ptr.To(int64(d.ThreadsPerCore))},
		AttributeIsolated:         {BoolValue: ptr.To(d.Isolated)},
		AttributeNetworkFunctions: {IntValue: ptr.To(functionsNear(m, d, classNetwork))},
		AttributeNVMeFunctions:    {IntValue: ptr.To(functionsNear(m, d, classNVMe))},
	}
	if node := d.NUMANode(); node != topology.None {
		attrs[deviceattribute.StandardDeviceAttributeNUMANode] = resourceapi.DeviceAttribute{IntValue: ptr.To(int64(node))}
	}
	if d.Socket != topology.None {
		attrs[AttributeSocket] = resourceapi.DeviceAttribute{IntValue: ptr.To(int64(d.Socket))}
	}
	return attrs
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
			f.PhysicalFunction == topology.None &&
			(slices.Contains(d.NUMANodes, f.Locality.NUMANode) || len(m.NUMANodes) == 0) {
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
