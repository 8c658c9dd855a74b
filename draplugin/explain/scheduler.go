package explain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin"
)

// searchTime is how long kube-scheduler looks for an allocation on one node before
// it gives up (the default of DynamicResourcesArgs.filterTimeout).
const searchTime = 10 * time.Second

// features are those that a cluster has which topolet can be used on.
var features = structured.Features{
	AdminAccess: true, ConsumableCapacity: true, DeviceTaints: true, PartitionableDevices: true,
	PrioritizedList: true, DeviceBindingAndStatus: true,
}

// scheduler allocates claims as kube-scheduler does, with its allocator.
type scheduler struct {
	node    *corev1.Node
	ledger  *allocator.Ledger
	others  []*resourceapi.ResourceSlice
	classes map[string]*resourceapi.DeviceClass
	cel     *cel.Cache

	// slices are those of the node's ledger and the others; holders are the claims
	// that have something of a device.
	slices  []*resourceapi.ResourceSlice
	state   structured.AllocatedState
	holders map[structured.DeviceID][]string
}

func newScheduler(n Node, ledger *allocator.Ledger, classes map[string]*resourceapi.DeviceClass) *scheduler {
	s := &scheduler{
		node:    &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}},
		ledger:  ledger,
		classes: classes,
		cel:     cel.NewCache(100, cel.Features{EnableConsumableCapacity: true}),
		state: structured.AllocatedState{
			AllocatedDevices:         sets.New[structured.DeviceID](),
			AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
			AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
		},
		holders: map[structured.DeviceID][]string{},
	}
	for _, slice := range n.Others {
		if slice.Spec.Driver != draplugin.DriverName {
			s.others = append(s.others, slice)
		}
	}
	for _, g := range n.Grants {
		for i, part := range g.Parts {
			share := types.UID(part.Share)
			if share == "" {
				share = types.UID(fmt.Sprintf("%s-%d", g.UID, i))
			}
			s.hold(g.Namespace+"/"+g.Name, resourceapi.DeviceRequestAllocationResult{
				Driver: draplugin.DriverName, Pool: n.Name, Device: part.Domain,
				ShareID: &share, ConsumedCapacity: draplugin.Consumed(part),
			})
		}
	}
	s.publish()
	return s
}

// publish takes over what the ledger has to give at present.
func (s *scheduler) publish() {
	s.slices = slices.Concat(draplugin.Slices(s.ledger, s.node.Name), s.others)
}

// List implements [structured.DeviceClassLister].
func (s *scheduler) List() ([]*resourceapi.DeviceClass, error) {
	return slices.Collect(maps.Values(s.classes)), nil
}

// Get implements [structured.DeviceClassLister].
func (s *scheduler) Get(name string) (*resourceapi.DeviceClass, error) {
	if class, ok := s.classes[name]; ok {
		return class, nil
	}
	return nil, fmt.Errorf("there is no class %s", name)
}

// allocate returns one result for each claim, or none if they do not fit together.
// Nothing is held by it.
func (s *scheduler) allocate(ctx context.Context, claims ...*resourceapi.ResourceClaim) ([]resourceapi.AllocationResult, error) {
	a, err := structured.NewAllocator(ctx, features, s.state, s, s.slices, s.cel)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	found, err := a.Allocate(ctx, s.node, claims)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("the search took longer than %v, and kube-scheduler gives up then: ask for less at a time", searchTime)
	}
	return found, err
}

// hold enters an allocation result in the book of what is in use.
func (s *scheduler) hold(claim string, r resourceapi.DeviceRequestAllocationResult) {
	device := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
	s.holders[device] = append(s.holders[device], claim)
	if r.ShareID == nil {
		s.state.AllocatedDevices.Insert(device)
		return
	}
	s.state.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(device, r.ShareID))
	s.state.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(device, r.ConsumedCapacity))
}

// device is a published device.
type device struct {
	id structured.DeviceID
	resourceapi.Device
}

// devices are those of the node, in the order in which they are tried.
func (s *scheduler) devices() []device {
	var all []device
	for _, slice := range s.slices {
		if name := ptr.Deref(slice.Spec.NodeName, ""); name != "" && name != s.node.Name {
			continue
		}
		for _, d := range slice.Spec.Devices {
			all = append(all, device{structured.MakeDeviceID(slice.Spec.Driver, slice.Spec.Pool.Name, d.Name), d})
		}
	}
	return all
}

// numaNode is that of the device of an allocation result, if the device has one.
func (s *scheduler) numaNode(r resourceapi.DeviceRequestAllocationResult) (int, bool) {
	id := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
	for _, d := range s.devices() {
		if node := d.Attributes[deviceattribute.StandardDeviceAttributeNUMANode].IntValue; d.id == id && node != nil {
			return int(*node), true
		}
	}
	return 0, false
}

// excludedBy is the index of the first selector that does not match the device, or
// -1.
func (s *scheduler) excludedBy(ctx context.Context, d device, selectors []resourceapi.DeviceSelector) (int, error) {
	for i, selector := range selectors {
		compiled := s.cel.GetOrCompile(selector.CEL.Expression)
		if compiled.Error != nil {
			return i, fmt.Errorf("selectors[%d]: %w", i, compiled.Error)
		}
		matches, _, err := compiled.DeviceMatches(ctx, cel.Device{
			Driver: d.id.Driver.String(), AllowMultipleAllocations: d.AllowMultipleAllocations,
			Attributes: d.Attributes, Capacity: d.Capacity,
		})
		if err != nil {
			return i, fmt.Errorf("selectors[%d] on device %s: %w", i, d.Name, cel.EnhanceRuntimeError(err))
		}
		if !matches {
			return i, nil
		}
	}
	return -1, nil
}
