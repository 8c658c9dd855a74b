package draplugin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"
)

// The feature gates of what is published only where it is asked for.
const (
	gateLists           = "DRAListTypeAttributes"
	gateNodeAllocatable = "DRANodeAllocatableResources"
)

// gateCounters is the feature gate without which devices do not exclude each other.
const gateCounters = "DRAPartitionableDevices"

// dropped is what the API server has dropped of the published devices, because
// feature gates are off.
type dropped struct {
	mu    sync.Mutex
	gates []string
}

// add notes the gates and returns those that are new. The driver's library publishes
// again and again; people need to hear it once.
func (d *dropped) add(gates []string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	fresh := slices.DeleteFunc(slices.Clone(gates), func(gate string) bool { return slices.Contains(d.gates, gate) })
	d.gates = append(d.gates, fresh...)
	return fresh
}

func (d *dropped) has(gate string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.gates, gate)
}

// CountsClaims reports whether the scheduler counts what claims hold as requested by
// their pods: that it was asked to, and that nothing is known of its refusal.
func (p *Plugin) CountsClaims() bool {
	return p.opts.Publication.NodeAllocatable && !p.dropped.has(gateNodeAllocatable)
}

// handleDropped tells people which feature gates are off, and what that means.
func (p *Plugin) handleDropped(ctx context.Context, err *resourceslice.DroppedFieldsError) {
	gates := gatesOff(err)
	needed := slices.DeleteFunc(slices.Clone(gates), func(gate string) bool { return gate == gateLists || gate == gateNodeAllocatable })
	if fresh := p.dropped.add(needed); len(fresh) > 0 {
		p.warnDropped(ctx, err, "so claims for CPUs cannot be allocated: switch on the feature gates "+
			strings.Join(fresh, " ")+" in kube-apiserver, kube-scheduler and kubelet")
		p.Refresh() // without counters less is published
	}
	for gate, remedy := range map[string]string{
		gateLists:           "set listAttributes to false",
		gateNodeAllocatable: "set nodeAllocatable to false, and let pods request the CPUs of their claims",
	} {
		if slices.Contains(gates, gate) && len(p.dropped.add([]string{gate})) > 0 {
			p.warnDropped(ctx, err, fmt.Sprintf("which its configuration asks for: switch on the feature gate %s "+
				"in kube-apiserver, kube-scheduler and kubelet, or %s", gate, remedy))
		}
	}
}

func (p *Plugin) warnDropped(ctx context.Context, err error, meaning string) {
	said := "The API server drops fields that topolet publishes, " + meaning
	klog.FromContext(ctx).Error(err, said)
	p.notifier.Warn(ctx, "FeatureGatesOff", said)
}

// gatesOff are the feature gates whose fields are missing in what the API server
// keeps; those that the library does not look for are found here.
func gatesOff(err *resourceslice.DroppedFieldsError) []string {
	gates := err.DisabledFeatures()
	if err.DesiredSlice == nil || err.ActualSlice == nil {
		return gates
	}
	desired, actual := err.DesiredSlice.Spec.Devices, err.ActualSlice.Spec.Devices
	for i := range min(len(desired), len(actual)) {
		if len(desired[i].NodeAllocatableResources) > len(actual[i].NodeAllocatableResources) && !slices.Contains(gates, gateNodeAllocatable) {
			gates = append(gates, gateNodeAllocatable)
		}
		if lists(desired[i]) > lists(actual[i]) && !slices.Contains(gates, gateLists) {
			gates = append(gates, gateLists)
		}
	}
	return gates
}

// lists is the number of attributes with several values.
func lists(device resourceapi.Device) int {
	n := 0
	for _, a := range device.Attributes {
		if len(a.IntValues)+len(a.StringValues) > 0 {
			n++
		}
	}
	return n
}
