package main

import (
	"reflect"
	"testing"
)

var offers = map[string]offer{
	"one small domain":             {cpus: 7, domain: 7, threads: 1},
	"two domains of two threads":   {cpus: 94, domain: 48, threads: 2},
	"eight threads to a core":      {cpus: 120, domain: 120, threads: 8},
	"many domains smaller than 16": {cpus: 47, domain: 6, threads: 1},
	"a large machine":              {cpus: 510, domain: 256, threads: 2},
}

func TestTracesAreTheSameEveryTime(t *testing.T) {
	t.Parallel()
	for name, o := range offers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if a, b := newTrace(7, 300, o), newTrace(7, 300, o); !reflect.DeepEqual(a, b) {
				t.Error("the same seed gave two traces")
			}
			if a, b := newTrace(7, 300, o), newTrace(8, 300, o); reflect.DeepEqual(a, b) {
				t.Error("two seeds gave the same trace")
			}
		})
	}
}

func TestTracesKeepTheMachineBusyAndNeverOverfillIt(t *testing.T) {
	t.Parallel()
	for name, o := range offers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trace := newTrace(7, 2000, o)
			live := map[int]bool{}
			load, sum := 0, 0
			for _, e := range trace.events {
				size := trace.sizes[e.claim]
				if e.ends != live[e.claim] {
					t.Fatalf("claim %d: ends %v while live %v", e.claim, e.ends, live[e.claim])
				}
				live[e.claim] = !e.ends
				if e.ends {
					load -= size
				} else {
					load += size
				}
				if float64(load) > highLoad*float64(o.cpus) {
					t.Fatalf("%d of %d CPUs are claimed", load, o.cpus)
				}
				sum += load
			}
			if mean := float64(sum) / float64(len(trace.events)) / float64(o.cpus); mean < 0.6 {
				t.Errorf("the mean load is %.2f", mean)
			}
		})
	}
}

func TestEveryClaimFitsAnEmptyDomainInWholeCores(t *testing.T) {
	t.Parallel()
	for name, o := range offers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, size := range newTrace(7, 2000, o).sizes {
				if size <= 0 || size > o.domain || size%o.threads != 0 {
					t.Fatalf("a claim for %d CPUs", size)
				}
			}
		})
	}
}
