package main

import (
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestSpreadCountsWhatAGrantTouches(t *testing.T) {
	t.Parallel()
	// Two nodes of two L3 groups of two cores: core i has the CPUs i and i+8.
	m := topologytest.New(topologytest.Spec{Sockets: 2, L3PerNUMA: 2, CoresPerL3: 2, Threads: 2})
	for name, c := range map[string]struct {
		cpus string
		want spread
	}{
		"a core":                         {"0,8", spread{grants: 1, withL3: 1, numaNodes: 1, l3Groups: 1}},
		"one thread of a core":           {"0", spread{grants: 1, withL3: 1, numaNodes: 1, l3Groups: 1, splitCores: 1}},
		"threads of different cores":     {"0-1", spread{grants: 1, withL3: 1, numaNodes: 1, l3Groups: 1, splitCores: 2}},
		"cores of two L3 groups":         {"1-2,9-10", spread{grants: 1, withL3: 1, numaNodes: 1, l3Groups: 2}},
		"cores of two NUMA nodes":        {"3-4,11-12", spread{grants: 1, withL3: 1, numaNodes: 2, l3Groups: 2}},
		"the machine but for one thread": {"0-14", spread{grants: 1, withL3: 1, numaNodes: 2, l3Groups: 4, splitCores: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cpus, err := topology.ParseCPUSet(c.cpus)
			if err != nil {
				t.Fatal(err)
			}
			if got := measure(m, cpus); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestSpreadCountsNoL3WhereThereIsNone(t *testing.T) {
	t.Parallel()
	m := topologytest.New(topologytest.Spec{CoresPerL3: 2, NoL3: true})
	if got, want := measure(m, m.Online), (spread{grants: 1, numaNodes: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
