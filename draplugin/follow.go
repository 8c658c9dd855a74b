package draplugin

import (
	"context"
	"fmt"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
)

// retryInterval is how long after a claim's status could not be written the next
// try comes.
const retryInterval = 5 * time.Second

// publisher is the part of [kubeletplugin.Helper] that follow needs.
type publisher interface {
	PublishResources(ctx context.Context, resources resourceslice.DriverResources) error
}

var _ publisher = (*kubeletplugin.Helper)(nil)

// Refresh asks for another look at the ledger: the machine has changed, or claims
// were released. It does not block and may be called from anywhere.
func (p *Plugin) Refresh() {
	select {
	case p.refresh <- struct{}{}:
	default:
	}
}

// follow publishes what the ledger has to give and says which claims have lost
// CPUs, first at once and then after each Refresh, until the context ends.
func (p *Plugin) follow(ctx context.Context, to publisher) error {
	var published resourceslice.DriverResources
	reports := p.newReporter()
	said, unrenewed := "", ""
	for {
		if err := reports.renew(ctx); err != nil && ctx.Err() == nil {
			if err.Error() != unrenewed {
				unrenewed = err.Error()
				klog.FromContext(ctx).Error(err, "Claims do not have the nodes of their devices, trying again and again", "every", retryInterval)
			}
			time.AfterFunc(retryInterval, p.Refresh)
		}
		conflicts := p.ledger.Conflicts()
		if resources := p.resources(conflicts); !equality.Semantic.DeepEqual(published, resources) {
			// The helper keeps and changes what it is given.
			if err := to.PublishResources(ctx, *resources.DeepCopy()); err != nil && ctx.Err() == nil {
				return fmt.Errorf("publish devices: %w", err)
			}
			published = resources
		}
		if err := reports.update(ctx, p.findings(conflicts)); err != nil && ctx.Err() == nil {
			if err.Error() != said {
				said = err.Error()
				klog.FromContext(ctx).Error(err, "Claims do not tell what became of them, trying again and again", "every", retryInterval)
			}
			time.AfterFunc(retryInterval, p.Refresh)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-p.fatal:
			return err
		case <-p.refresh:
		}
	}
}

// withheld are those of a domain's CPUs that no claim can get out of it, and that
// none has from it: the siblings of CPUs that claims hold; and, where claims hold
// some of the domain and others hold some of it by a device of another level, the
// latter's. Counters prevent that, but not while CPUs are offline.
func withheld(d *allocator.Domain, conflicts []allocator.Conflict, grants []allocator.Grant) topology.CPUSet {
	var siblings, own, others topology.CPUSet
	for _, c := range conflicts {
		siblings = siblings.Union(c.Siblings)
	}
	for _, g := range grants {
		for _, p := range g.Parts {
			if p.Domain == d.Name {
				own = own.Union(p.CPUs)
			} else {
				others = others.Union(p.CPUs)
			}
		}
	}
	lost := siblings.Difference(own).Difference(others)
	if !own.IsEmpty() {
		lost = lost.Union(others)
	}
	return lost.Intersection(d.CPUs)
}

// withhold takes CPUs from a device's capacity, in whole cores, as the API wants it.
// Rounding up gives nobody a core more: what is consumed of the others is no whole
// core either.
func withhold(device *resourceapi.Device, d *allocator.Domain, lost topology.CPUSet) {
	if n := lost.Size(); n > 0 {
		cores := max(1, (d.CPUs.Size()-n+d.ThreadsPerCore-1)/d.ThreadsPerCore)
		device.Capacity[CapacityCPUs] = capacity(int64(cores*d.ThreadsPerCore), int64(d.ThreadsPerCore))
	}
}

// resources is the node's pool: the counters first, then all devices, in slices
// within the API's limits.
func (p *Plugin) resources(conflicts []allocator.Conflict) resourceslice.DriverResources {
	inv := p.ledger.Inventory()
	publication := p.opts.Publication
	publication.oneFace = p.dropped.has(gateCounters)
	devices, grants, found := Devices(inv, publication), p.ledger.Grants(), p.findings(conflicts)
	limit := resourceapi.ResourceSliceMaxDevices
	for i := range devices {
		if d, ok := inv.Domain(devices[i].Name); ok {
			withhold(&devices[i], d, withheld(d, conflicts, grants))
		}
		devices[i].Taints = append(devices[i].Taints, taints(devices[i].Name, found)...)
		if len(devices[i].Taints) > 0 || len(devices[i].ConsumesCounters) > 0 || p.opts.Publication.Lists {
			limit = resourceapi.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	var pool resourceslice.Pool
	all := slices.Concat(countersOf(inv.Domains).sets, hardwareCountersOf(inv.Devices).sets)
	for sets := range slices.Chunk(all, resourceapi.ResourceSliceMaxCounterSets) {
		pool.Slices = append(pool.Slices, resourceslice.Slice{SharedCounters: sets})
	}
	for some := range slices.Chunk(devices, limit) {
		pool.Slices = append(pool.Slices, resourceslice.Slice{Devices: some})
	}
	if len(pool.Slices) == 0 {
		pool.Slices = []resourceslice.Slice{{}}
	}
	return resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{p.opts.NodeName: pool}}
}
