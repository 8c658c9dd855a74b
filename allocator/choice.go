package allocator

import (
	"fmt"
	"slices"

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
// objective, in this order: never half a core; fewest sockets, NUMA nodes, L3
// groups and clusters, the larger before the smaller; of the parts that are
// divided equally little, the one whose free cores are left the fewest (best fit);
// lowest CPU numbers. The same arguments always give the same CPUs. The cost is
// linear in the domain's cores for each part that it takes.
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
// largest groups first is what makes their number smallest. Of those that hold all
// that is needed, the one is taken that is divided the least for it, and then the
// tightest.
func (p *picker) take(groups []group, need int) {
	for need > 0 {
		best, bestCount, bestParts := group{}, 0, 0
		for _, g := range groups {
			count := p.count(g)
			if count == 0 {
				continue
			}
			parts := p.parts(g, min(need, count))
			if bestCount == 0 || better(need, count, parts, bestCount, bestParts) {
				best, bestCount, bestParts = g, count, parts
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

// better reports whether a group with so many free cores, in so many parts, is
// taken rather than the best one so far.
func better(need, count, parts, bestCount, bestParts int) bool {
	fits, bestFits := count >= need, bestCount >= need
	switch {
	case fits != bestFits:
		return fits
	case !fits:
		return count > bestCount
	case parts != bestParts:
		return parts < bestParts
	}
	return count < bestCount
}

// parts is how many of the groups inside of g it takes at least to get need cores.
func (p *picker) parts(g group, need int) int {
	if len(g.inner) == 0 {
		return 1
	}
	var room [32]int // on the stack: most machines have fewer
	counts := room[:0]
	for _, inner := range g.inner {
		counts = append(counts, p.count(inner))
	}
	slices.Sort(counts)
	n := 0
	for need > 0 {
		n++
		need -= counts[len(counts)-n]
	}
	return n
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
