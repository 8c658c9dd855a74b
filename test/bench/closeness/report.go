package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// comparison is what the sides made of one trace on one machine.
type comparison struct {
	machine                     machine
	topolet, bestEffort, strict outcome
}

// column is one of the counts by which grants are compared.
type column struct {
	name string
	of   func(spread) count
}

var columns = []column{
	{"NUMA nodes", func(s spread) count { return count{s.numaNodes, s.grants} }},
	{"L3 groups", func(s spread) count { return count{s.l3Groups, s.withL3} }},
	{"split cores", func(s spread) count { return count{s.splitCores, s.grants} }},
}

// count is a number of things over a number of grants.
type count struct{ things, grants int }

// String is the mean, or a dash where there is nothing to count.
func (c count) String() string {
	if c.grants == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", float64(c.things)/float64(c.grants))
}

// less reports whether the mean is lower than the other.
func (c count) less(o count) bool { return c.things*o.grants < o.things*c.grants }

// score is what is said of one side, on one machine or on all.
type score struct {
	name    string
	spread  spread
	claims  int
	refused int     // always with enough CPUs free: a trace never asks for more than the machine has
	micros  float64 // of time, for all claims
	allocs  uint64
}

func newScore(name string, m machine, o outcome) score {
	s := o.spread(m)
	return score{
		name: name, spread: s, claims: len(o.grants), refused: len(o.grants) - s.grants,
		micros: o.took.Seconds() * 1e6, allocs: o.allocs,
	}
}

func (s *score) add(o score) {
	s.name = o.name
	s.spread.add(o.spread)
	s.claims += o.claims
	s.refused += o.refused
	s.micros += o.micros
	s.allocs += o.allocs
}

// report prints each machine when it is done, and knows at the end who is closer.
type report struct {
	w        io.Writer
	machines int
	sums     [3]score
	pairs    [2]pair
	failures []string
}

// pair is topolet beside one of the kubelet's policies on the claims that both
// served: whoever refuses the claims that are hard to place looks close in what
// remains.
type pair struct {
	name             string
	topolet, kubelet spread
}

// The machine's name and its CPUs, and a number of each side in each group.
const (
	nameColumn  = "%-38s %5s"
	groupColumn = " | %8s %8s %8s"
)

func newReport(w io.Writer) *report {
	fmt.Fprintf(w, nameColumn, "", "")
	for _, title := range []string{"NUMA nodes per grant", "L3 groups per grant", "split cores per grant", "refused with CPUs free", "µs per claim", "allocations per claim"} {
		fmt.Fprintf(w, " | %-26s", title)
	}
	fmt.Fprintf(w, "\n"+nameColumn+"%s\n", "machine", "CPUs",
		strings.Repeat(fmt.Sprintf(groupColumn, "topolet", "spread", "strict"), len(columns)+3))
	return &report{w: w}
}

func (r *report) leftOut(name, why string) {
	fmt.Fprintf(r.w, nameColumn+" | left out: %s\n", name, "", why)
}

// machine reports on one machine, and remembers it for the sums.
func (r *report) machine(c comparison) {
	scores := [3]score{
		newScore("topolet", c.machine, c.topolet),
		newScore("the kubelet with "+bestEffort, c.machine, c.bestEffort),
		newScore("the kubelet with "+singleNUMANode, c.machine, c.strict),
	}
	r.row(c.machine.name, fmt.Sprint(c.machine.claimable().Size()), scores)
	r.machines++
	for i := range scores {
		r.sums[i].add(scores[i])
	}
	for i, kubelet := range []outcome{c.bestEffort, c.strict} {
		p := &r.pairs[i]
		p.name = scores[i+1].name
		p.topolet.add(c.topolet.spread(c.machine, kubelet))
		p.kubelet.add(kubelet.spread(c.machine, c.topolet))
		r.require(c.machine.name, scores[0].spread, scores[i+1])
	}
}

// require notes in which columns topolet is worse than the other.
func (r *report) require(where string, topolet spread, other score) {
	for _, col := range columns {
		if mine, theirs := col.of(topolet), col.of(other.spread); theirs.less(mine) {
			r.failures = append(r.failures, fmt.Sprintf("%s: topolet's grants have %s %s, those of %s %s",
				where, mine, col.name, other.name, theirs))
		}
	}
}

func (r *report) row(name, cpus string, scores [3]score) {
	fmt.Fprintf(r.w, nameColumn, name, cpus)
	group := func(text func(score) string) {
		fmt.Fprintf(r.w, groupColumn, text(scores[0]), text(scores[1]), text(scores[2]))
	}
	for _, col := range columns {
		group(func(s score) string { return col.of(s.spread).String() })
	}
	group(func(s score) string { return fmt.Sprint(s.refused) })
	group(func(s score) string { return fmt.Sprintf("%.1f", s.micros/float64(s.claims)) })
	group(func(s score) string { return fmt.Sprint(s.allocs / uint64(s.claims)) }) //nolint:gosec // not negative
	fmt.Fprintln(r.w)
}

// finish prints the sums and the verdict, which is an error if topolet is worse
// anywhere, or not better on the whole.
func (r *report) finish() error {
	if r.machines == 0 {
		return errors.New("no machine could be compared")
	}
	r.row(fmt.Sprintf("all %d machines", r.machines), "", r.sums)
	fmt.Fprintf(r.w, "\nspread: the kubelet with topology manager policy %s; strict: with %s.\n"+
		"A claim costs topolet the domain and the choice in it, without the ledger and its checkpoint, and the kubelet\n"+
		"the admission by its topology and CPU managers, without a checkpoint; for both, the release is in it.\n", bestEffort, singleNUMANode)
	for i, p := range r.pairs {
		fmt.Fprintf(r.w, "On the %d claims that topolet and %s both served:", p.topolet.grants, p.name)
		for _, col := range columns {
			fmt.Fprintf(r.w, " %s %s and %s;", col.name, col.of(p.topolet), col.of(p.kubelet))
		}
		fmt.Fprintf(r.w, " refused %d and %d.\n", r.sums[0].refused, r.sums[i+1].refused)
	}
	for _, kubelet := range r.sums[1:] {
		if !closer(r.sums[0].spread, kubelet.spread) {
			r.failures = append(r.failures, "in the sum, topolet is in no column closer than "+kubelet.name)
		}
	}
	if len(r.failures) > 0 {
		return fmt.Errorf("topolet does not keep CPUs closer together than the kubelet:\n  %s", strings.Join(r.failures, "\n  "))
	}
	fmt.Fprintln(r.w, "topolet's grants are spread wider than the kubelet's on no machine, and less in the sum.")
	return nil
}

// closer reports whether a is less spread than b in any column.
func closer(a, b spread) bool {
	for _, col := range columns {
		if col.of(a).less(col.of(b)) {
			return true
		}
	}
	return false
}
