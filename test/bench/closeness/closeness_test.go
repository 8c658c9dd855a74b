package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestBothSidesGiveAwayTheSameCPUs(t *testing.T) {
	t.Parallel()
	m := newMachine("two nodes", topologytest.New(topologytest.Spec{Sockets: 2, L3PerNUMA: 2, CoresPerL3: 4, Threads: 2, Isolated: "1,17"}))
	c, err := compare(m, newTrace(7, 300, m.offer()))
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]outcome{"topolet": c.topolet, bestEffort: c.bestEffort, singleNUMANode: c.strict} {
		var used topology.CPUSet
		for _, cpus := range o.grants {
			used = used.Union(cpus)
		}
		if !used.Equals(m.claimable()) {
			t.Errorf("%s gave away %s, want %s", name, used, m.claimable())
		}
	}
}

func TestTheKubeletWithBestEffortSpreadsWhatTheOthersRefuse(t *testing.T) {
	t.Parallel()
	m := newMachine("two nodes", topologytest.New(topologytest.Spec{Sockets: 2, CoresPerL3: 5}))
	// 3 of 4 CPUs are taken on one node and 3 of 5 on the other; then 3 are asked for.
	c, err := compare(m, trace{sizes: []int{3, 3, 3}, events: []event{{claim: 0}, {claim: 1}, {claim: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	if !c.topolet.grants[2].IsEmpty() || !c.strict.grants[2].IsEmpty() {
		t.Errorf("topolet gave %s and the strict kubelet %s, want nothing", c.topolet.grants[2], c.strict.grants[2])
	}
	if got := measure(m.model, c.bestEffort.grants[2]); got.numaNodes != 2 {
		t.Errorf("the kubelet with best-effort gave %s, want CPUs of two nodes", c.bestEffort.grants[2])
	}
	if both := c.topolet.spread(m, c.bestEffort); both.grants != 2 {
		t.Errorf("%d claims count as served by both, want 2", both.grants)
	}
}

// cheat gives the same CPU to every claim.
type cheat struct{}

func (cheat) serve(int) (topology.CPUSet, error) { return topology.NewCPUSet(1), nil }
func (cheat) release(int) error                  { return nil }

func TestACPUGivenAwayTwiceIsNoticed(t *testing.T) {
	t.Parallel()
	m := newMachine("one node", topologytest.New(topologytest.Spec{CoresPerL3: 5}))
	_, err := replay(m, cheat{}, trace{sizes: []int{1, 1}, events: []event{{claim: 0}, {claim: 1}}})
	if err == nil || !strings.Contains(err.Error(), "claim 1") {
		t.Errorf("error %v, want one about claim 1", err)
	}
}

func TestMachinesTheKubeletCannotRepresentAreLeftOut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spec topologytest.Spec
		want string // a part of the reason
	}{
		"an ordinary machine":       {topologytest.Spec{CoresPerL3: 5}, ""},
		"a small machine":           {topologytest.Spec{CoresPerL3: 4}, "3 cores can be claimed"},
		"two types of cores":        {topologytest.Spec{CoresPerL3: 4, EfficiencyCoresPerL3: 4}, "several types of cores"},
		"a core with a thread less": {topologytest.Spec{CoresPerL3: 8, Threads: 2, Offline: "15"}, "different numbers of threads"},
		"nine NUMA nodes":           {topologytest.Spec{NUMAPerSocket: 9, CoresPerL3: 2}, "9 NUMA nodes"},
		"a high node number":        {topologytest.Spec{CoresPerL3: 5, NUMAIDs: []int{64}}, "crashes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := newMachine(name, topologytest.New(c.spec)).unfit()
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestTheVerdictFailsWhereTopoletIsWorse(t *testing.T) {
	t.Parallel()
	m := newMachine("two groups", topologytest.New(topologytest.Spec{L3PerNUMA: 2, CoresPerL3: 4}))
	gives := func(cpus ...int) outcome { return outcome{grants: []topology.CPUSet{topology.NewCPUSet(cpus...)}} }
	for name, c := range map[string]struct {
		topolet, kubelet outcome
		want             string // a part of the error
	}{
		"closer":  {gives(1, 2), gives(3, 4), ""},
		"wider":   {gives(3, 4), gives(1, 2), "two groups: topolet's grants have 2.000 L3 groups"},
		"as wide": {gives(1, 2), gives(2, 3), "in the sum, topolet is in no column closer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			r := newReport(&out)
			r.machine(comparison{machine: m, topolet: c.topolet, bestEffort: c.kubelet, strict: c.kubelet})
			err := r.finish()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if !strings.Contains(out.String(), "all 1 machines") {
				t.Errorf("no sum in\n%s", out.String())
			}
		})
	}
}
