package allocator

import (
	"slices"

	"github.com/topolet/topolet/topology"
)

// view is what follows from the state for every container.
type view struct {
	// pool is never empty.
	pool topology.CPUSet
	// lent are claimed CPUs that are left to containers of other pods, because the kernel
	// takes them away when a container of the claim starts, and gives them back when it
	// has ended. Bounds are those and the pool.
	lent, bounds topology.CPUSet
	// claimants are the pods of claims. To the kernel two sets that overlap in one pod are
	// a broken partition, so nothing is lent to them; nil if nothing is lent at all.
	claimants map[PodUID]bool
}

func (l *Ledger) view() view {
	v := view{pool: l.pool(), lent: l.lent()}
	v.bounds = v.pool
	if v.lent.IsEmpty() {
		return v
	}
	v.bounds = v.pool.Union(v.lent)
	v.claimants = make(map[PodUID]bool, len(l.grants))
	for _, g := range l.grants {
		for _, pod := range g.Pods {
			v.claimants[pod] = true
		}
	}
	for _, c := range l.containers {
		if len(c.Claims) > 0 {
			v.claimants[c.Pod] = true
		}
	}
	return v
}

// lent are the CPUs of claims whose containers the kernel keeps them for, or will when
// they start. A CPU that comes online is in no partition yet.
func (l *Ledger) lent() topology.CPUSet {
	var cpus topology.CPUSet
	if !l.policy.KernelKeeps {
		return cpus
	}
	for _, g := range l.grants {
		if !slices.ContainsFunc(g.Parts, func(p Part) bool { return p.SharedPool || p.ManyPods || !p.Idle.IsEmpty() }) {
			cpus = cpus.Union(l.inventory.online(g.CPUs()))
		}
	}
	for _, c := range l.containers {
		if len(c.Claims) == 0 || l.isOrphan(&c.Container) {
			continue
		}
		if c.Started && c.enforcement.Tier != KernelTier || l.obstacle(c) != "" {
			cpus = cpus.Difference(l.granted(&c.Container))
		}
	}
	return cpus
}
