package draplugin

import (
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/allocator"
)

// Slices returns what the driver publishes of the ledger on a node of that name, as
// the scheduler reads it.
func Slices(ledger *allocator.Ledger, nodeName string) []*resourceapi.ResourceSlice {
	p := &Plugin{opts: Options{NodeName: nodeName}, ledger: ledger}
	published := p.resources(ledger.Conflicts()).Pools[nodeName].Slices
	slices := make([]*resourceapi.ResourceSlice, 0, len(published))
	for i, slice := range published {
		slices = append(slices, &resourceapi.ResourceSlice{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%s-%d", nodeName, DriverName, i)},
			Spec: resourceapi.ResourceSliceSpec{
				Driver:         DriverName,
				NodeName:       &nodeName,
				Pool:           resourceapi.ResourcePool{Name: nodeName, Generation: 1, ResourceSliceCount: int64(len(published))},
				Devices:        slice.Devices,
				SharedCounters: slice.SharedCounters,
			},
		})
	}
	return slices
}

// Grant does with an allocated claim what the preparation of it does to the ledger,
// and nothing else.
func Grant(ledger *allocator.Ledger, claim *resourceapi.ResourceClaim, nodeName string) (allocator.Grant, error) {
	owner, requests, err := translate(claim, nodeName)
	if err != nil {
		return allocator.Grant{}, err
	}
	return ledger.Grant(owner, requests)
}

// Consumed is what a part of a grant consumes of its device, as the claim's
// allocation says it. Whether the claim asked for more than one of the device's
// tenants is not in a grant.
func Consumed(part allocator.Part) map[resourceapi.QualifiedName]resource.Quantity {
	if allocator.IsMemory(part.Domain) {
		consumed := map[resourceapi.QualifiedName]resource.Quantity{}
		for _, p := range part.Memory {
			consumed[pagesCapacity(p.SizeBytes)] = bytesQuantity(p.Bytes)
		}
		return consumed
	}
	if part.Hardware != nil {
		consumed := map[resourceapi.QualifiedName]resource.Quantity{}
		for _, a := range part.Amounts {
			consumed[qualified(a.Name)] = bytesQuantity(a.Amount)
		}
		return consumed
	}
	return map[resourceapi.QualifiedName]resource.Quantity{
		CapacityCPUs:    *quantity(int64(part.Count)),
		CapacityTenants: *quantity(1),
	}
}
