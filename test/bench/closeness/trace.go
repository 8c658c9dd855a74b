package main

import "math/rand/v2"

// The claims of a trace take between these parts of what the machine offers. The
// load falls below the lower one only while it rises for the first time, and
// when a large claim waits for room.
const lowLoad, highLoad = 0.70, 0.95

// offer is what the claims of a trace are cut to.
type offer struct {
	// cpus can be claimed on the whole machine, domain in its largest domain.
	cpus, domain int
	// threads is the number of CPUs of a core.
	threads int
}

// trace is a list of claims that come and go. It does not depend on what any side
// makes of it.
type trace struct {
	// sizes are the CPUs that each claim asks for.
	sizes  []int
	events []event
}

// event is the beginning or the end of a claim, which is an index of sizes.
type event struct {
	claim int
	ends  bool
}

// newTrace makes up a trace. The same arguments always give the same one.
func newTrace(seed uint64, claims int, o offer) trace {
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a seed makes it repeatable
	low, high := int(lowLoad*float64(o.cpus)), int(highLoad*float64(o.cpus))
	var t trace
	var live []int
	load, next := 0, o.size(rng)
	for len(t.sizes) < claims {
		if load+next <= high && (load < low || rng.IntN(2) == 0) {
			t.events = append(t.events, event{claim: len(t.sizes)})
			live = append(live, len(t.sizes))
			t.sizes = append(t.sizes, next)
			load += next
			next = o.size(rng)
			continue
		}
		i := rng.IntN(len(live))
		t.events = append(t.events, event{claim: live[i], ends: true})
		load -= t.sizes[live[i]]
		live[i] = live[len(live)-1]
		live = live[:len(live)-1]
	}
	return t
}

// size draws how many CPUs a claim asks for: most are small, a few are as large as
// a NUMA node. Always whole cores, never more than a domain has, and at most half
// of the machine, so that there are others beside it.
func (o offer) size(rng *rand.Rand) int {
	largest := max(min(o.domain, o.cpus/2/o.threads*o.threads), o.threads)
	var cpus int
	switch p := rng.IntN(100); {
	case p < 70:
		cpus = 2 + 2*rng.IntN(4)
	case p < 95:
		cpus = 16 + 8*rng.IntN(3)
	default:
		cpus = largest
	}
	cpus = (cpus + o.threads - 1) / o.threads * o.threads
	return min(cpus, largest)
}
