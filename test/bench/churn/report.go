package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/topolet/topolet/test/bench/churn/sample"
)

// result is what a run found. Its JSON is one line, for runs to be put side by side.
type result struct {
	Machine, Enforcement string
	Topolet              bool
	Containers, PerPod   int
	ExclusivePods        int
	Starting             int
	Life                 time.Duration
	Seed                 uint64
	Seconds              float64
	// Created are containers, Restarts those of them that replaced one of the same pod;
	// Running and Pending are of the last moment.
	Created, Restarts, Running, Pending int
	// Failed are calls of the runtime that ended with an error.
	Failed  int
	Failure string `json:",omitempty"`
	// Runtime has how long containerd took, by call and kind of container.
	Runtime []runtimeCall
	NRI     []nriEvent `json:",omitempty"`
	// Complaints are errors in topolet's log, the first of them in full.
	Complaints int
	Complaint  string `json:",omitempty"`
	Seen       sample.Result
	Logs       logCheck
}

const createCall, startCall = "CreateContainer", "StartContainer"

type runtimeCall struct {
	Call, Kind   string
	Count        int
	P50ms, P99ms float64
}

func newResult(o options) *result {
	return &result{
		Machine: o.machine, Enforcement: o.enforcement, Topolet: !o.without, Containers: o.containers, PerPod: o.perPod,
		ExclusivePods: o.exclusive, Starting: o.starting, Life: o.life, Seed: o.seed,
	}
}

// take adds what containerd's log says.
func (r *result) take(t runtimeTimes) {
	r.Failed, r.Failure = t.failed, t.failure
	for _, call := range []struct {
		name string
		of   map[string]durations
	}{{createCall, t.create}, {startCall, t.start}} {
		for _, kind := range []string{sharedKind, exclusiveKind} {
			d := call.of[kind]
			r.Runtime = append(r.Runtime, runtimeCall{call.name, kind, len(d), milliseconds(d.quantile(0.5)), milliseconds(d.quantile(0.99))})
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// report prints the table and appends the line.
func (r *result) report(w io.Writer, o options) error {
	with := "with topolet"
	if !r.Topolet {
		with = "without topolet"
	} else if r.Enforcement != "" {
		with += ", enforcement " + r.Enforcement
	}
	fmt.Fprintf(w, "\n%s, %s, %.0f s: %d containers created, %d of them in the place of one that ended by itself or failed\n",
		r.Machine, with, r.Seconds, r.Created, r.Restarts)
	fmt.Fprintf(w, "at the end: %d containers running, %d claims pending\n", r.Running, r.Pending)
	fmt.Fprintf(w, "calls of the runtime that failed: %d %s\n", r.Failed, r.Failure)
	fmt.Fprintf(w, "errors in topolet's log: %d %s\n", r.Complaints, r.Complaint)
	s := r.Seen
	fmt.Fprintf(w, "%d samples, longest gap %v, a look takes %v, at most %v\n", s.Samples,
		s.LongestGap.Round(time.Millisecond), s.MeanSample.Round(10*time.Microsecond), s.LongestSample.Round(10*time.Microsecond))
	fmt.Fprintf(w, "%d containers and sandboxes seen, %d exclusive ones running, %d of these with other CPUs later, %d known too late\n",
		s.Containers, s.Exclusive, s.Changed, s.Late)
	fmt.Fprintf(w, "on exclusive CPUs could run: %d other running containers, %d containers before their first instruction, %d sandboxes\n",
		s.Violations, s.Starting, s.Sandboxes)
	fmt.Fprintf(w, "logs of exclusive containers read: %d, started elsewhere: %d %s\n", r.Logs.Read, r.Logs.Elsewhere, r.Logs.First)
	for i, v := range s.Details {
		if i == shownViolations {
			fmt.Fprintf(w, "  … and %d more\n", s.Violations-i)
			break
		}
		fmt.Fprintf(w, "  %v\n", v)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "containerd\tcontainer\tcalls\tp50 ms\tp99 ms\t")
	for _, c := range r.Runtime {
		fmt.Fprintf(t, "%s\t%s\t%d\t%.1f\t%.1f\t\n", c.Call, c.Kind, c.Count, c.P50ms, c.P99ms)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.NRI) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(t, "topolet\terrors\tevents\tp50 ms\tp99 ms\tmean ms\t")
		for _, e := range r.NRI {
			more := ""
			if e.P99IsMore {
				more = ">"
			}
			fmt.Fprintf(t, "%s\t%d\t%d\t%.2f\t%s%.2f\t%.2f\t\n", e.Event, e.Errors, e.Count, e.P50ms, more, e.P99ms, e.MeanMs)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if o.json == "" {
		return nil
	}
	return r.append(o.json)
}

// shownViolations are in the report; the line of JSON has more.
const shownViolations = 5

func (r *result) append(file string) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644) //nolint:gosec // anyone may read it
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// verdict is an error if CPUs were not exclusive, or if nothing was tested. Without
// topolet it is an error that they were: then the observer would find nothing ever.
func (r *result) verdict(o options) error {
	var errs []error
	complain := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	found := r.Seen.Violations + r.Logs.Elsewhere
	complain(!o.without && r.Seen.Violations > 0, "%d containers could run on the CPUs of exclusive ones", r.Seen.Violations)
	complain(!o.without && r.Logs.Elsewhere > 0, "%d exclusive containers started elsewhere", r.Logs.Elsewhere)
	complain(o.without && found == 0, "no violation was found without topolet, where exclusive pods share their CPUs")
	started := slices.ContainsFunc(r.Runtime, func(c runtimeCall) bool { return c.Call == startCall && c.Kind == sharedKind && c.Count > 0 })
	complain(!started, "no shared container was started")
	complain(r.Seen.Exclusive == 0, "no exclusive container was seen running in %d samples", r.Seen.Samples)
	complain(r.Seen.Late > 0, "%d exclusive containers were not known to be exclusive when they were first seen", r.Seen.Late)
	return errors.Join(errs...)
}
