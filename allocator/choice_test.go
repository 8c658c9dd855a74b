package allocator

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestChoose(t *testing.T) {
	// Two L3 groups of four cores with two threads each: 0-3,8-11 and 4-7,12-15.
	two := topologytest.Spec{L3PerNUMA: 2, CoresPerL3: 4, Threads: 2}
	for name, test := range map[string]struct {
		machine topologytest.Spec
		free    string
		n       int
		want    string
	}{
		"an empty machine is filled from its start": {two, "0-15", 2, "0,8"},
		"the tightest L3 group that fits":           {two, "0-7,8-11,13-15", 4, "5-6,13-14"},
		"a whole group rather than two halves":      {two, "1-7,9-15", 8, "4-7,12-15"},
		"two groups when none is large enough":      {two, "0-15", 12, "0-5,8-13"},
		"the rest goes where it fits best":          {topologytest.Spec{L3PerNUMA: 3, CoresPerL3: 4}, "0-9", 6, "0-3,8-9"},
		"half a free core is not free":              {two, "0-7,9-15", 2, "1,9"},
		"whole clusters inside the group":           {topologytest.Spec{CoresPerL3: 6, CoresPerCluster: 2}, "1-5", 2, "2-3"},
		"the tightest cluster":                      {topologytest.Spec{CoresPerL3: 6, CoresPerCluster: 2}, "1-5", 1, "1"},
		"a machine that tells of no L3":             {topologytest.Spec{CoresPerL3: 4, NoL3: true}, "1-3", 2, "1-2"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Domains(topologytest.New(test.machine), topology.CPUSet{})[0]
			got, err := d.Choose(set(t, test.free), test.n, topology.CPUSet{})
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != test.want {
				t.Errorf("chose %s, want %s", got, test.want)
			}
		})
	}
}

func TestChooseIsNearTheDevices(t *testing.T) {
	// Two L3 groups of four cores with two threads each: 0-3,8-11 and 4-7,12-15.
	two := topologytest.Spec{L3PerNUMA: 2, CoresPerL3: 4, Threads: 2}
	// Clusters of two cores in two L3 groups of four.
	clusters := topologytest.Spec{L3PerNUMA: 2, CoresPerL3: 4, CoresPerCluster: 2}
	for name, test := range map[string]struct {
		machine topologytest.Spec
		free    string
		near    string
		n       int
		want    string
	}{
		"of two groups that are alike, the near one":      {two, "0-15", "4-7,12-15", 4, "4-5,12-13"},
		"the group with more near cores":                  {two, "0-15", "3-7,11-15", 2, "4,12"},
		"only free cores count as near":                   {two, "0-1,8-9,6-7,14-15", "1,9,4-5,12-13", 2, "1,9"},
		"half a near core is not near":                    {two, "0-15", "4-7", 2, "0,8"},
		"near cores of a group before its others":         {two, "0-3,8-11", "2-3,10-11", 4, "2-3,10-11"},
		"not where it splits the CPUs":                    {two, "0-7,8-13", "0,4-5,8,12-13", 8, "0-3,8-11"},
		"not where it leaves a larger fragment":           {two, "0-1,8-9,4-15", "4-7,12-15", 2, "0,8"},
		"not where it takes a cluster more":               {clusters, "0,2-3,4-5,6", "0,2-3", 2, "2-3"},
		"of two clusters that are alike, the near one":    {clusters, "0-3", "2-3", 2, "2-3"},
		"of two groups taken as a whole, the near one":    {topologytest.Spec{L3PerNUMA: 3, CoresPerL3: 2}, "0-5", "4-5", 3, "0,4-5"},
		"near CPUs that are not free are no preference":   {two, "0-15", "100-200", 2, "0,8"},
		"near everything is no preference":                {two, "0-15", "0-15", 2, "0,8"},
		"a near group that is not large enough is passed": {two, "0-15", "0-3,8-11", 10, "0-4,8-12"},
	} {
		t.Run(name, func(t *testing.T) {
			d := Domains(topologytest.New(test.machine), topology.CPUSet{})[0]
			got, err := d.Choose(set(t, test.free), test.n, set(t, test.near))
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != test.want {
				t.Errorf("chose %s, want %s", got, test.want)
			}
		})
	}
}

// What divides the CPUs of a whole machine counts for more than the fragments, at
// every scale.
func TestChooseOnAWholeMachine(t *testing.T) {
	// Two sockets with two NUMA nodes of two L3 groups of two cores.
	m := topologytest.New(topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 2, CoresPerL3: 2})
	// The first socket has one NUMA node of four L3 groups, once its others are reserved.
	lopsided := topologytest.New(topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 4, CoresPerL3: 1})
	for name, test := range map[string]struct {
		machine        *topology.Machine
		reserved, free string
		n              int
		want           string
	}{
		"one L3 group of the roomy socket rather than two of the tight one": {m, "", "0,2,8-15", 2, "8-9"},
		"one NUMA node rather than two of the tighter socket":               {m, "", "0,4,8-15", 2, "8-9"},
		"two NUMA nodes of one socket rather than two sockets":              {m, "", "0-3,6,8-13", 6, "8-13"},
		"a socket of one NUMA node is not worse for its L3 groups":          {lopsided, "4-7", "0-1,8-15", 2, "0-1"},
	} {
		t.Run(name, func(t *testing.T) {
			domains := Domains(test.machine, set(t, test.reserved), MachineLevel)
			d := domains[len(domains)-1]
			got, err := d.Choose(set(t, test.free), test.n, topology.CPUSet{})
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != test.want {
				t.Errorf("chose %s, want %s", got, test.want)
			}
		})
	}
}

func TestChooseRefuses(t *testing.T) {
	d := Domains(topologytest.New(topologytest.Spec{CoresPerL3: 4, Threads: 2}), topology.CPUSet{})[0]
	for name, test := range map[string]struct {
		free string
		n    int
		want error
	}{
		"nothing":                             {"0-7", 0, &CountError{"numa-0", 0, 2, 8}},
		"less than nothing":                   {"0-7", -2, &CountError{"numa-0", -2, 2, 8}},
		"half a core":                         {"0-7", 3, &CountError{"numa-0", 3, 2, 8}},
		"more than there is":                  {"0-7", 10, &CountError{"numa-0", 10, 2, 8}},
		"more than is free":                   {"0-1,4-5", 6, &InsufficientError{"numa-0", 6, 4}},
		"free threads that make no core":      {"0-3", 2, &InsufficientError{"numa-0", 2, 0}},
		"free CPUs that are another domain's": {"8-15", 2, &InsufficientError{"numa-0", 2, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := d.Choose(set(t, test.free), test.n, topology.CPUSet{})
			if err == nil || err.Error() != test.want.Error() {
				t.Errorf("chose %q, error %v; want error %v", got, err, test.want)
			}
		})
	}
}

// TestChooseKeepsItsPromises draws machines, free CPUs, counts and near CPUs, and
// checks every choice against what the objective says, computed in another way: what
// is near must not matter to any of it.
func TestChooseKeepsItsPromises(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a seed makes it repeatable
	for range 100 {
		checkChoices(t, rng, topologytest.Spec{
			L3PerNUMA:       1 + rng.IntN(4),
			CoresPerL3:      1 + rng.IntN(8),
			Threads:         1 << rng.IntN(3),
			CoresPerCluster: rng.IntN(2) * 2,
			AdjacentThreads: rng.IntN(2) == 0,
		})
	}
}

func checkChoices(t *testing.T, rng *rand.Rand, spec topologytest.Spec) {
	t.Helper()
	m := topologytest.New(spec)
	// Reserved cores make parts of different shapes.
	reserved := m.Cores[rng.IntN(len(m.Cores))].CPUs.Union(m.Cores[rng.IntN(len(m.Cores))].CPUs)
	domains := Domains(m, reserved)
	if len(domains) == 0 {
		return
	}
	d := domains[0]
	for range 50 {
		var ids []int
		for _, cpu := range m.CPUs {
			if rng.IntN(4) > 0 {
				ids = append(ids, cpu.ID)
			}
		}
		free := topology.NewCPUSet(ids...)
		n := d.ThreadsPerCore * (1 + rng.IntN(len(d.cores)))
		var near topology.CPUSet
		if len(m.L3Groups) > 0 && rng.IntN(3) > 0 {
			near = m.L3Groups[rng.IntN(len(m.L3Groups))].CPUs
		}

		got, err := d.Choose(free, n, near)
		perGroup := freeCores(m, free.Intersection(d.CPUs))
		available := 0
		for _, clusters := range perGroup {
			for _, cores := range clusters {
				available += cores
			}
		}
		if need := n / d.ThreadsPerCore; need > available {
			var want *InsufficientError
			if !errors.As(err, &want) || want.Free != available*d.ThreadsPerCore {
				t.Fatalf("%+v free %s: %d CPUs: error %v with %d cores free", spec, free, n, err, available)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%+v free %s: %d CPUs: %v", spec, free, n, err)
		}
		again, _ := d.Choose(free, n, near)
		switch {
		case got.Size() != n:
			t.Fatalf("%+v free %s: %d CPUs: got %s", spec, free, n, got)
		case !got.IsSubsetOf(free):
			t.Fatalf("%+v free %s: %d CPUs: %s are not all free", spec, free, n, got)
		case !wholeCoresOnly(m, got):
			t.Fatalf("%+v free %s: %d CPUs: %s splits a core", spec, free, n, got)
		case !again.Equals(got):
			t.Fatalf("%+v free %s: %d CPUs: %s, then %s", spec, free, n, got, again)
		}
		checkGroups(t, m, perGroup, got, n/d.ThreadsPerCore)
	}
}

// checkGroups demands the smallest possible number of L3 groups, and where one
// suffices, one that needs the fewest clusters, and of these the tightest.
func checkGroups(t *testing.T, m *topology.Machine, perGroup map[int]map[int]int, got topology.CPUSet, need int) {
	t.Helper()
	type score struct{ clusters, left int }
	var best *score
	scores := map[int]score{}
	sums := map[int]int{}
	for l3, clusters := range perGroup {
		for _, cores := range clusters {
			sums[l3] += cores
		}
		if sums[l3] < need {
			continue
		}
		s := score{fewest(clusters, need), sums[l3] - need}
		scores[l3] = s
		if best == nil || s.clusters < best.clusters || s.clusters == best.clusters && s.left < best.left {
			best = &s
		}
	}
	used := map[int]bool{}
	for id := range got.All() {
		cpu, _ := m.CPU(id)
		used[cpu.L3] = true
	}
	if want := fewest(sums, need); len(used) != want {
		t.Fatalf("%d cores of %v over %d L3 groups: %d would do", need, perGroup, len(used), want)
	}
	for l3 := range used {
		if best != nil && scores[l3] != *best {
			t.Fatalf("%d cores of %v from L3 group %d, %+v: there is %+v", need, perGroup, l3, scores[l3], *best)
		}
	}
}

// fewest is how many of the groups it takes to have so many cores.
func fewest(free map[int]int, need int) int {
	counts := slices.SortedFunc(maps.Values(free), func(a, b int) int { return b - a })
	n := 0
	for sum := 0; sum < need; n++ {
		sum += counts[n]
	}
	return n
}

// freeCores counts the free cores of each cluster of each L3 group.
func freeCores(m *topology.Machine, free topology.CPUSet) map[int]map[int]int {
	found := map[int]map[int]int{}
	for _, core := range m.Cores {
		if !core.CPUs.IsSubsetOf(free) {
			continue
		}
		cpu, _ := m.CPU(core.CPUs.First())
		if found[cpu.L3] == nil {
			found[cpu.L3] = map[int]int{}
		}
		found[cpu.L3][cpu.Cluster]++
	}
	return found
}

func wholeCoresOnly(m *topology.Machine, cpus topology.CPUSet) bool {
	return !slices.ContainsFunc(m.Cores, func(core topology.Group) bool {
		n := core.CPUs.IntersectionSize(cpus)
		return n != 0 && n != core.CPUs.Size()
	})
}
