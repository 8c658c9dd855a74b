package allocator

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestExplain(t *testing.T) {
	// Two L3 groups of four cores with two threads each: 0-3,8-11 and 4-7,12-15.
	two := topologytest.Spec{L3PerNUMA: 2, CoresPerL3: 4, Threads: 2}
	four := topologytest.Spec{L3PerNUMA: 4, CoresPerL3: 4}
	clusters := topologytest.Spec{L3PerNUMA: 2, CoresPerL3: 4, CoresPerCluster: 2}
	machine := topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 2, CoresPerL3: 2}
	for name, test := range map[string]struct {
		machine    topologytest.Spec
		level      Level
		free, near string
		n          int
		want       []string
	}{
		"all are alike": {two, NUMALevel, "0-15", "", 2, []string{
			"1 whole core of 2 threads",
			"1 of 2 L3 groups (0), with 3 free cores left",
			"of 2 L3 groups that are equally good, group 0 is the first",
		}},
		"the tightest of those with room": {four, NUMALevel, "0-3,4-6,8-9,12", "", 2, []string{
			"2 whole cores of 1 thread",
			"1 of 4 L3 groups (2), with no free core left",
			"of 3 L3 groups with room for 2 cores, group 2 is left with the fewest free cores: 0",
		}},
		"only one has room": {four, NUMALevel, "0-3,4,8,12", "", 2, []string{
			"2 whole cores of 1 thread",
			"1 of 4 L3 groups (0), with 2 free cores left",
			"only L3 group 0 has room for 2 cores",
		}},
		"none has room": {four, NUMALevel, "0-1,4-7,8-9,12", "", 5, []string{
			"5 whole cores of 1 thread",
			"2 of 4 L3 groups (1, 3), with no free core left; no L3 group has 5 free cores, the largest has 4",
			"of 3 L3 groups with room for 1 core, group 3 is left with the fewest free cores: 0",
		}},
		"it takes three": {four, NUMALevel, "0-15", "", 12, []string{
			"12 whole cores of 1 thread",
			"3 of 4 L3 groups (0, 1, 2), with no free core left; the 2 largest L3 groups have no more than 8 free cores",
			"of 2 L3 groups that are equally good, group 2 is the first",
		}},
		"fewer clusters": {clusters, NUMALevel, "0,2,4-5", "", 2, []string{
			"2 whole cores of 1 thread",
			"1 of 2 L3 groups (1), with no free core left",
			"1 of 4 clusters (2), with no free core left",
			"of 2 L3 groups with room for 2 cores, group 1 takes the fewest clusters: 1",
		}},
		"a cluster of the L3 group": {clusters, NUMALevel, "0-3", "", 1, []string{
			"1 whole core of 1 thread",
			"1 of 2 L3 groups (0), with 3 free cores left",
			"1 of 4 clusters (0), with 1 free core left",
			"of 2 clusters that are equally good, cluster 0 is the first",
		}},
		"near": {two, NUMALevel, "0-15", "4-7,12-15", 4, []string{
			"2 whole cores of 2 threads",
			"1 of 2 L3 groups (1), with 2 free cores left",
			"of 2 L3 groups that are equally good, group 1 has the most free cores near the claim's devices: 4",
			"near the claim's devices",
		}},
		"near in part": {two, NUMALevel, "0-3,8-11", "0,8", 4, []string{
			"2 whole cores of 2 threads",
			"1 of 2 L3 groups (0), with 2 free cores left",
			"1 of the 2 cores near the claim's devices",
		}},
		"of a whole machine": {machine, MachineLevel, "0,2,8-15", "", 2, []string{
			"2 whole cores of 1 thread",
			"1 of 2 sockets (1), with 6 free cores left",
			"1 of 4 NUMA nodes (2), with 2 free cores left",
			"1 of 8 L3 groups (4), with no free core left",
			"of 2 sockets with room for 2 cores, socket 1 takes the fewest L3 groups: 1",
			"of 2 NUMA nodes of socket 1 that are equally good, node 2 is the first",
			"of 2 L3 groups of NUMA node 2 that are equally good, group 4 is the first",
		}},
		"a larger part counts for more": {machine, MachineLevel, "0,2,9,12-13", "", 2, []string{
			"2 whole cores of 1 thread",
			"1 of 2 sockets (1), with 1 free core left",
			"1 of 4 NUMA nodes (3), with no free core left",
			"1 of 8 L3 groups (6), with no free core left",
			"of 2 sockets with room for 2 cores, socket 1 takes the fewest L3 groups: 1",
			"only NUMA node 3 has room for 2 cores",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := topologytest.New(test.machine)
			domains := slices.DeleteFunc(Domains(m, topology.CPUSet{}, MachineLevel), func(d *Domain) bool { return d.Level != test.level })
			e, err := domains[0].Explain(set(t, test.free), test.n, set(t, test.near))
			if err != nil {
				t.Fatal(err)
			}
			if got := e.Sentences(); !slices.Equal(got, test.want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(test.want, "\n\t"))
			}
		})
	}
}

// An explanation is of the very choice, and its numbers agree with one another.
func TestExplainTellsOfTheChoice(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // a seed makes it repeatable
	for range 200 {
		m := topologytest.New(topologytest.Spec{
			Sockets: 1 + rng.IntN(2), NUMAPerSocket: 1 + rng.IntN(2), L3PerNUMA: 1 + rng.IntN(3), CoresPerL3: 1 + rng.IntN(6),
			Threads: 1 + rng.IntN(2), CoresPerCluster: rng.IntN(2) * 2,
		})
		for _, d := range Domains(m, topology.CPUSet{}, L3Level, SocketLevel, MachineLevel) {
			free, near := randomCPUs(rng, m), topology.CPUSet{}
			if rng.IntN(2) == 0 {
				near = randomCPUs(rng, m)
			}
			n := d.ThreadsPerCore * (1 + rng.IntN(len(d.cores)))
			cpus, err := d.Choose(free, n, near)
			e, explainErr := d.Explain(free, n, near)
			if (err == nil) != (explainErr == nil) || err != nil && err.Error() != explainErr.Error() {
				t.Fatalf("the choice says %v, the explanation %v", err, explainErr)
			}
			if err != nil {
				continue
			}
			if !e.CPUs.Equals(cpus) || e.Cores*e.ThreadsPerCore != n {
				t.Fatalf("chose %s, explained %d cores, %s", cpus, e.Cores, e.CPUs)
			}
			checkScales(t, m, d, e, free.Difference(cpus))
			for _, s := range e.Sentences() {
				if s == "" || strings.Contains(s, "-1") {
					t.Errorf("sentence %q", s)
				}
			}
		}
	}
}

func checkScales(t *testing.T, m *topology.Machine, d *Domain, e Explanation, left topology.CPUSet) {
	t.Helper()
	for _, use := range e.Scales {
		taken := 0
		for _, part := range use.Parts {
			taken += part.Taken
			if use.Scale != "L3 group" {
				continue
			}
			cpus := m.L3Groups[part.Number].CPUs.Intersection(d.CPUs)
			if got := cpus.IntersectionSize(e.CPUs); got != part.Taken*d.ThreadsPerCore {
				t.Fatalf("%d cores of L3 group %d are said, %d CPUs are", part.Taken, part.Number, got)
			}
			free := 0
			for _, core := range m.Cores {
				if core.CPUs.IsSubsetOf(left.Intersection(cpus)) {
					free++
				}
			}
			if free != part.Left {
				t.Fatalf("%d cores are said to be left in L3 group %d, %d are", part.Left, part.Number, free)
			}
		}
		if taken != e.Cores || len(use.Parts) < use.Fewest || use.Fewest < 1 || len(use.Parts) > use.Of {
			t.Fatalf("%d cores explained by %+v", e.Cores, use)
		}
		if use.Fewest > 1 && use.Largest >= e.Cores {
			t.Fatalf("%d cores are in fewer parts than %+v says", e.Cores, use)
		}
	}
	// At the largest scale nothing counts for more.
	if len(e.Scales) > 0 && len(e.Scales[0].Parts) != e.Scales[0].Fewest {
		t.Fatalf("%d cores in more parts than needed: %+v", e.Cores, e.Scales[0])
	}
}

func randomCPUs(rng *rand.Rand, m *topology.Machine) topology.CPUSet {
	var ids []int
	for _, cpu := range m.CPUs {
		if rng.IntN(4) > 0 {
			ids = append(ids, cpu.ID)
		}
	}
	return topology.NewCPUSet(ids...)
}

func TestTheLedgerExplainsAGrant(t *testing.T) {
	m := topologytest.New(topologytest.Spec{L3PerNUMA: 2, CoresPerL3: 4, Threads: 2})
	l, err := NewLedger(m, Policy{ReservedCPUs: DefaultReserved(m)}, &memory{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	grant(t, l, claim("first", "pod"), cpus(4, "numa-0"))
	g := grant(t, l, claim("second", "pod"), slices.Concat(cpus(2, "numa-0"), cpus(4, "numa-0")))
	before := l.Grants()
	explanations, err := l.Explain("second")
	if err != nil {
		t.Fatal(err)
	}
	if len(explanations) != len(g.Parts) {
		t.Fatalf("%d explanations for %d parts", len(explanations), len(g.Parts))
	}
	for i, e := range explanations {
		if !e.CPUs.Equals(g.Parts[i].CPUs) {
			t.Errorf("part %d has CPUs %s, explained are %s", i, g.Parts[i].CPUs, e.CPUs)
		}
	}
	if !slices.EqualFunc(before, l.Grants(), func(a, b Grant) bool { return a.UID == b.UID && a.CPUs().Equals(b.CPUs()) }) {
		t.Error("to explain a grant has changed the ledger")
	}
	if explanations, err := l.Explain("third"); explanations != nil || err != nil {
		t.Errorf("a claim without a grant is explained by %v, %v", explanations, err)
	}
	reserved := m.L3Groups[0].CPUs
	gone, err := NewLedger(m, Policy{ReservedCPUs: reserved}, &memory{}, []Grant{{
		Claim: claim("lost", "pod"), Parts: []Part{{Request: cpus(2, "l3-0")[0], CPUs: topology.NewCPUSet(1, 9)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var unknown *UnknownDomainError
	if _, err := gone.Explain("lost"); !errors.As(err, &unknown) {
		t.Errorf("a device that is gone: %v", err)
	}
}
