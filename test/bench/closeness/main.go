// Command closeness compares how close together topolet and the kubelet's static
// CPU manager put the CPUs of a claim. The kubelet's side is Kubernetes' own code,
// used as a library; nothing of it is copied.
//
// Data passes through it like this:
//
//	machines.go     the machines, read from snapshots of real ones, and a large one
//	trace.go        one random list of claims that come and go, for each machine
//	topolet.go      serves the claims by topolet's choice
//	kubelet.go      serves them by the kubelet's, twice: with the topology manager
//	                policy best-effort, which spreads a claim over NUMA nodes where
//	                it must, and with single-numa-node, which refuses it instead
//	replay.go       has one side serve one trace, and checks what it gives away
//	spread.go       counts what each grant is spread over
//	report.go       one line for each machine, the sums, and the verdict
//
// All sides give away the same CPUs, those of topolet's domains, and get the same
// claims. A claim that one side refuses is absent on that side only.
//
// A claim's size always fits the largest domain. What topolet and the strict
// kubelet refuse although CPUs are free is what no NUMA node has room for at that
// moment.
//
// The exit code is 1 if topolet's grants are spread wider than the kubelet's on
// any machine, or not less in the sum. Times and allocations are reported, never
// judged.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	claims := flag.Int("claims", 1000, "how many claims come and go on each machine")
	seed := flag.Uint64("seed", 1, "which random traces are replayed")
	flag.Parse()
	if err := run(os.Stdout, *claims, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "closeness:", err)
		os.Exit(1)
	}
}

// run compares the sides on every machine and reports each when it is done.
func run(w io.Writer, claims int, seed uint64) error {
	if claims < 1 {
		return fmt.Errorf("-claims %d: must be at least 1", claims)
	}
	machines, err := readMachines(w)
	if err != nil {
		return err
	}
	r := newReport(w)
	for _, m := range machines {
		if why := m.unfit(); why != "" {
			r.leftOut(m.name, why)
			continue
		}
		c, err := compare(m, newTrace(seed, claims, m.offer()))
		var kubelet *kubeletError
		switch {
		case errors.As(err, &kubelet):
			// Nothing can be learned from a side that fails, or gives CPUs away twice.
			r.leftOut(m.name, err.Error())
		case err != nil:
			return fmt.Errorf("%s: %w", m.name, err)
		default:
			r.machine(c)
		}
	}
	return r.finish()
}

// compare replays the trace on all sides.
func compare(m machine, t trace) (c comparison, err error) {
	c.machine = m
	if c.topolet, err = replay(m, newTopolet(m.domains, t.sizes), t); err != nil {
		return c, fmt.Errorf("topolet: %w", err)
	}
	if c.bestEffort, err = replayKubelet(m, bestEffort, t); err != nil {
		return c, err
	}
	c.strict, err = replayKubelet(m, singleNUMANode, t)
	return c, err
}

// replayKubelet fails with a [*kubeletError].
func replayKubelet(m machine, policy string, t trace) (outcome, error) {
	k, err := newKubelet(m, policy, t.sizes)
	if err != nil {
		return outcome{}, &kubeletError{policy, err}
	}
	o, err := replay(m, k, t)
	if err != nil {
		return o, &kubeletError{policy, err}
	}
	return o, nil
}

// kubeletError is a failure of the kubelet, not of topolet.
type kubeletError struct {
	policy string
	err    error
}

func (e *kubeletError) Error() string {
	return fmt.Sprintf("the kubelet with %s %v", e.policy, e.err)
}
