package draplugin

import (
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
	// AttributeCPUSet is in the metadata of a prepared claim only: the CPUs that
	// it got.
	AttributeCPUSet resourceapi.QualifiedName = DriverName + "/cpuset"
)

// LevelNUMA is the value of [AttributeLevel] of a device that stands for the
// CPUs of one NUMA node.
const LevelNUMA = "numa"

// Devices returns a consumable device for each domain, in the same order and
// under the same name.
func Devices(domains []*allocator.Domain) []resourceapi.Device {
	devices := make([]resourceapi.Device, 0, len(domains))
	for _, d := range domains {
		cpus, threads := int64(d.CPUs.Size()), int64(d.ThreadsPerCore)
		devices = append(devices, resourceapi.Device{
			Name:                     d.Name,
			Attributes:               attributes(d),
			AllowMultipleAllocations: ptr.To(true),
			Capacity: map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{
				CapacityCPUs:    capacity(cpus, threads),
				CapacityTenants: capacity(cpus/threads, 1),
			},
		})
	}
	return devices
}

func attributes(d *allocator.Domain) map[resourceapi.QualifiedName]resourceapi.DeviceAttribute {
	attrs := map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
		AttributeLevel:          {StringValue: ptr.To(LevelNUMA)},
		AttributeCoreType:       {StringValue: ptr.To(string(d.CoreType))},
		AttributeThreadsPerCore: {IntValue: ptr.To(int64(d.ThreadsPerCore))},
		AttributeIsolated:       {BoolValue: ptr.To(false)},
	}
	if d.NUMANode != topology.None {
		attrs[deviceattribute.StandardDeviceAttributeNUMANode] = resourceapi.DeviceAttribute{IntValue: ptr.To(int64(d.NUMANode))}
	}
	if d.Socket != topology.None {
		attrs[AttributeSocket] = resourceapi.DeviceAttribute{IntValue: ptr.To(int64(d.Socket))}
	}
	return attrs
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
