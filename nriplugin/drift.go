package nriplugin

import (
	"context"
	"time"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
)

const (
	// driftInterval is how often the kernel's cpusets are held against the ledger's.
	driftInterval = 10 * time.Second
	// driftPause is how long after the first look those that differed are looked at
	// again: an update may be on its way to them.
	driftPause = time.Second
	// driftPatience is how many times in a row a container must have been told in
	// vain before its pod is told.
	driftPatience = 3
)

// Drifts is told of containers that do not stay on their CPUs.
type Drifts interface {
	// Drifted says that a container is found on these CPUs again and again, whatever
	// it is told. It is called once, until the container has been in order again.
	Drifted(ctx context.Context, entry allocator.Entry, runsOn topology.CPUSet)
}

// drift compares running containers with the ledger. The runtime forgets failed
// updates, and others may write to cgroups.
type drift struct {
	plugin *Plugin
	report Drifts
	// vain is how many times in a row a container was told without effect.
	vain map[allocator.ContainerID]int
}

func (p *Plugin) newDrift(report Drifts) *drift {
	return &drift{plugin: p, report: report, vain: map[allocator.ContainerID]int{}}
}

// FollowDrift tells running containers their CPUs again when they are on others,
// until the context ends.
func (p *Plugin) FollowDrift(ctx context.Context, report Drifts) {
	p.newDrift(report).follow(ctx, driftInterval, driftPause)
}

func (d *drift) follow(ctx context.Context, interval, pause time.Duration) {
	sleep := func(length time.Duration) (awake bool) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(length):
			return true
		}
	}
	for sleep(interval) {
		suspects := d.differing(ctx, nil)
		if len(suspects) > 0 && !sleep(pause) {
			return
		}
		d.tell(ctx, d.differing(ctx, suspects))
	}
}

// differing returns the containers, all or some of those before, that run on other
// CPUs than they ought to, and on which. One without a cgroup is gone, or has never
// had one of its own.
func (d *drift) differing(ctx context.Context, among map[allocator.ContainerID]topology.CPUSet) map[allocator.ContainerID]topology.CPUSet {
	found := map[allocator.ContainerID]topology.CPUSet{}
	if d.plugin.Ready() != nil || among != nil && len(among) == 0 {
		return found
	}
	for _, entry := range d.plugin.ledger.Entries() {
		if _, ok := among[entry.ID]; !entry.Started || among != nil && !ok {
			continue
		}
		cpus, err := d.plugin.cgroups.effective(entry.Cgroup)
		if err != nil {
			klog.FromContext(ctx).V(4).Info("Cannot look at a container", "container", entry.ID, "err", err)
			continue
		}
		if !entry.Fits(cpus) && !d.tolerable(entry, cpus) {
			found[entry.ID] = cpus
		}
	}
	return found
}

// tolerable reports whether a container without a claim runs on its CPUs and besides
// only on such that are in no pool and that nobody holds: one from before topolet,
// which Synchronize leaves alone as well.
func (d *drift) tolerable(entry allocator.Entry, cpus topology.CPUSet) bool {
	surplus := cpus.Difference(entry.Bounds)
	if len(entry.Claims) > 0 || !entry.Desired.IsSubsetOf(cpus) || !surplus.IsSubsetOf(d.plugin.ledger.Inventory().Machine.Isolated) {
		return false
	}
	for _, g := range d.plugin.ledger.Grants() {
		if g.CPUs().Intersects(surplus) {
			return false
		}
	}
	return true
}

// tell has the runtime move the containers back, and reports those that it could not
// move for long.
func (d *drift) tell(ctx context.Context, drifted map[allocator.ContainerID]topology.CPUSet) {
	for id := range d.vain {
		if _, ok := drifted[id]; !ok {
			delete(d.vain, id)
		}
	}
	for id, cpus := range drifted {
		entry, ok := d.plugin.ledger.Entry(id)
		if !ok {
			continue
		}
		d.plugin.metrics.drifts.Inc()
		d.plugin.ledger.Untold(id)
		if d.vain[id]++; d.vain[id] == driftPatience && d.report != nil {
			d.report.Drifted(ctx, entry, cpus)
		}
		if d.vain[id] == 1 {
			klog.FromContext(ctx).Info("A container runs on other CPUs than it ought to and is told again",
				"container", id, "pod", klog.KRef(entry.PodNamespace, entry.PodName), "cpus", cpus.String(), "want", entry.Desired.String())
		}
	}
	if len(drifted) > 0 {
		d.plugin.Push()
	}
}
