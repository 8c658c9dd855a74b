package draplugin

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
)

// Capacities of memory devices, in bytes.
const (
	// CapacityMemory is ordinary memory.
	CapacityMemory resourceapi.QualifiedName = DriverName + "/memory"
	// capacityHugepages begins the names of the capacities of huge pages; the page size
	// follows: topolet.dev/hugepages2Mi.
	capacityHugepages resourceapi.QualifiedName = DriverName + "/hugepages"
)

// AttributeMemoryOnly says that a memory device's NUMA node has no CPUs.
const AttributeMemoryOnly resourceapi.QualifiedName = DriverName + "/memoryOnly"

// memoryDevice is the consumable device of a NUMA node's memory. A claim that does
// not say how much of some pages gets none of them.
func memoryDevice(d *allocator.MemoryDomain, publication Publication) resourceapi.Device {
	device := resourceapi.Device{
		Name:                     d.Name,
		Attributes:               memoryAttributes(d),
		AllowMultipleAllocations: ptr.To(true),
		Capacity:                 map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{},
	}
	for _, p := range d.Pages {
		name, step := pagesCapacity(p.SizeBytes), p.SizeBytes
		if p.SizeBytes == 0 {
			step = allocator.MemoryStep
		}
		device.Capacity[name] = resourceapi.DeviceCapacity{
			Value: bytesQuantity(p.Bytes),
			RequestPolicy: &resourceapi.CapacityRequestPolicy{
				Default:    quantity(0),
				ValidRange: &resourceapi.CapacityRequestPolicyRange{Min: quantity(0), Step: ptr.To(bytesQuantity(step))},
			},
		}
		if publication.NodeAllocatable {
			if device.NodeAllocatableResources == nil {
				device.NodeAllocatableResources = map[corev1.ResourceName]resourceapi.NodeAllocatableResource{}
			}
			maps.Copy(device.NodeAllocatableResources, counting(nodeResource(p.SizeBytes), name))
		}
	}
	return device
}

func memoryAttributes(d *allocator.MemoryDomain) map[resourceapi.QualifiedName]resourceapi.DeviceAttribute {
	attrs := map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
		AttributeFamily:     {StringValue: ptr.To(FamilyMemory)},
		AttributeMemoryOnly: {BoolValue: ptr.To(d.MemoryOnly)},
		deviceattribute.StandardDeviceAttributeNUMANode: {IntValue: ptr.To(int64(d.NUMANode))},
	}
	if len(d.CPUNodes) == 1 {
		attrs[AttributeCPUNode] = resourceapi.DeviceAttribute{IntValue: ptr.To(int64(d.CPUNodes[0]))}
	}
	return attrs
}

// pagesCapacity is the capacity of pages of a size; 0 means ordinary ones.
func pagesCapacity(size uint64) resourceapi.QualifiedName {
	if size == 0 {
		return CapacityMemory
	}
	return capacityHugepages + resourceapi.QualifiedName(sizeName(size))
}

// nodeResource is what Kubernetes calls the pages in pods and nodes.
func nodeResource(size uint64) corev1.ResourceName {
	if size == 0 {
		return corev1.ResourceMemory
	}
	return corev1.ResourceName(corev1.ResourceHugePagesPrefix + sizeName(size))
}

func sizeName(size uint64) string {
	q := bytesQuantity(size)
	return q.String()
}

func bytesQuantity(n uint64) resource.Quantity {
	return *resource.NewQuantity(int64(min(n, math.MaxInt64)), resource.BinarySI)
}

// consumedMemory is how much of which pages an allocation result took.
func consumedMemory(result resourceapi.DeviceRequestAllocationResult, field string) ([]allocator.Pages, error) {
	if result.ConsumedCapacity == nil {
		return nil, &ClaimError{field + ".consumedCapacity", "", "the allocation does not say how much memory: " + remedyConsumable}
	}
	var pages []allocator.Pages
	for name, consumed := range result.ConsumedCapacity {
		size, ok := pageSize(name)
		if !ok {
			continue
		}
		bytes, ok := bytesOf(consumed)
		if !ok {
			return nil, &ClaimError{fmt.Sprintf("%s.consumedCapacity[%s]", field, name), consumed.String(), "ask for a number of bytes"}
		}
		if bytes > 0 {
			pages = append(pages, allocator.Pages{SizeBytes: size, Bytes: bytes})
		}
	}
	slices.SortFunc(pages, func(a, b allocator.Pages) int { return cmp.Compare(a.SizeBytes, b.SizeBytes) })
	return pages, nil
}

// pageSize is the size of the pages that a capacity counts, 0 for ordinary ones.
func pageSize(capacity resourceapi.QualifiedName) (size uint64, ok bool) {
	if capacity == CapacityMemory {
		return 0, true
	}
	text, ok := strings.CutPrefix(string(capacity), string(capacityHugepages))
	if !ok {
		return 0, false
	}
	q, err := resource.ParseQuantity(text)
	if err != nil {
		return 0, false
	}
	size, ok = bytesOf(q)
	return size, ok && size > 0
}

// bytesOf is a quantity as a number that is not negative.
func bytesOf(q resource.Quantity) (uint64, bool) {
	if q.Sign() < 0 || q.CmpInt64(math.MaxInt64) > 0 {
		return 0, false
	}
	return uint64(q.Value()), true //nolint:gosec // checked above
}
