package draplugin

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

var randomMachines = flag.Int("machines", 50, "how many random machines claims come and go on")

// What the scheduler admits never fails in Prepare, and what it refuses would
// not have fitted.
func TestWhatTheSchedulerAdmitsIsPrepared(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(machines)) {
		sequences := 10
		if name == "many NUMA nodes" {
			sequences = 1 // each takes a second
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reserved := allocator.DefaultReserved(topologytest.New(machines[name]))
			var all tally
			for seed := range sequences {
				all.live(t, seed, machines[name], reserved, newRandom(seed))
				if t.Failed() {
					return
				}
			}
			all.check(t)
		})
	}
}

// The machine with seed 17 alone: -run 'AnyMachine/seeds/17$' -machines 18.
func TestWhatTheSchedulerAdmitsIsPreparedOnAnyMachine(t *testing.T) {
	var all tally
	t.Run("seeds", func(t *testing.T) {
		for seed := range *randomMachines {
			t.Run(strconv.Itoa(seed), func(t *testing.T) {
				t.Parallel()
				random := newRandom(seed)
				spec, reserved := randomMachine(random)
				all.live(t, seed, spec, reserved, random)
			})
		}
	})
	if all.lives == *randomMachines {
		all.check(t)
	}
}

func newRandom(seed int) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(seed), 1)) //nolint:gosec // small numbers
}

// tally counts what happened in lives.
type tally struct {
	mu                                                   sync.Mutex
	lives, admitted, refused, released, started, changed int
}

// live lives once on a machine, and says on which when something is wrong.
func (a *tally) live(t *testing.T, seed int, spec topologytest.Spec, reserved topology.CPUSet, random *rand.Rand) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("seed %d, reserved CPUs %s: %+v", seed, reserved, spec)
		}
	}()
	l := newLife(t, spec, reserved, random)
	l.live(t)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lives++
	a.admitted += l.admitted
	a.refused += l.refused
	a.released += l.released
	a.started += l.started
	a.changed += l.changed
}

// check wants some of everything: a sequence that never meets a limit shows
// nothing.
func (a *tally) check(t *testing.T) {
	t.Helper()
	t.Logf("%d lives of a machine: %d claims admitted, %d refused, %d released, %d restarts, %d changes of the machine",
		a.lives, a.admitted, a.refused, a.released, a.started, a.changed)
	if min(a.admitted, a.refused, 2*a.released, 2*a.started) < a.lives {
		t.Error("the test asks for the wrong things")
	}
}

// life is a machine on which claims come and go at random, CPUs go offline and
// come back, and the driver starts again.
type life struct {
	rig       *rig
	scheduler *scheduler
	random    *rand.Rand
	spec      topologytest.Spec // with all CPUs online
	complete  *topology.Machine // of that
	granted   map[types.UID]string

	admitted, refused, released, started, changed int
}

func newLife(t *testing.T, spec topologytest.Spec, reserved topology.CPUSet, random *rand.Rand) *life {
	t.Helper()
	m := topologytest.New(spec)
	var levels []allocator.Level
	for _, level := range furtherLevels {
		if random.IntN(5) == 0 && len(m.NUMANodes) <= 16 { // with more, each search takes a second

			levels = append(levels, level)
		}
	}
	r := newRigOn(t, m, allocator.Policy{ReservedCPUs: reserved, Levels: levels})
	l := &life{
		rig: r, scheduler: newScheduler(t, r), random: random,
		spec: spec, complete: r.machine, granted: map[types.UID]string{},
	}
	if spec.Offline != "" {
		l.spec.Offline = ""
		l.complete = topologytest.New(l.spec)
	}
	return l
}

func (l *life) live(t *testing.T) {
	t.Helper()
	const steps = 20
	for range steps {
		switch n := l.random.IntN(10); {
		case n == 0:
			l.restart(t)
		case n == 1:
			l.replug(t)
		case n < 5 && len(l.scheduler.claims) > 0:
			uids := slices.Sorted(maps.Keys(l.scheduler.claims))
			l.release(t, uids[l.random.IntN(len(uids))])
		default:
			l.ask(t)
		}
		l.sound(t)
		if t.Failed() {
			return
		}
	}
	l.end(t)
}

// ask has the scheduler allocate a random claim.
func (l *life) ask(t *testing.T) {
	t.Helper()
	largest, isolated := 0, false
	domains := l.rig.ledger.Inventory().Domains
	for _, d := range domains {
		largest, isolated = max(largest, d.CPUs.Size()), isolated || d.Isolated
	}
	wishes := make([]wish, 1+l.random.IntN(3))
	if len(domains) > 8 {
		wishes = wishes[:1] // the search for what does not fit grows with the power of the requests
	}
	for i := range wishes {
		wishes[i] = wish{
			cpus: int64(l.random.IntN(largest + 3)), count: 1,
			isolated: isolated && l.random.IntN(2) == 0, idle: l.random.IntN(4) == 0,
		}
		if len(domains) <= 8 && l.random.IntN(4) == 0 {
			wishes[i].count = 2
		}
		if n := len(l.rig.policy.Levels); n > 0 && !wishes[i].isolated && l.random.IntN(3) > 0 {
			wishes[i].level = l.rig.policy.Levels[l.random.IntN(n)]
		}
		if l.random.IntN(2) == 0 {
			wishes[i].cpus = int64(1 + l.random.IntN(3))
		}
		if l.random.IntN(5) == 0 {
			wishes[i] = wish{count: 1, memory: l.random.Int64N(nodeMemory/2) + 1, huge: l.random.Int64N(nodeHugepages + 2<<20)}
		}
	}
	// Without NUMA nodes no two devices are known to be on the same one.
	aligned := l.random.IntN(2) == 0
	claim := asking(fmt.Sprintf("claim-%d", l.admitted+l.refused), aligned, wishes...)
	if l.scheduler.allocate(t, claim) {
		l.prepare(t, claim.UID)
		return
	}
	l.refused++
	if len(wishes) == 1 && wishes[0].count == 1 && !aligned {
		l.wouldNotFit(t, wishes[0])
	}
}

// prepare has an allocated claim prepared and checks what it got.
func (l *life) prepare(t *testing.T, uid types.UID) {
	t.Helper()
	l.admitted++
	claim := l.scheduler.claims[uid]
	if result := l.rig.prepare(t, claim); result.Err != nil {
		t.Fatalf("the scheduler admitted what cannot be prepared: %v", result.Err)
	}
	for _, g := range l.rig.ledger.Grants() {
		if types.UID(g.UID) == uid {
			l.granted[uid] = asJSON(t, g)
			l.fulfils(t, g, claim)
		}
	}
}

// fulfils checks a new grant against what the scheduler allocated.
func (l *life) fulfils(t *testing.T, g allocator.Grant, claim *resourceapi.ResourceClaim) {
	t.Helper()
	results := claim.Status.Allocation.Devices.Results
	if len(results) != len(g.Parts) {
		t.Fatalf("claim %s has %d results and %d parts", g.UID, len(results), len(g.Parts))
	}
	for i, part := range g.Parts {
		if allocator.IsMemory(part.Domain) {
			l.bindsMemory(t, g, part, results[i])
			continue
		}
		consumed := results[i].ConsumedCapacity[CapacityCPUs]
		d, _ := l.rig.ledger.Inventory().Domain(part.Domain)
		idle := slices.ContainsFunc(claim.Spec.Devices.Config, func(c resourceapi.DeviceClaimConfiguration) bool {
			return slices.Contains(c.Requests, part.Name)
		})
		isolated := slices.ContainsFunc(claim.Spec.Devices.Requests, func(r resourceapi.DeviceRequest) bool {
			return r.Name == part.Name && r.Exactly.DeviceClassName == classIsolated
		})
		switch {
		case int64(part.CPUs.Size()) != consumed.Value():
			t.Errorf("claim %s got %s for %v CPUs", g.UID, part.CPUs, consumed.String())
		case part.Domain != results[i].Device, !part.CPUs.IsSubsetOf(d.CPUs):
			t.Errorf("claim %s got %s of %s, allocated from %s", g.UID, part.CPUs, part.Domain, results[i].Device)
		case part.CPUs.Intersects(l.rig.policy.ReservedCPUs):
			t.Errorf("claim %s got %s, of which some are reserved", g.UID, part.CPUs)
		case part.CPUs.Intersects(l.rig.machine.Isolated) != isolated, part.CPUs.IsSubsetOf(l.rig.machine.Isolated) != isolated:
			t.Errorf("claim %s got %s, and asked for isolated ones: %v", g.UID, part.CPUs, isolated)
		case !wholeCores(l.rig.machine, part.CPUs):
			t.Errorf("claim %s got %s, which splits a core", g.UID, part.CPUs)
		case !idle && !part.Idle.IsEmpty(), idle && !part.RunsOn().Equals(firstThreads(l.rig.machine, part.CPUs)):
			t.Errorf("claim %s got %s and runs on %s, with idle siblings: %v", g.UID, part.CPUs, part.RunsOn(), idle)
		}
	}
}

// bindsMemory checks a part of memory: what the scheduler says, from the node that it
// says.
func (l *life) bindsMemory(t *testing.T, g allocator.Grant, part allocator.Part, result resourceapi.DeviceRequestAllocationResult) {
	t.Helper()
	ordinary, huge := result.ConsumedCapacity[CapacityMemory], result.ConsumedCapacity[capacityHuge]
	got := map[uint64]int64{}
	for _, p := range part.Memory {
		got[p.SizeBytes] = int64(p.Bytes) //nolint:gosec // of a small machine
	}
	if got[0] != ordinary.Value() || got[2<<20] != huge.Value() {
		t.Errorf("claim %s got memory %v for %s and %s", g.UID, part.Memory, ordinary.String(), huge.String())
	}
	if part.Domain != result.Device || len(part.MemoryNodes) != 1 || part.Domain != fmt.Sprintf("memory-numa-%d", part.MemoryNodes[0]) || !part.CPUs.IsEmpty() {
		t.Errorf("claim %s got %s of nodes %v and CPUs %s, allocated from %s", g.UID, part.Domain, part.MemoryNodes, part.CPUs, result.Device)
	}
}

// left is what no claim holds of a memory domain, in pages of a size.
func (l *life) left(d *allocator.MemoryDomain, size uint64) int64 {
	var left int64
	for _, p := range d.Pages {
		if p.SizeBytes == size {
			left += int64(p.Bytes) //nolint:gosec // of a small machine
		}
	}
	for _, g := range l.rig.ledger.Grants() {
		for _, part := range g.Parts {
			for _, p := range part.Memory {
				if part.Domain == d.Name && p.SizeBytes == size {
					left -= int64(p.Bytes) //nolint:gosec // of a small machine
				}
			}
		}
	}
	return left
}

func wholeCores(m *topology.Machine, cpus topology.CPUSet) bool {
	for _, core := range m.Cores {
		if core.CPUs.Intersects(cpus) && !core.CPUs.IsSubsetOf(cpus) {
			return false
		}
	}
	return true
}

// firstThreads are the first one of each core of the CPUs.
func firstThreads(m *topology.Machine, cpus topology.CPUSet) topology.CPUSet {
	var first []int
	for _, core := range m.Cores {
		if core.CPUs.Intersects(cpus) {
			first = append(first, core.CPUs.First())
		}
	}
	return topology.NewCPUSet(first...)
}

// wouldNotFit checks a refusal against the free cores, and against the
// scheduler's book: a claim consumes also what it has of CPUs that went offline.
func (l *life) wouldNotFit(t *testing.T, w wish) {
	t.Helper()
	for _, d := range l.rig.ledger.Inventory().Memory {
		if w.isMemory() && l.left(d, 0) >= w.memory+allocator.MemoryStep && l.left(d, 2<<20) >= w.huge+2<<20 {
			t.Errorf("the scheduler refused %d bytes and %d in huge pages, and %s has more left", w.memory, w.huge, d.Name)
		}
	}
	if w.isMemory() {
		return
	}
	free, booked := l.rig.machine.Online, map[string]int{}
	for _, g := range l.rig.ledger.Grants() {
		free = free.Difference(g.CPUs())
		for _, part := range g.Parts {
			booked[part.Domain] += part.Count
		}
	}
	taken := l.rig.machine.Online.Difference(free)
	free = free.Difference(l.siblings(taken))
	for _, d := range l.rig.ledger.Inventory().Domains {
		threads := d.ThreadsPerCore
		rounded := (max(int(w.cpus), 1) + threads - 1) / threads * threads
		if d.Isolated == w.isolated && d.Level == cmp.Or(w.level, allocator.NUMALevel) && !l.excluded(d) && l.scheduler.offers(d.Name) && min(d.CPUs.IntersectionSize(free), d.CPUs.Size()-booked[d.Name]) >= rounded {
			t.Errorf("the scheduler refused %d CPUs, and %s has %s free", w.cpus, d.Name, d.CPUs.Intersection(free))
		}
	}
}

// excluded reports whether a claim holds some of the domain's units by a device of
// another level, or by one that is gone.
func (l *life) excluded(d *allocator.Domain) bool {
	for _, g := range l.rig.ledger.Grants() {
		for _, part := range g.Parts {
			if allocator.IsMemory(part.Domain) {
				continue
			}
			other, ok := l.rig.ledger.Inventory().Domain(part.Domain)
			if !ok || other.Level != d.Level && slices.ContainsFunc(other.Units, func(u allocator.Unit) bool { return slices.Contains(d.Units, u) }) {
				return true
			}
		}
	}
	return false
}

func (l *life) release(t *testing.T, uid types.UID) {
	t.Helper()
	if err := l.rig.unprepare(t, uid); err != nil {
		t.Error(err)
	}
	delete(l.scheduler.claims, uid)
	delete(l.granted, uid)
	l.scheduler.refresh(t, l.rig)
	l.released++
}

// restart starts the driver again, and has the kubelet prepare again what it
// knows: nothing changes.
func (l *life) restart(t *testing.T) {
	t.Helper()
	before := l.state(t)
	l.rig.start(t)
	for _, claim := range l.scheduler.claims {
		l.rig.mustPrepare(t, claim)
	}
	if after := l.state(t); after != before {
		t.Errorf("before the restart:\n%s\nafter it:\n%s", before, after)
	}
	l.started++
}

// state is what others see of the driver.
func (l *life) state(t *testing.T) string {
	t.Helper()
	ledger := l.rig.ledger
	return asJSON(t, []any{ledger.Grants(), ledger.Pool(), ledger.Conflicts(), l.rig.resources(ledger.Conflicts()), l.rig.disk(t)})
}

// replug takes CPUs offline, or brings all of them back.
func (l *life) replug(t *testing.T) {
	t.Helper()
	if l.random.IntN(3) == 0 {
		l.replace(t, l.complete)
		return
	}
	offline := someCPUs(l.random, l.complete)
	if l.rig.policy.ReservedCPUs.Difference(l.complete.Isolated).IsSubsetOf(offline) {
		return
	}
	spec := l.spec
	spec.Offline = offline.String()
	l.replace(t, topologytest.New(spec))
}

func (l *life) replace(t *testing.T, m *topology.Machine) {
	t.Helper()
	if err := l.rig.ledger.Replace(m); err != nil {
		t.Fatal(err)
	}
	l.rig.machine = m
	l.scheduler.refresh(t, l.rig)
	l.changed++
}

// sound checks that everybody has what he got, and nobody the same as another.
func (l *life) sound(t *testing.T) {
	t.Helper()
	grants := l.rig.ledger.Grants()
	if len(grants) != len(l.granted) {
		t.Errorf("%d grants for %d claims", len(grants), len(l.granted))
	}
	var taken topology.CPUSet
	for _, g := range grants {
		if got := asJSON(t, g); got != l.granted[types.UID(g.UID)] {
			t.Errorf("a claim got %s and has %s", l.granted[types.UID(g.UID)], got)
		}
		for _, part := range g.Parts {
			if part.CPUs.Intersects(taken) {
				t.Errorf("claim %s got %s, which another claim has too", g.UID, part.CPUs)
			}
			taken = taken.Union(part.CPUs)
		}
	}
	for _, d := range l.rig.ledger.Inventory().Memory {
		if l.left(d, 0) < 0 || l.left(d, 2<<20) < 0 {
			t.Errorf("claims hold more than all memory of %s", d.Name)
		}
	}
	m := l.rig.machine
	if want, got := m.Online.Difference(m.Isolated).Difference(taken).Difference(l.siblings(taken)), l.rig.ledger.Pool(); !got.Equals(want) {
		t.Errorf("the pool is %s, and nobody has %s", got, want)
	}
}

// end brings all CPUs back and lets all claims go. Then every device can be had
// as a whole: nothing is lost.
func (l *life) end(t *testing.T) {
	t.Helper()
	l.replace(t, l.complete)
	for _, level := range append([]allocator.Level{allocator.NUMALevel}, l.rig.policy.Levels...) {
		for _, uid := range slices.Sorted(maps.Keys(l.scheduler.claims)) {
			l.release(t, uid)
		}
		l.takeAll(t, level)
	}
}

// takeAll claims each device of the level as a whole.
func (l *life) takeAll(t *testing.T, level allocator.Level) {
	t.Helper()
	// The largest ones first: otherwise a smaller wish takes a part of one.
	domains := slices.SortedFunc(slices.Values(l.rig.ledger.Inventory().Domains), func(a, b *allocator.Domain) int {
		return b.CPUs.Size() - a.CPUs.Size()
	})
	for _, d := range domains {
		if d.Level != level || d.Isolated && level != allocator.NUMALevel || !l.scheduler.offers(d.Name) {
			continue
		}
		claim := asking("all-of-"+d.Name, false, wish{cpus: int64(d.CPUs.Size()), count: 1, isolated: d.Isolated, level: level})
		if !l.scheduler.allocate(t, claim) {
			t.Fatalf("in the end the scheduler refuses all of %s", d.Name)
		}
		l.prepare(t, claim.UID)
	}
	for _, d := range l.rig.ledger.Inventory().Memory {
		all := wish{count: 1, memory: max(l.left(d, 0), 0), huge: max(l.left(d, 2<<20), 0)}
		if level == allocator.NUMALevel && all.isMemory() && !l.scheduler.allocate(t, asking("all-of-"+d.Name, false, all)) {
			t.Errorf("in the end the scheduler refuses all of %s", d.Name)
		}
	}
	if l.scheduler.allocate(t, asking("late", false, wish{cpus: 1, count: 1, level: level})) {
		t.Error("in the end the scheduler gives more than there is")
	}
	l.sound(t)
}

func asJSON(t *testing.T, of any) string {
	t.Helper()
	data, err := json.Marshal(of)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// siblings are the CPUs beside these on their cores: nobody may have them.
func (l *life) siblings(cpus topology.CPUSet) topology.CPUSet {
	var all topology.CPUSet
	for _, c := range l.rig.machine.Cores {
		if c.CPUs.Intersects(cpus) {
			all = all.Union(c.CPUs)
		}
	}
	return all.Difference(cpus).Difference(l.rig.policy.ReservedCPUs)
}
