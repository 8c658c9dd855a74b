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
// objective, in this order:
//
//   - no CPU of another domain, and never half a core;
//   - fewest sockets, then NUMA nodes, then L3 groups;
//   - fewest clusters;
//   - the smallest fragment: of the parts that are divided equally little, the one
//     whose free cores are left the fewest (best fit);
//   - nearest to the claim's devices: the part with more free cores among those
//     near; the empty set is no preference;
//   - lowest CPU numbers, so that the same arguments always give the same CPUs.
//
// What fits into no part is taken out of several, the largest first: that makes
// their number smallest. Each of these steps is best in itself; the fragments that
// several parts leave together need not be the smallest ones. The cost is linear in
// the domain's cores for each part that is taken, and about doubles with each scale
// that divides the domain further: what a part is divided into is tried out before
// it is taken.
//
// The error is a [*CountError] or an [*InsufficientError].
func (d *Domain) Choose(free topology.CPUSet, n int, near topology.CPUSet) (topology.CPUSet, error) {
	p, err := d.pick(free, n, near, nil)
	if err != nil {
		return topology.CPUSet{}, err
	}
	return p.cpus(), nil
}

// pick chooses the cores. Each decision goes to trace, unless that is nil.
func (d *Domain) pick(free topology.CPUSet, n int, near topology.CPUSet, trace *[]decision) (picker, error) {
	if n <= 0 || n%d.ThreadsPerCore != 0 || n > len(d.cores)*d.ThreadsPerCore {
		return picker{}, &CountError{
			Domain: d.Name, Requested: n, Step: d.ThreadsPerCore, Max: len(d.cores) * d.ThreadsPerCore,
		}
	}
	need := n / d.ThreadsPerCore
	lists := make([]int, need+n) // one for both: the hot path counts its allocations
	p := picker{domain: d, cores: make([]coreState, len(d.cores)), taken: lists[:0:need], ids: lists[need:need], trace: trace}
	indifferent := near.IsEmpty()
	available := 0
	for i, c := range d.cores {
		if isFree(c, free) {
			p.cores[i] = coreState{free: true, near: !indifferent && isFree(c, near)}
			available++
		}
	}
	if available < need {
		return picker{}, &InsufficientError{Domain: d.Name, Requested: n, Free: available * d.ThreadsPerCore}
	}
	p.take(d.groups, need)
	return p, nil
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
	cores  []coreState // in the domain's order
	taken  []int       // their indices, in the order of taking
	ids    []int       // room for the CPUs of those
	trace  *[]decision
}

// coreState is what is left of a core.
type coreState struct{ free, near bool }

// cpus are those of the taken cores.
func (p *picker) cpus() topology.CPUSet {
	p.ids = p.ids[:0]
	for _, i := range p.taken {
		p.ids = append(p.ids, p.domain.cores[i].cpus...)
	}
	return topology.NewCPUSet(p.ids...)
}

// spread is how many parts of each scale some cores are in.
type spread [scales]int

func (s *spread) add(o spread) {
	for scale, n := range o {
		s[scale] += n
	}
}

// within is the spread over the group's inner ones, or of cores of a group without
// any, as one of the group: in one part of each scale that divides it no further.
func (s spread) within(g group) spread {
	end := scales
	if len(g.inner) > 0 {
		end = g.inner[0].scale
	}
	for scale := g.scale; scale < end; scale++ {
		s[scale] = 1
	}
	return s
}

// candidate is a group out of which some cores may be taken.
type candidate struct {
	group
	count int // of its free cores
	near  int // how many of them are near
	// spread is that of the cores that would be taken, once somebody asked.
	spread spread
	asked  bool
}

// criterion is what sets two candidates apart.
type criterion int

const (
	byNumber criterion = iota // nothing else does
	byNearness
	byFragment
	bySpread
	byRoom
)

// take takes need cores out of the groups, which hold at least as many.
func (p *picker) take(groups []group, need int) spread {
	var total spread
	for need > 0 {
		best := p.best(groups, need)
		part := min(need, best.count)
		if p.trace != nil {
			*p.trace = append(*p.trace, p.decision(groups, best, need))
		}
		total.add(p.takeFrom(best.group, part))
		need -= part
	}
	return total
}

func (p *picker) best(groups []group, need int) candidate {
	var best candidate
	for _, g := range groups {
		c := p.candidate(g)
		if c.count == 0 {
			continue
		}
		if better, _ := p.better(&c, &best, need); better {
			best = c
		}
	}
	return best
}

func (p *picker) candidate(g group) candidate {
	c := candidate{group: g}
	for _, core := range p.cores[g.from:g.to] {
		if core.free {
			c.count++
			if core.near {
				c.near++
			}
		}
	}
	return c
}

// better reports whether the candidate is taken rather than the best one so far,
// and what decides. Of two that are alike the first one is the better.
func (p *picker) better(c, best *candidate, need int) (bool, criterion) {
	fits, bestFits := c.count >= need, best.count >= need
	switch {
	case fits != bestFits:
		return fits, byRoom
	case !fits && c.count != best.count:
		return c.count > best.count, byRoom
	}
	p.ask(c, need)
	p.ask(best, need)
	switch {
	case c.spread != best.spread:
		return slices.Compare(c.spread[:], best.spread[:]) < 0, bySpread
	case c.count != best.count:
		return c.count < best.count, byFragment
	case c.near != best.near:
		return c.near > best.near, byNearness
	}
	return c.from < best.from, byNumber
}

// ask finds the candidate's spread.
func (p *picker) ask(c *candidate, need int) {
	switch {
	case c.asked || c.count == 0:
	case need >= c.count || len(c.inner) == 0:
		c.spread = p.whole(c.group)
	default:
		c.spread = p.try(c.group, need)
	}
	c.asked = true
}

// whole is the spread of all free cores of a group, of which there are some.
func (p *picker) whole(g group) spread {
	var s spread
	for _, inner := range g.inner {
		if p.candidate(inner).count > 0 {
			s.add(p.whole(inner))
		}
	}
	return s.within(g)
}

// try is the spread of the cores that would be taken out of the group.
func (p *picker) try(g group, need int) spread {
	trace, before := p.trace, len(p.taken)
	p.trace = nil
	s := p.takeFrom(g, need)
	p.trace = trace
	for _, i := range p.taken[before:] {
		p.cores[i].free = true
	}
	p.taken = p.taken[:before]
	return s
}

func (p *picker) takeFrom(g group, need int) spread {
	var s spread
	if len(g.inner) > 0 {
		s = p.take(g.inner, need)
	} else {
		p.takeCores(g, need)
	}
	return s.within(g)
}

// takeCores takes the near ones before the others.
func (p *picker) takeCores(g group, need int) {
	for _, near := range [...]bool{true, false} {
		for i := g.from; i < g.to && need > 0; i++ {
			if c := &p.cores[i]; c.free && c.near == near {
				c.free = false
				p.taken = append(p.taken, i)
				need--
			}
		}
	}
}
