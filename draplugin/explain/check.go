package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// check refuses what the API server would refuse and what would lead the allocator
// astray, and fills in the API's defaults. It is not all of the API's validation.
func (o Object) check() error {
	switch v := o.Value.(type) {
	case *resourceapi.ResourceClaim:
		return o.checkClaim("spec.devices", &v.Spec.Devices)
	case *resourceapi.ResourceClaimTemplate:
		return o.checkClaim("spec.spec.devices", &v.Spec.Spec.Devices)
	case *resourceapi.DeviceClass:
		return o.checkClass(v)
	case *corev1.Pod:
		return o.checkPod(v)
	}
	return nil
}

func (o Object) checkClaim(at string, devices *resourceapi.DeviceClaim) error {
	if len(devices.Requests) == 0 {
		return o.wrong(at+".requests", "", "ask for at least one device")
	}
	names := map[string]bool{}
	for i := range devices.Requests {
		r := &devices.Requests[i]
		field := fmt.Sprintf("%s.requests[%d]", at, i)
		switch {
		case r.Name == "" || strings.Contains(r.Name, "/"):
			return o.wrong(field+".name", r.Name, "give the request a name, without a slash")
		case names[r.Name]:
			return o.wrong(field+".name", r.Name, "give each request a name of its own")
		case (r.Exactly == nil) == (len(r.FirstAvailable) == 0):
			return o.wrong(field, r.Name, "use either exactly or firstAvailable")
		}
		names[r.Name] = true
		if r.Exactly != nil {
			e := r.Exactly
			if err := o.checkRequest(field+".exactly", e.DeviceClassName, &e.AllocationMode, &e.Count, e.Selectors, e.Capacity); err != nil {
				return err
			}
		}
		for j := range r.FirstAvailable {
			sub := &r.FirstAvailable[j]
			field := fmt.Sprintf("%s.firstAvailable[%d]", field, j)
			full := r.Name + "/" + sub.Name
			if sub.Name == "" || names[full] {
				return o.wrong(field+".name", sub.Name, "give each alternative a name of its own")
			}
			names[full] = true
			if err := o.checkRequest(field, sub.DeviceClassName, &sub.AllocationMode, &sub.Count, sub.Selectors, sub.Capacity); err != nil {
				return err
			}
		}
	}
	for i, c := range devices.Constraints {
		field := fmt.Sprintf("%s.constraints[%d]", at, i)
		if (c.MatchAttribute == nil) == (c.DistinctAttribute == nil) {
			return o.wrong(field, "", "use either matchAttribute or distinctAttribute")
		}
		if err := o.checkNames(field, c.Requests, names); err != nil {
			return err
		}
	}
	for i, c := range devices.Config {
		field := fmt.Sprintf("%s.config[%d]", at, i)
		if c.Opaque == nil {
			return o.wrong(field+".opaque", "", "say driver and parameters")
		}
		if err := o.checkNames(field, c.Requests, names); err != nil {
			return err
		}
	}
	return nil
}

// checkRequest checks what a request and an alternative have in common.
func (o Object) checkRequest(at, class string, mode *resourceapi.DeviceAllocationMode, count *int64,
	selectors []resourceapi.DeviceSelector, capacity *resourceapi.CapacityRequirements) error {
	if class == "" {
		return o.wrong(at+".deviceClassName", "", "name a DeviceClass, such as cpu.topolet.dev")
	}
	if *mode == "" {
		*mode = resourceapi.DeviceAllocationModeExactCount
	}
	switch *mode {
	case resourceapi.DeviceAllocationModeExactCount:
		if *count == 0 {
			*count = 1
		}
		if *count < 0 || *count > resourceapi.AllocationResultsMaxSize {
			return o.wrong(at+".count", fmt.Sprint(*count), fmt.Sprintf("ask for 1 to %d devices; how many CPUs is capacity.requests", resourceapi.AllocationResultsMaxSize))
		}
	case resourceapi.DeviceAllocationModeAll:
		if *count != 0 {
			return o.wrong(at+".count", fmt.Sprint(*count), "leave it out with allocationMode All")
		}
	default:
		return o.wrong(at+".allocationMode", string(*mode), "use ExactCount or All")
	}
	for i, s := range selectors {
		if s.CEL == nil {
			return o.wrong(fmt.Sprintf("%s.selectors[%d].cel", at, i), "", "say an expression")
		}
	}
	if capacity == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(capacity.Requests)) {
		if q := capacity.Requests[name]; q.Sign() < 0 {
			return o.wrong(fmt.Sprintf("%s.capacity.requests[%s]", at, name), q.String(), "ask for more than nothing")
		}
	}
	return nil
}

func (o Object) checkNames(at string, requests []string, names map[string]bool) error {
	for i, name := range requests {
		if !names[name] {
			return o.wrong(fmt.Sprintf("%s.requests[%d]", at, i), name,
				"name one of the claim's requests: "+strings.Join(slices.Sorted(maps.Keys(names)), ", "))
		}
	}
	return nil
}

func (o Object) checkClass(class *resourceapi.DeviceClass) error {
	for i, s := range class.Spec.Selectors {
		if s.CEL == nil {
			return o.wrong(fmt.Sprintf("spec.selectors[%d].cel", i), "", "say an expression")
		}
	}
	for i, c := range class.Spec.Config {
		if c.Opaque == nil {
			return o.wrong(fmt.Sprintf("spec.config[%d].opaque", i), "", "say driver and parameters")
		}
	}
	return nil
}

func (o Object) checkPod(pod *corev1.Pod) error {
	for i, c := range pod.Spec.ResourceClaims {
		field := fmt.Sprintf("spec.resourceClaims[%d]", i)
		if c.Name == "" {
			return o.wrong(field+".name", "", "give the claim a name, by which containers name it")
		}
		if (c.ResourceClaimName == nil) == (c.ResourceClaimTemplateName == nil) {
			return o.wrong(field, c.Name, "use either resourceClaimName or resourceClaimTemplateName")
		}
	}
	return nil
}

// badQuantity finds the first capacity or resource in a document that is no
// quantity.
func badQuantity(at string, tree any) (field, value string, found bool) {
	switch node := tree.(type) {
	case []any:
		for i, child := range node {
			if field, value, found = badQuantity(fmt.Sprintf("%s[%d]", at, i), child); found {
				return field, value, true
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(node)) {
			child := strings.TrimPrefix(at+"."+key, ".")
			if text, ok := node[key].(string); ok && (strings.HasSuffix(at, ".requests") || strings.HasSuffix(at, ".limits")) {
				if _, err := resource.ParseQuantity(text); err != nil {
					return fmt.Sprintf("%s[%s]", at, key), text, true
				}
			}
			if field, value, found = badQuantity(child, node[key]); found {
				return field, value, true
			}
		}
	}
	return "", "", false
}
