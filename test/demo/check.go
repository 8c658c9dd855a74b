package main

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

// check is something that must be so, and what was seen of it.
type check struct {
	what       string
	want, seen string
}

func (c check) right() bool { return c.want == c.seen }

// cpus names CPUs in a sentence.
func cpus(s topology.CPUSet) string {
	switch s.Size() {
	case 0:
		return "no CPU"
	case 1:
		return "CPU " + s.String()
	}
	return "CPUs " + s.String()
}

// exactly wants a container's cgroup and its processes on these CPUs.
func exactly(what string, want topology.CPUSet, k harness.Kernel) check {
	return check{what: what, want: describe(want, want), seen: describe(k.Cgroup, k.Allowed)}
}

func describe(cgroup, processes topology.CPUSet) string {
	if cgroup.Equals(processes) {
		return cpus(cgroup)
	}
	return fmt.Sprintf("%s in the cgroup and %s for the processes", cpus(cgroup), cpus(processes))
}

// checkBefore judges a node without claims.
func checkBefore(before moment) []check {
	k := before.kernels[plainPod]
	return []check{
		exactly(fmt.Sprintf("%s may run on every CPU of the pool: %s", plainPod, cpus(k.Allowed)), k.Cgroup, k),
		{what: "no claim holds a CPU yet", want: cpus(topology.CPUSet{}), seen: cpus(before.granted)},
	}
}

// checkDuring judges the node while the claim is held. first is what the
// exclusive workload wrote at its first instruction, and left is when the plain
// pod was off the claim's CPUs, zero for never.
func checkDuring(before, during moment, first harness.Line, left time.Time) []check {
	granted := during.granted
	pool := before.kernels[plainPod].Allowed
	list := []check{
		{
			what: fmt.Sprintf("the claim was granted a CPU that %s had before", plainPod),
			want: cpus(granted), seen: cpus(granted.Intersection(pool)),
		},
		exactly(fmt.Sprintf("%s may run on %s, as granted, and nowhere else", claimPod, cpus(granted)),
			granted, during.kernels[claimPod]),
		exactly(fmt.Sprintf("%s may run on the rest of the pool: %s", plainPod, cpus(pool.Difference(granted))),
			pool.Difference(granted), during.kernels[plainPod]),
	}
	if granted.IsEmpty() {
		list[0].want = "a CPU"
	}
	for _, name := range slices.Sorted(maps.Keys(during.kernels)) {
		if name == plainPod || name == claimPod {
			continue
		}
		k := during.kernels[name]
		list = append(list, check{
			what: fmt.Sprintf("%s is kept off %s, too", name, cpus(granted)),
			want: cpus(topology.CPUSet{}), seen: cpus(k.Cgroup.Union(k.Allowed).Intersection(granted)),
		})
	}
	order := check{
		what: fmt.Sprintf("%s had left %s before the first instruction of %s", plainPod, cpus(granted), claimPod),
		want: "before", seen: "before",
	}
	switch {
	case left.IsZero():
		order.seen = "never"
	case !left.Before(first.Time):
		order.seen = fmt.Sprintf("%s after", first.Time.Sub(left).Abs().Round(time.Microsecond))
	}
	started, err := topology.ParseCPUSet(first.CPUsAllowed)
	alone := check{
		what: fmt.Sprintf("with its first instruction %s had %s and no other", claimPod, cpus(granted)),
		want: cpus(granted), seen: cpus(started),
	}
	if err != nil {
		alone.seen = err.Error()
	}
	return append(list, order, alone)
}

// checkAfter judges the node when the claim is gone.
func checkAfter(before, after moment) []check {
	pool := before.kernels[plainPod].Allowed
	list := []check{{what: "no claim holds a CPU any more", want: cpus(topology.CPUSet{}), seen: cpus(after.granted)}}
	for _, name := range slices.Sorted(maps.Keys(before.kernels)) {
		want := before.kernels[name].Allowed
		list = append(list, exactly(fmt.Sprintf("%s may run on %s again", name, cpus(pool)), want, after.kernels[name]))
	}
	return list
}
