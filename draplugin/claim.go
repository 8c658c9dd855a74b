package draplugin

import (
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology"
)

// ClaimError says which field of a claim this driver cannot serve, and what
// would be right.
type ClaimError struct {
	Field  string
	Value  string
	Remedy string
}

func (e *ClaimError) Error() string {
	return fmt.Sprintf("%s: %q is not valid: %s", e.Field, e.Value, e.Remedy)
}

// translate turns an allocated claim into what the ledger understands: its
// owners and, for each allocation result that came from the pool, a request.
// Nothing of the claim is trusted: the scheduler keeps to what was published,
// but other writers of the status need not.
func translate(claim *resourceapi.ResourceClaim, pool string) (allocator.Claim, []allocator.Request, error) {
	owner := allocator.Claim{
		UID:       allocator.ClaimUID(claim.UID),
		Namespace: claim.Namespace,
		Name:      claim.Name,
	}
	for _, r := range claim.Status.ReservedFor {
		if r.APIGroup == "" && r.Resource == "pods" {
			owner.Pods = append(owner.Pods, allocator.PodUID(r.UID))
		}
	}
	if claim.Status.Allocation == nil {
		return owner, nil, &ClaimError{"status.allocation", "", "the scheduler must allocate the claim first"}
	}
	devices := claim.Status.Allocation.Devices

	var requests []allocator.Request
	for i, result := range devices.Results {
		if result.Driver != DriverName || result.Pool != pool {
			continue
		}
		field := fmt.Sprintf("status.allocation.devices.results[%d]", i)
		if ptr.Deref(result.AdminAccess, false) {
			return owner, nil, &ClaimError{field + ".adminAccess", "true", "what is somebody's own cannot be shared: ask without adminAccess"}
		}
		config, err := configOf(result, devices.Config)
		if err != nil {
			return owner, nil, err
		}
		request := allocator.Request{
			Name:     resourceclaim.BaseRequestRef(result.Request),
			Domain:   result.Device,
			Share:    string(ptr.Deref(result.ShareID, types.UID(""))),
			ManyPods: config.Sharing == v1alpha1.ManyPods,
		}
		if allocator.IsMemory(result.Device) {
			request.Memory, err = consumedMemory(result, field)
		} else {
			request.SharedPool = config.SharedPool == v1alpha1.Include
			request.IdleSiblings = config.Siblings == v1alpha1.Idle
			request.LocalMemory = config.Memory == v1alpha1.Local
			request.Isolated = config.LoadBalancing == v1alpha1.Disabled
			request.Count, err = consumedCPUs(result, field)
		}
		if err != nil {
			return owner, nil, err
		}
		requests = append(requests, request)
	}
	if len(requests) == 0 {
		return owner, nil, &ClaimError{"status.allocation.devices.results", "",
			fmt.Sprintf("no result is of driver %s and pool %s", DriverName, pool)}
	}
	return owner, requests, nil
}

const remedyConsumable = "the feature gate DRAConsumableCapacity must be on in kube-apiserver, kube-scheduler and kubelet"

func consumedCPUs(result resourceapi.DeviceRequestAllocationResult, field string) (int, error) {
	field = fmt.Sprintf("%s.consumedCapacity[%s]", field, CapacityCPUs)
	consumed, ok := result.ConsumedCapacity[CapacityCPUs]
	if !ok {
		return 0, &ClaimError{field, "", "the allocation does not say how many CPUs: " + remedyConsumable}
	}
	count := consumed.Value() // rounded up
	if consumed.Cmp(*quantity(count)) != 0 || count <= 0 || count > topology.MaxCPUs {
		return 0, &ClaimError{field, consumed.String(), fmt.Sprintf("ask for a whole number of CPUs between 1 and %d", topology.MaxCPUs)}
	}
	return int(count), nil
}

// configOf returns the configuration of an allocation result. The API lists
// what the class says before what the claim says; the last one counts.
func configOf(result resourceapi.DeviceRequestAllocationResult, configs []resourceapi.DeviceAllocationConfiguration) (v1alpha1.CPUConfig, error) {
	config := v1alpha1.DefaultCPUConfig()
	for _, c := range resourceclaim.ConfigForResult(configs, result) {
		if c.Opaque.Driver != DriverName {
			continue
		}
		decoded, err := v1alpha1.DecodeCPUConfig(c.Opaque.Parameters.Raw)
		if err != nil {
			return config, fmt.Errorf("devices.config[].opaque.parameters for request %q (%s): %w", result.Request, c.Source, err)
		}
		config = decoded
	}
	return config, nil
}
