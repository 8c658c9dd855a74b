package explain

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"

	"github.com/topolet/topolet/draplugin"
)

// Refusal says why a request does not fit, or, without a Request, the claim as a
// whole; and what is nearest.
type Refusal struct {
	Request string `json:"request,omitempty"`
	Reason  string `json:"reason"`
	// Devices are those that the request's class selects.
	Devices []DeviceState `json:"devices,omitempty"`
	// Nearest are the largest amounts that would fit at present, each with all else
	// as it is asked for.
	Nearest []Nearest `json:"nearest,omitempty"`
}

// DeviceState says why a device does not serve a request.
type DeviceState struct {
	Device string `json:"device"`
	Reason string `json:"reason"`
}

// Nearest is a request that would fit.
type Nearest struct {
	Request  string `json:"request"`
	Capacity string `json:"capacity"`
	// Value is the largest that would fit of the capacity, for each device if the
	// request asks for several, and Devices where.
	Value   string   `json:"value"`
	Devices []string `json:"devices"`
}

// refuse says why a claim was not allocated.
func (e *explainer) refuse(ctx context.Context, c *Claim, k known) error {
	results, err := e.scheduler.allocate(ctx, k.claim)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && results != nil {
		c.Verdict = Waits
		return nil
	}
	c.Verdict = DoesNotFit
	var refusals []Refusal
	if err == nil {
		refusals, err = e.scheduler.diagnose(ctx, k.claim)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		refusals = append(refusals, Refusal{Reason: "kube-scheduler would report an error: " + oneLine(err)})
	}
	c.Refusals = append(c.Refusals, refusals...)
	return nil
}

// diagnose finds out why a claim does not fit: it asks the allocator for parts of
// it. The error is the allocator's.
func (s *scheduler) diagnose(ctx context.Context, claim *resourceapi.ResourceClaim) ([]Refusal, error) {
	var refusals []Refusal
	for i := range claim.Spec.Devices.Requests {
		alone := claim.DeepCopy()
		alone.Spec.Devices.Requests = alone.Spec.Devices.Requests[i : i+1]
		alone.Spec.Devices.Constraints, alone.Spec.Devices.Config = nil, nil
		found, err := s.allocate(ctx, alone)
		if err != nil {
			return refusals, err
		}
		if found != nil {
			continue
		}
		for _, alternative := range alternatives(alone) {
			refusal, err := s.whyNot(ctx, alternative)
			if err != nil {
				return refusals, err
			}
			refusals = append(refusals, refusal)
		}
	}
	if len(refusals) > 0 {
		return refusals, nil
	}
	refusal, err := s.whyNotTogether(ctx, claim)
	return append(refusals, refusal), err
}

// alternatives makes a claim of one request into one claim for each alternative of
// it.
func alternatives(claim *resourceapi.ResourceClaim) []*resourceapi.ResourceClaim {
	r := claim.Spec.Devices.Requests[0]
	if r.Exactly != nil {
		return []*resourceapi.ResourceClaim{claim}
	}
	var claims []*resourceapi.ResourceClaim
	for _, sub := range r.FirstAvailable {
		one := claim.DeepCopy()
		one.Spec.Devices.Requests = []resourceapi.DeviceRequest{{Name: r.Name + "/" + sub.Name, Exactly: &resourceapi.ExactDeviceRequest{
			DeviceClassName: sub.DeviceClassName, Selectors: sub.Selectors, AllocationMode: sub.AllocationMode,
			Count: sub.Count, Tolerations: sub.Tolerations, Capacity: sub.Capacity,
		}}}
		claims = append(claims, one)
	}
	return claims
}

// requestOf is a request, or one of its alternatives, by its name in allocation
// results.
func requestOf(claim *resourceapi.ResourceClaim, name string) *resourceapi.ExactDeviceRequest {
	base := resourceclaim.BaseRequestRef(name)
	for _, r := range claim.Spec.Devices.Requests {
		if r.Name != base {
			continue
		}
		one := claim.DeepCopy()
		one.Spec.Devices.Requests = []resourceapi.DeviceRequest{r}
		for _, alternative := range alternatives(one) {
			if r := alternative.Spec.Devices.Requests[0]; r.Name == name {
				return r.Exactly
			}
		}
	}
	return nil
}

// whyNot is about a claim of one request that does not fit.
func (s *scheduler) whyNot(ctx context.Context, claim *resourceapi.ResourceClaim) (Refusal, error) {
	r := claim.Spec.Devices.Requests[0]
	refusal := Refusal{Request: r.Name}
	class := s.classes[r.Exactly.DeviceClassName]
	ofClass, err := s.ofClass(ctx, class)
	if err != nil {
		return refusal, err
	}
	if len(ofClass) == 0 {
		refusal.Reason = fmt.Sprintf("class %s selects no device of this node", class.Name)
		if class.Name == "cpu-isolated."+draplugin.DriverName {
			refusal.Reason += ": it has no CPUs that are isolated (isolcpus) and not reserved"
		}
		return refusal, nil
	}
	left := 0
	for _, d := range ofClass {
		by, err := s.excludedBy(ctx, d, r.Exactly.Selectors)
		if err != nil {
			return refusal, err
		}
		state := DeviceState{Device: d.Name, Reason: fmt.Sprintf("selectors[%d] excludes it", by)}
		if by < 0 {
			left++
			state.Reason, _ = s.stateOf(d, r.Exactly)
		}
		refusal.Devices = append(refusal.Devices, state)
	}
	selects := fmt.Sprintf("class %s selects %s of this node", class.Name, count(len(ofClass), "device"))
	switch {
	case left == 0:
		refusal.Reason = selects + ", and the request's selectors exclude " + them(len(ofClass))
		return refusal, nil
	case left < len(ofClass):
		selects += fmt.Sprintf(", the request's selectors leave %d", left)
	}
	if name, ok := missing(r.Exactly, ofClass); ok {
		refusal.Reason = fmt.Sprintf("%s; capacity %q is asked for, and none has it", selects, name)
		return refusal, nil
	}
	refusal.Reason = selects + "; " + shortage(r.Exactly, left)
	nearest, err := s.nearest(ctx, claim, 0)
	if nearest != nil {
		refusal.Nearest = []Nearest{*nearest}
	}
	return refusal, err
}

// missing is a capacity that is asked for and that none of the devices has.
func missing(r *resourceapi.ExactDeviceRequest, devices []device) (resourceapi.QualifiedName, bool) {
	if r.Capacity == nil {
		return "", false
	}
	for _, name := range slices.Sorted(maps.Keys(r.Capacity.Requests)) {
		if !slices.ContainsFunc(devices, func(d device) bool { _, ok := d.Capacity[name]; return ok }) {
			return name, true
		}
	}
	return "", false
}

// passed are the devices that come before the one of an allocation result and that
// the request could have had by its class and selectors, with what they have free:
// the scheduler takes the first that fits.
func (s *scheduler) passed(ctx context.Context, claim *resourceapi.ResourceClaim, result resourceapi.DeviceRequestAllocationResult) ([]DeviceState, error) {
	r := requestOf(claim, result.Request)
	if r == nil {
		return nil, nil
	}
	ofClass, err := s.ofClass(ctx, s.classes[r.DeviceClassName])
	if err != nil {
		return nil, err
	}
	var states []DeviceState
	for _, d := range ofClass {
		if d.id == structured.MakeDeviceID(result.Driver, result.Pool, result.Device) {
			break
		}
		by, err := s.excludedBy(ctx, d, r.Selectors)
		if err != nil {
			return nil, err
		}
		if by >= 0 {
			continue
		}
		state, enough := s.stateOf(d, r)
		if enough {
			state += ", which does not do for the claim as a whole"
		}
		states = append(states, DeviceState{Device: d.Name, Reason: state})
	}
	return states, nil
}

// ofClass are the devices of the node that a class selects.
func (s *scheduler) ofClass(ctx context.Context, class *resourceapi.DeviceClass) ([]device, error) {
	var selected []device
	for _, d := range s.devices() {
		by, err := s.excludedBy(ctx, d, class.Spec.Selectors)
		if err != nil {
			return nil, fmt.Errorf("class %s: %w", class.Name, err)
		}
		if by < 0 {
			selected = append(selected, d)
		}
	}
	return selected, nil
}

// shortage says what so many devices do not have.
func shortage(r *resourceapi.ExactDeviceRequest, devices int) string {
	wanted := amounts(r.Capacity)
	switch {
	case r.AllocationMode == resourceapi.DeviceAllocationModeAll:
		return fmt.Sprintf("not all of them have %s free", wanted)
	case r.Count > 1:
		return fmt.Sprintf("%s %d times %s", map[bool]string{true: "it has no room for", false: "they have no room for"}[devices == 1], r.Count, wanted)
	case devices == 1:
		return fmt.Sprintf("it does not have %s free", wanted)
	}
	return fmt.Sprintf("none has %s free", wanted)
}

// amounts are the capacities of a request in words.
func amounts(c *resourceapi.CapacityRequirements) string {
	if c == nil || len(c.Requests) == 0 {
		return "anything"
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(c.Requests)) {
		q := c.Requests[name]
		words = append(words, amount(name, q.String()))
	}
	return strings.Join(words, " and ")
}

// amount is so much of a capacity: "4 CPUs", "1Gi of memory".
func amount(name resourceapi.QualifiedName, value string) string {
	if name == draplugin.CapacityCPUs {
		if value == "1" {
			return "1 CPU"
		}
		return value + " CPUs"
	}
	short := strings.TrimPrefix(string(name), draplugin.DriverName+"/")
	if name == draplugin.CapacityTenants {
		return value + " " + short
	}
	return value + " of " + short
}

// stateOf says what a device has to give at present of what is asked for, and
// whether that is enough.
func (s *scheduler) stateOf(d device, r *resourceapi.ExactDeviceRequest) (reason string, enough bool) {
	for _, taint := range d.Taints {
		tolerates := func(t resourceapi.DeviceToleration) bool { return resourceclaim.ToleratesTaint(t, taint) }
		if taint.Effect != resourceapi.DeviceTaintEffectNone && !slices.ContainsFunc(r.Tolerations, tolerates) {
			return fmt.Sprintf("tainted %s=%s:%s", taint.Key, taint.Value, taint.Effect), false
		}
	}
	if s.state.AllocatedDevices.Has(d.id) {
		return "in use by " + s.holdersOf(d.id), false
	}
	if through, ok := s.usedThrough(d); ok {
		return fmt.Sprintf("its CPUs are in use through %s by %s", through.Device, s.holdersOf(through)), false
	}
	wanted := map[resourceapi.QualifiedName]resource.Quantity{draplugin.CapacityCPUs: *resource.NewQuantity(1, resource.DecimalSI)}
	if r.Capacity != nil && len(r.Capacity.Requests) > 0 {
		wanted = r.Capacity.Requests
	} else if len(d.Capacity) == 0 {
		return "free", true
	}
	enough = true
	var words []string
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		total, ok := d.Capacity[name]
		if !ok {
			return fmt.Sprintf("it has no capacity %s, only %s", name, join(slices.Sorted(maps.Keys(d.Capacity)))), false
		}
		free := total.Value.DeepCopy()
		if consumed := s.state.AggregatedCapacity[d.id][name]; consumed != nil {
			free.Sub(*consumed)
		}
		enough = enough && free.Cmp(wanted[name]) >= 0
		words = append(words, fmt.Sprintf("%s of %s free", free.String(), amount(name, total.Value.String())))
	}
	return strings.Join(words, ", "), enough
}

// usedThrough is a device in use that shares a counter with an unused one.
func (s *scheduler) usedThrough(d device) (structured.DeviceID, bool) {
	if len(s.holders[d.id]) > 0 {
		return structured.DeviceID{}, false
	}
	for _, other := range s.devices() {
		if other.id != d.id && other.id.Pool == d.id.Pool && len(s.holders[other.id]) > 0 && sharesCounter(d, other) {
			return other.id, true
		}
	}
	return structured.DeviceID{}, false
}

func sharesCounter(a, b device) bool {
	for _, x := range a.ConsumesCounters {
		for _, y := range b.ConsumesCounters {
			if x.CounterSet != y.CounterSet {
				continue
			}
			for name := range x.Counters {
				if _, ok := y.Counters[name]; ok {
					return true
				}
			}
		}
	}
	return false
}

func (s *scheduler) holdersOf(id structured.DeviceID) string {
	holders := slices.Compact(slices.Clone(s.holders[id]))
	if len(holders) > 2 {
		return fmt.Sprintf("%s and %d other claims", holders[0], len(holders)-1)
	}
	return strings.Join(holders, " and ")
}

// whyNotTogether is about a claim whose requests fit one by one.
func (s *scheduler) whyNotTogether(ctx context.Context, claim *resourceapi.ResourceClaim) (Refusal, error) {
	var refusal Refusal
	without := func(i int) (string, error) {
		attempt := claim.DeepCopy()
		attempt.Spec.Devices.Constraints = slices.Delete(attempt.Spec.Devices.Constraints, i, i+1)
		found, err := s.allocate(ctx, attempt)
		if err != nil || found == nil {
			return "", err
		}
		return placement(found[0]), nil
	}
	for i, constraint := range claim.Spec.Devices.Constraints {
		got, err := without(i)
		if err != nil {
			return refusal, err
		}
		if got != "" {
			refusal.Reason = fmt.Sprintf("%s excludes it: without that it would get %s", constraintName(i, constraint), got)
			break
		}
	}
	if refusal.Reason == "" {
		refusal.Reason = "each request fits alone, but not all of them together"
		if len(claim.Spec.Devices.Constraints) > 0 {
			refusal.Reason += " under the claim's constraints"
		}
	}
	for i := range claim.Spec.Devices.Requests {
		nearest, err := s.nearest(ctx, claim, i)
		if err != nil {
			return refusal, err
		}
		if nearest != nil {
			refusal.Nearest = append(refusal.Nearest, *nearest)
		}
	}
	return refusal, nil
}

// placement is which request would get which device.
func placement(result resourceapi.AllocationResult) string {
	var words []string
	for _, r := range result.Devices.Results {
		words = append(words, fmt.Sprintf("%s for %s", r.Device, r.Request))
	}
	return strings.Join(words, ", ")
}

// nearest is the largest amount with which the request, and the claim, would fit;
// nil if even the smallest does not help, or the request does not say an amount.
func (s *scheduler) nearest(ctx context.Context, claim *resourceapi.ResourceClaim, i int) (*Nearest, error) {
	r := claim.Spec.Devices.Requests[i]
	if r.Exactly == nil || r.Exactly.Capacity == nil {
		return nil, nil
	}
	for _, name := range slices.Sorted(maps.Keys(r.Exactly.Capacity.Requests)) {
		wanted := r.Exactly.Capacity.Requests[name]
		step, most, err := s.stepOf(ctx, r.Exactly.DeviceClassName, name)
		if err != nil || step == 0 {
			return nil, err
		}
		if wanted.CmpInt64(most) <= 0 {
			most = wanted.Value() - 1
		}
		var best *resourceapi.AllocationResult
		for low, high := int64(1), most/step; low <= high; {
			middle := low + (high-low)/2
			attempt := claim.DeepCopy()
			attempt.Spec.Devices.Requests[i].Exactly.Capacity.Requests[name] = *resource.NewQuantity(middle*step, wanted.Format)
			found, err := s.allocate(ctx, attempt)
			if err != nil {
				return nil, err
			}
			if found == nil {
				high = middle - 1
			} else {
				low, best = middle+1, &found[0]
			}
		}
		if best == nil {
			continue
		}
		n := &Nearest{Request: r.Name, Capacity: string(name)}
		for _, result := range best.Devices.Results {
			if result.Request == r.Name {
				consumed := result.ConsumedCapacity[name]
				n.Value = consumed.String()
				n.Devices = append(n.Devices, result.Device)
			}
		}
		n.Devices = slices.Compact(n.Devices)
		return n, nil
	}
	return nil, nil
}

// stepOf is the smallest step in which a capacity of a class's devices is consumed,
// and the most that one of them has; 0 if they do not have it.
func (s *scheduler) stepOf(ctx context.Context, class string, name resourceapi.QualifiedName) (step, most int64, err error) {
	devices, err := s.ofClass(ctx, s.classes[class])
	for _, d := range devices {
		c, ok := d.Capacity[name]
		if !ok {
			continue
		}
		of := int64(1)
		if policy := c.RequestPolicy; policy != nil && policy.ValidRange != nil && policy.ValidRange.Step != nil {
			of = max(1, policy.ValidRange.Step.Value())
		} else if policy != nil && policy.Default != nil {
			of = max(1, policy.Default.Value())
		}
		if step == 0 || of < step {
			step = of
		}
		most = max(most, c.Value.Value())
	}
	return step, most, err
}

func them(n int) string {
	if n == 1 {
		return "it"
	}
	return "all of them"
}

func join[T ~string](names []T) string {
	words := make([]string, 0, len(names))
	for _, name := range names {
		words = append(words, string(name))
	}
	return strings.Join(words, ", ")
}

// count is so many of something.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
