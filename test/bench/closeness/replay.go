package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/topolet/topolet/topology"
)

// server is a side of the comparison. It is made for the claims of one trace.
type server interface {
	// serve gives a claim its CPUs; none if it refuses the claim.
	serve(claim int) (topology.CPUSet, error)
	// release takes the CPUs of a claim back that it did serve.
	release(claim int) error
}

// outcome is what a side made of a trace.
type outcome struct {
	// grants are the CPUs of each claim; none if it was refused.
	grants []topology.CPUSet
	took   time.Duration
	allocs uint64
}

// replay has a side serve a trace. Only the serving is measured: the grants are
// checked afterwards.
func replay(m machine, s server, t trace) (outcome, error) {
	o := outcome{grants: make([]topology.CPUSet, len(t.sizes))}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	for _, e := range t.events {
		var err error
		switch {
		case !e.ends:
			o.grants[e.claim], err = s.serve(e.claim)
		case !o.grants[e.claim].IsEmpty():
			err = s.release(e.claim)
		}
		if err != nil {
			return o, fmt.Errorf("claim %d for %d CPUs: %w", e.claim, t.sizes[e.claim], err)
		}
	}
	o.took = time.Since(begin)
	runtime.ReadMemStats(&after)
	o.allocs = after.Mallocs - before.Mallocs
	return o, o.check(m, t)
}

// grantError says that a side gave a claim what it must not have.
type grantError struct {
	claim, asked int
	cpus, free   topology.CPUSet
}

func (e *grantError) Error() string {
	return fmt.Sprintf("gives claim %d, for %d CPUs, CPUs %s when CPUs %s are free", e.claim, e.asked, e.cpus, e.free)
}

// check fails with a [*grantError] if a claim got a wrong number of CPUs, or some
// that were not free.
func (o outcome) check(m machine, t trace) error {
	free := m.claimable()
	for _, e := range t.events {
		cpus := o.grants[e.claim]
		switch {
		case cpus.IsEmpty():
		case e.ends:
			free = free.Union(cpus)
		case cpus.Size() != t.sizes[e.claim] || !cpus.IsSubsetOf(free):
			return &grantError{e.claim, t.sizes[e.claim], cpus, free}
		default:
			free = free.Difference(cpus)
		}
	}
	return nil
}

// spread sums up the grants of the claims that are also in others.
func (o outcome) spread(m machine, others ...outcome) spread {
	var sum spread
claims:
	for claim, cpus := range o.grants {
		for _, other := range append(others, o) {
			if other.grants[claim].IsEmpty() {
				continue claims
			}
		}
		sum.add(measure(m.model, cpus))
	}
	return sum
}
