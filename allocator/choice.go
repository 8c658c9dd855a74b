package allocator

import (
	"fmt"

	"github.com/topolet/topolet/topology"
)

// InsufficientError says that a domain has too few free CPUs for a request.
type InsufficientError struct {
	Domain    string
	Requested int
	// Free counts the CPUs of cores that are free as a whole.
	Free int
}

func (e *InsufficientError) Error() string {
	return fmt.Sprintf("domain %s: %d CPUs requested, %d free in whole cores", e.Domain, e.Requested, e.Free)
}

// CountError says that a number of CPUs cannot be served from a domain, however
// empty it is.
type CountError struct {
	Domain    string
	Requested int
	// Step is the number of CPUs of a core, Max what the empty domain holds.
	Step, Max int
}

func (e *CountError) Error() string {
	return fmt.Sprintf("domain %s: cannot serve %d CPUs: ask for a multiple of %d (whole cores) between %d and %d",
		e.Domain, e.Requested, e.Step, e.Step, e.Max)
}

// Choose returns n CPUs out of the domain's free ones, as whole cores. The
// objective, in this order: never half a core; fewest L3 groups; the L3 group,
// then the cluster, whose free cores are left the fewest (best fit); lowest CPU
// numbers. The same arguments always give the same CPUs. The cost is linear in
// the domain's cores.
//
// The error is a [*CountError] or an [*InsufficientError].
func (d *Domain) Choose(free topology.CPUSet, n int) (topology.CPUSet, error) {
	if n <= 0 || n%d.ThreadsPerCore != 0 || n > len(d.cores)*d.ThreadsPerCore {
		return topology.CPUSet{}, &CountError{
			Domain: d.Name, Requested: n, Step: d.ThreadsPerCore, Max: len(d.cores) * d.ThreadsPerCore,
		}
	}
	p := picker{domain: d, free: make([]bool, len(d.cores)), ids: make([]int, 0, n)}
	available := 0
	for i, c := range d.cores {
		if isFree(c, free) {
			p.free[i] = true
			available++
		}
	}
	if need := n / d.ThreadsPerCore; available >= need {
		p.take(d.groups, need)
		return topology.NewCPUSet(p.ids...), nil
	}
	return topology.CPUSet{}, &InsufficientError{Domain: d.Name, Requested: n, Free: available * d.ThreadsPerCore}
}

// siblings are all CPUs of the set but the first of each core.
func (d *Domain) siblings(cpus topology.CPUSet) topology.CPUSet {
	var ids []int
	for _, c := range d.cores {
		if len(c.cpus) > 1 && cpus.Contains(c.cpus[0]) {
			ids = append(ids, c.cpus[1:]...)
		}
	}
	if len(ids) == 0 {
		return topology.CPUSet{}
	}
	return topology.NewCPUSet(ids...)
}

func isFree(c core, free topology.CPUSet) bool {
	for _, id := range c.cpus {
		if !free.Contains(id) {
			return false
		}
	}
	return true
}

// picker collects the cores of one choice.
type picker struct {
	domain *Domain
	free   []bool
	ids    []int
}

// take collects need cores out of the groups, which hold at least as many. The
// largest groups first is what makes their number smallest; the last, partial
// one is the tightest that still fits.
func (p *picker) take(groups []group, need int) {
	for need > 0 {
		best, bestCount := group{}, 0
		for _, g := range groups {
			count := p.count(g)
			fits, bestFits := count >= need, bestCount >= need
			switch {
			case count == 0:
			case bestCount == 0,
				fits && !bestFits,
				fits && bestFits && count < bestCount,
				!fits && !bestFits && count > bestCount:
				best, bestCount = g, count
			}
		}
		part := min(need, bestCount)
		if len(best.inner) > 0 {
			p.take(best.inner, part)
		} else {
			p.takeCores(best, part)
		}
		need -= part
	}
}

func (p *picker) takeCores(g group, need int) {
	for i := g.from; i < g.to && need > 0; i++ {
		if p.free[i] {
			p.free[i] = false
			p.ids = append(p.ids, p.domain.cores[i].cpus...)
			need--
		}
	}
}

func (p *picker) count(g group) int {
	n := 0
	for i := g.from; i < g.to; i++ {
		if p.free[i] {
			n++
		}
	}
	return n
}
