package draplugin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// Attributes that every device has which is neither CPUs nor memory; those of its family
// are beside them.
const (
	AttributePersonality resourceapi.QualifiedName = DriverName + "/personality"
	AttributeFunction    resourceapi.QualifiedName = DriverName + "/function"
	AttributeDriver      resourceapi.QualifiedName = DriverName + "/driver"
)

// hardwareDevice is a device of the machine as the scheduler sees it.
func hardwareDevice(d *device.Device, uses hardwareCounters) resourceapi.Device {
	published := resourceapi.Device{
		Name:             d.Name,
		Attributes:       hardwareAttributes(d),
		ConsumesCounters: uses.consumedBy(d),
	}
	if d.Shared {
		published.AllowMultipleAllocations = ptr.To(true)
	}
	for _, c := range d.Capacities {
		if published.Capacity == nil {
			published.Capacity = map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{}
		}
		published.Capacity[qualified(c.Name)] = hardwareCapacity(c, d.Shared)
	}
	for _, t := range d.Taints {
		published.Taints = append(published.Taints, resourceapi.DeviceTaint{
			Key: DriverName + "/" + string(t.Reason), Value: t.Value, Effect: resourceapi.DeviceTaintEffectNoSchedule,
		})
	}
	return published
}

func qualified(name string) resourceapi.QualifiedName {
	return resourceapi.QualifiedName(DriverName + "/" + name)
}

// hardwareCapacity is consumed by claims only where they share the device: the API knows
// no request policy for a device that is one claim's alone.
func hardwareCapacity(c device.Capacity, shared bool) resourceapi.DeviceCapacity {
	amount := func(n uint64) *resource.Quantity {
		if c.Bytes {
			return ptr.To(bytesQuantity(n))
		}
		return quantity(int64(n)) //nolint:gosec // bounded by discovery
	}
	published := resourceapi.DeviceCapacity{Value: *amount(c.Amount)}
	if !shared {
		return published
	}
	step := max(c.Step, 1)
	published.RequestPolicy = &resourceapi.CapacityRequestPolicy{Default: amount(c.Default)}
	if c.Min+step <= c.Amount {
		published.RequestPolicy.ValidRange = &resourceapi.CapacityRequestPolicyRange{Min: amount(c.Min), Step: amount(step)}
	} else {
		published.RequestPolicy.ValidValues = []resource.Quantity{*amount(c.Default)}
	}
	return published
}

func hardwareAttributes(d *device.Device) map[resourceapi.QualifiedName]resourceapi.DeviceAttribute {
	attrs := map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
		AttributeFamily:      {StringValue: ptr.To(d.Family)},
		AttributePersonality: {StringValue: ptr.To(string(d.Personality))},
	}
	if d.Function != "" {
		attrs[AttributeFunction] = resourceapi.DeviceAttribute{StringValue: ptr.To(string(d.Function))}
	}
	if d.Driver != "" {
		attrs[AttributeDriver] = resourceapi.DeviceAttribute{StringValue: ptr.To(d.Driver)}
	}
	if d.Address != "" {
		attrs[deviceattribute.StandardDeviceAttributePCIBusID] = resourceapi.DeviceAttribute{StringValue: ptr.To(d.Address)}
	}
	if d.Root != "" {
		attrs[deviceattribute.StandardDeviceAttributePCIeRoot] = resourceapi.DeviceAttribute{StringValue: ptr.To(d.Root)}
	}
	if d.NUMANode != topology.None {
		attrs[deviceattribute.StandardDeviceAttributeNUMANode] = resourceapi.DeviceAttribute{IntValue: ptr.To(int64(d.NUMANode))}
	}
	for name, v := range d.Attributes {
		if text, ok := v.AsText(); ok {
			attrs[qualified(name)] = resourceapi.DeviceAttribute{StringValue: &text}
		} else if number, ok := v.AsNumber(); ok {
			attrs[qualified(name)] = resourceapi.DeviceAttribute{IntValue: &number}
		} else if flag, ok := v.AsFlag(); ok {
			attrs[qualified(name)] = resourceapi.DeviceAttribute{BoolValue: &flag}
		}
	}
	return attrs
}

// hardwareCounters keep devices that are the same hardware from being given away
// together (KEP-4815): of each owner with several devices there is a counter of one for
// the whole and for each part. A part uses up its own, a whole all of them.
type hardwareCounters struct {
	sets []resourceapi.CounterSet
	// of are the names of each owner's sets, in order; in is the name of the set that has
	// a part's counter.
	of map[string][]string
	in map[device.Use]string
}

// wholeCounter is the name of the counter that only wholes use up.
const wholeCounter = "whole"

// hardwareCountersOf makes the sets. The API lets a device use two of them, so that an
// owner has room for 63 parts.
func hardwareCountersOf(devices []device.Device) hardwareCounters {
	c := hardwareCounters{of: map[string][]string{}, in: map[device.Use]string{}}
	parts, count := map[string][]string{}, map[string]int{}
	var owners []string
	for _, d := range devices {
		owner := d.Use.Owner
		if owner == "" {
			continue
		}
		if count[owner]++; count[owner] == 1 {
			owners = append(owners, owner)
		}
		if d.Use.Part != "" && !slices.Contains(parts[owner], d.Use.Part) {
			parts[owner] = append(parts[owner], d.Use.Part)
		}
	}
	slices.Sort(owners)
	for _, owner := range owners {
		if count[owner] < 2 {
			continue
		}
		slices.SortFunc(parts[owner], func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
		names := append([]string{wholeCounter}, parts[owner]...)
		for some := range slices.Chunk(names, resourceapi.ResourceSliceMaxCountersPerCounterSet) {
			set := resourceapi.CounterSet{Name: "fn-" + device.Dashed(owner), Counters: map[string]resourceapi.Counter{}}
			if n := len(c.of[owner]); n > 0 {
				set.Name += fmt.Sprintf("-%c", 'a'+n)
			}
			for _, name := range some {
				set.Counters[name] = one()
				c.in[device.Use{Owner: owner, Part: name}] = set.Name
			}
			c.sets = append(c.sets, set)
			c.of[owner] = append(c.of[owner], set.Name)
		}
	}
	return c
}

// consumedBy are the counters that a device uses up.
func (c hardwareCounters) consumedBy(d *device.Device) []resourceapi.DeviceCounterConsumption {
	if len(c.of[d.Use.Owner]) == 0 {
		return nil
	}
	if d.Use.Part != "" {
		return []resourceapi.DeviceCounterConsumption{{
			CounterSet: c.in[d.Use], Counters: map[string]resourceapi.Counter{d.Use.Part: one()},
		}}
	}
	var consumed []resourceapi.DeviceCounterConsumption
	for _, name := range c.of[d.Use.Owner] {
		i := slices.IndexFunc(c.sets, func(s resourceapi.CounterSet) bool { return s.Name == name })
		consumed = append(consumed, resourceapi.DeviceCounterConsumption{CounterSet: name, Counters: c.sets[i].Counters})
	}
	return consumed
}

// fits reports whether the API has room for the counters of a device.
func (c hardwareCounters) fits(d *device.Device) bool {
	return len(c.of[d.Use.Owner]) <= resourceapi.ResourceSliceMaxDeviceCounterConsumptionsPerDevice
}

// consumedAmounts are what an allocation result took of a device's capacities.
func consumedAmounts(result resourceapi.DeviceRequestAllocationResult, field string) ([]allocator.Amount, error) {
	var amounts []allocator.Amount
	for name, consumed := range result.ConsumedCapacity {
		short, ours := strings.CutPrefix(string(name), DriverName+"/")
		if !ours {
			continue
		}
		n, ok := bytesOf(consumed)
		if !ok {
			return nil, &ClaimError{fmt.Sprintf("%s.consumedCapacity[%s]", field, name), consumed.String(), "ask for a whole number that is not negative"}
		}
		if n > 0 {
			amounts = append(amounts, allocator.Amount{Name: short, Amount: n})
		}
	}
	slices.SortFunc(amounts, func(a, b allocator.Amount) int { return cmp.Compare(a.Name, b.Name) })
	return amounts, nil
}
