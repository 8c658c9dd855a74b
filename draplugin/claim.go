package draplugin

import (
	"fmt"
	"strings"

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
		request := allocator.Request{
			Name:   resourceclaim.BaseRequestRef(result.Request),
			Domain: result.Device,
			Share:  string(ptr.Deref(result.ShareID, types.UID(""))),
			Admin:  ptr.Deref(result.AdminAccess, false),
		}
		var err error
		if allocator.IsMemory(result.Device) || allocator.IsCPUs(result.Device) {
			err = fillCPUsOrMemory(&request, result, devices.Config, field)
		} else {
			err = fillHardware(&request, result, devices.Config, field)
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

// fillCPUsOrMemory adds what the result and its configuration say.
func fillCPUsOrMemory(r *allocator.Request, result resourceapi.DeviceRequestAllocationResult, configs []resourceapi.DeviceAllocationConfiguration, field string) error {
	if r.Admin {
		return &ClaimError{field + ".adminAccess", "true", "what is somebody's own cannot be shared: ask without adminAccess"}
	}
	config, err := configOf(result, configs, v1alpha1.DefaultCPUConfig(), v1alpha1.DecodeCPUConfig)
	if err != nil {
		return err
	}
	r.ManyPods = config.Sharing == v1alpha1.ManyPods
	if allocator.IsMemory(result.Device) {
		r.Memory, err = consumedMemory(result, field)
		return err
	}
	r.SharedPool = config.SharedPool == v1alpha1.Include
	r.IdleSiblings = config.Siblings == v1alpha1.Idle
	r.LocalMemory = config.Memory == v1alpha1.Local
	r.Isolated = config.LoadBalancing == v1alpha1.Disabled
	r.Count, err = consumedCPUs(result, field)
	return err
}

// fillHardware adds what the result and its configuration say of any other device. Like
// with other drivers of such devices, every pod that the claim is reserved for may use it;
// but a network interface is in one pod only.
func fillHardware(r *allocator.Request, result resourceapi.DeviceRequestAllocationResult, configs []resourceapi.DeviceAllocationConfiguration, field string) error {
	config, err := configOf(result, configs, v1alpha1.DefaultDeviceConfig(), v1alpha1.DecodeDeviceConfig)
	if err != nil {
		return err
	}
	r.ManyPods = !strings.HasPrefix(result.Device, "nic-")
	if r.Roles, err = rolesOf(result.Device, config); err != nil {
		return fmt.Errorf("devices.config[].opaque.parameters for request %q: %w", result.Request, err)
	}
	switch c := config.(type) {
	case v1alpha1.NVMeConfig:
		r.ReadOnly = c.ReadOnly
	case v1alpha1.PCIConfig:
		r.ResetOnRelease = c.ResetOnRelease
	case v1alpha1.FPGAConfig:
		r.Program = c.AFUID
	}
	r.Amounts, err = consumedAmounts(result, field)
	return err
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
func configOf[C any](result resourceapi.DeviceRequestAllocationResult, configs []resourceapi.DeviceAllocationConfiguration,
	config C, decode func([]byte) (C, error),
) (C, error) {
	for _, c := range resourceclaim.ConfigForResult(configs, result) {
		if c.Opaque.Driver != DriverName {
			continue
		}
		decoded, err := decode(c.Opaque.Parameters.Raw)
		if err != nil {
			return config, fmt.Errorf("devices.config[].opaque.parameters for request %q (%s): %w", result.Request, c.Source, err)
		}
		config = decoded
	}
	return config, nil
}
