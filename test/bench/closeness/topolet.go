package main

import (
	"fmt"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
)

// topolet serves claims as they are served on a node with topolet: kube-scheduler
// picks the device, which is a domain, and topolet the CPUs in it.
//
// Of kube-scheduler this has what decides: its allocator tries the devices in the
// order in which they are published, and takes the first whose capacity, less
// what claims consume of it, holds the request.
type topolet struct {
	sizes   []int
	domains []*domain
	grants  map[int]grant
}

// domain is what is left of one.
type domain struct {
	*allocator.Domain
	free     topology.CPUSet
	consumed int
}

type grant struct {
	domain *domain
	cpus   topology.CPUSet
}

func newTopolet(domains []*allocator.Domain, sizes []int) *topolet {
	t := &topolet{sizes: sizes, grants: map[int]grant{}}
	for _, d := range domains {
		t.domains = append(t.domains, &domain{Domain: d, free: d.CPUs})
	}
	return t
}

// serve implements [server].
func (t *topolet) serve(claim int) (topology.CPUSet, error) {
	for _, d := range t.domains {
		if d.CPUs.Size()-d.consumed < t.sizes[claim] {
			continue
		}
		cpus, err := d.Choose(d.free, t.sizes[claim], topology.CPUSet{})
		if err != nil {
			return topology.CPUSet{}, fmt.Errorf("where the scheduler sees room, topolet has none: %w", err)
		}
		d.free = d.free.Difference(cpus)
		d.consumed += cpus.Size()
		t.grants[claim] = grant{d, cpus}
		return cpus, nil
	}
	return topology.CPUSet{}, nil
}

// release implements [server].
func (t *topolet) release(claim int) error {
	g := t.grants[claim]
	delete(t.grants, claim)
	g.domain.free = g.domain.free.Union(g.cpus)
	g.domain.consumed -= g.cpus.Size()
	return nil
}
