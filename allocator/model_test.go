package allocator

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

var walkSteps = flag.Int("steps", 10_000, "how many steps the random walk over the ledger has")

// A random walk over everything that can happen to the ledger, in any order, twice and
// not at all, with crashes between any two effects. What must never be is looked for
// after each step.
func TestWhatMustNeverBe(t *testing.T) {
	for name, kernelKeeps := range map[string]bool{"the runtime keeps others off": false, "the kernel keeps others off": true} {
		t.Run(name, func(t *testing.T) { newWalk(t, 1, kernelKeeps).all() })
	}
}

func (w *walk) all() {
	w.t.Helper()
	t := w.t
	kinds := []struct {
		name   string
		weight int
		step   func()
	}{
		{"grant", 20, w.grant},
		{"grant again", 5, w.grantAgain},
		{"create a claim's container", 15, w.createClaimed},
		{"create a shared container", 10, w.createShared},
		{"list", 10, func() { w.ledger.Listed(w.anyContainer()) }},
		{"start", 10, w.letRun},
		{"a partition breaks", 6, w.degrade},
		{"remove", 15, w.remove},
		{"release", 12, w.release},
		{"update", 20, w.update},
		{"ignore an update", 3, w.ignoreUpdate},
		{"crash", 3, w.crash},
		{"CPUs go and come", 1, w.replug},
		{"the disk is full", 2, func() { w.store.fail = errors.New("no space left on device") }},
		{"the disk has room", 4, func() { w.store.fail = nil }},
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	for i := range *walkSteps {
		n := w.random.IntN(total)
		at := 0
		for ; n >= kinds[at].weight; at++ {
			n -= kinds[at].weight
		}
		kinds[at].step()
		w.count[kinds[at].name]++
		w.check()
		if t.Failed() {
			t.Fatalf("after step %d, %s", i, kinds[at].name)
		}
	}
	t.Log(w.count)
	for _, k := range kinds {
		if w.count[k.name] == 0 {
			t.Errorf("no step of the walk was: %s", k.name)
		}
	}
	outcomes := []string{"granted", "refused", "not stored", "admitted", "not admitted", "released", "in use"}
	if w.policy.KernelKeeps {
		outcomes = append(outcomes, "partitions", "degraded", "lent")
	}
	for _, outcome := range outcomes {
		if w.count[outcome] < *walkSteps/1000 {
			t.Errorf("only %d times: %s", w.count[outcome], outcome)
		}
	}
}

// walk is a ledger beside what it ought to know, and a runtime that carries out what
// the ledger wants.
type walk struct {
	t      *testing.T
	random *rand.Rand
	spec   topologytest.Spec
	policy Policy
	store  *memory
	ledger *Ledger

	asked   map[ClaimUID][]Request // of claims that have a grant
	grants  map[ClaimUID]Grant
	running map[ContainerID]*actual
	next    int
	count   map[string]int
}

// actual is a container as the runtime has it.
type actual struct {
	Container
	cpus topology.CPUSet
}

func newWalk(t *testing.T, seed uint64, kernelKeeps bool) *walk {
	w := &walk{
		t: t, random: rand.New(rand.NewPCG(seed, 2)), //nolint:gosec // a seed makes it repeatable
		spec:   topologytest.Spec{NUMAPerSocket: 2, L3PerNUMA: 2, CoresPerL3: 3, Threads: 2, NUMAMemory: 1 << 30},
		store:  &memory{},
		asked:  map[ClaimUID][]Request{},
		grants: map[ClaimUID]Grant{}, running: map[ContainerID]*actual{}, count: map[string]int{},
	}
	m := topologytest.New(w.spec)
	w.policy = Policy{ReservedCPUs: DefaultReserved(m), KernelKeeps: kernelKeeps}
	w.start(m)
	return w
}

func (w *walk) start(m *topology.Machine) {
	w.t.Helper()
	l, err := NewLedger(m, w.policy, w.store, w.store.grants)
	if err != nil {
		w.t.Fatal(err)
	}
	w.ledger = l
}

func (w *walk) claim() Claim {
	n := w.random.IntN(10)
	return claim(fmt.Sprint("claim-", n), PodUID(fmt.Sprint("pod-", n)))
}

func (w *walk) requests() []Request {
	requests := make([]Request, 1+w.random.IntN(2))
	for i := range requests {
		node := w.random.IntN(2)
		requests[i] = Request{
			Name: fmt.Sprint("r", i), Domain: fmt.Sprint("numa-", node), Count: 2 * (1 + w.random.IntN(2)),
			SharedPool: w.random.IntN(5) == 0, IdleSiblings: w.random.IntN(5) == 0, LocalMemory: w.random.IntN(5) == 0,
		}
		if w.random.IntN(4) == 0 {
			requests[i] = Request{Name: requests[i].Name, Domain: fmt.Sprint("memory-numa-", node), Memory: []Pages{{Bytes: uint64(w.random.IntN(1 << 29))}}} //nolint:gosec // positive
		}
	}
	return requests
}

func (w *walk) grant() {
	c := w.claim()
	requests, known := w.asked[c.UID]
	if !known {
		requests = w.requests()
	}
	g, err := w.ledger.Grant(c, requests)
	switch {
	case known && (err != nil || !equal(g, w.grants[c.UID])):
		w.t.Errorf("claim %s had %v and now has %v, %v", c.UID, w.grants[c.UID], g, err)
	case err == nil:
		w.asked[c.UID], w.grants[c.UID] = requests, g
		w.count["granted"]++
	case w.store.fail != nil && errors.Is(err, w.store.fail):
		w.count["not stored"]++
	default:
		w.count["refused"]++
	}
}

// grantAgain asks for something else under the same UID.
func (w *walk) grantAgain() {
	c := w.claim()
	_, err := w.ledger.Grant(c, append(w.requests(), Request{Name: "more", Domain: "numa-0", Count: 100}))
	if err == nil {
		w.t.Error("the ledger grants more than there is")
	}
}

func (w *walk) release() {
	c := w.claim()
	used := slices.ContainsFunc(w.ledger.Entries(), func(e Entry) bool {
		return slices.ContainsFunc(e.Claims, func(r Ref) bool { return r.Claim == c.UID })
	})
	_, known := w.grants[c.UID]
	err := w.ledger.Release(c.UID)
	var inUse *InUseError
	switch {
	case errors.As(err, &inUse):
		if !used || !known {
			w.t.Errorf("claim %s is not in use: %v", c.UID, err)
		}
		w.count["in use"]++
	case err != nil && w.store.fail == nil:
		w.t.Error(err)
	case err == nil:
		if known && used {
			w.t.Errorf("claim %s is released while it is in use", c.UID)
		}
		delete(w.asked, c.UID)
		delete(w.grants, c.UID)
		w.count["released"]++
	}
}

func (w *walk) createClaimed() {
	c := w.claim()
	ref := Ref{Claim: c.UID}
	if w.random.IntN(3) == 0 {
		ref.Request = "r0"
	}
	pod := c.Pods[0]
	if w.random.IntN(6) == 0 {
		pod = "stranger"
	}
	w.create(Container{Pod: pod, PodNamespace: "default", Claims: []Ref{ref}})
}

// createShared makes a container without a claim, now and then in the pod of one.
func (w *walk) createShared() {
	pod := PodUID("shared")
	if w.random.IntN(3) == 0 {
		pod = w.claim().Pods[0]
	}
	w.create(Container{Pod: pod, PodNamespace: "default"})
}

func (w *walk) create(c Container) {
	if len(w.running) > 30 {
		return
	}
	w.next++
	c.ID = ContainerID(fmt.Sprint("c", w.next))
	placement, err := w.ledger.Admit(c)
	if err != nil {
		if g, ok := w.grants[first(c).Claim]; ok && c.Pod != "stranger" && g.has(first(c).Request) && g.CPUsOf(first(c).Request).IsSubsetOf(w.ledger.Inventory().Machine.Online) {
			w.t.Errorf("a container of claim %s is refused: %v", g.UID, err)
		}
		w.count["not admitted"]++
		return
	}
	if _, ok := w.grants[first(c).Claim]; len(c.Claims) > 0 && (!ok || c.Pod == "stranger") {
		w.t.Errorf("a container of pod %s is admitted to claim %s", c.Pod, first(c).Claim)
	}
	w.yield()
	w.running[c.ID] = &actual{c, placement.CPUs}
	w.count["admitted"]++
}

// letRun starts a container, in a partition if it can have one, and tells it again if it
// is not where it ought to be.
func (w *walk) letRun() {
	id := w.anyContainer()
	w.partition(func(h Holder) bool { return h.ID == id })
	w.ledger.Started(id)
	w.readBack(id)
}

func (w *walk) readBack(ids ...ContainerID) {
	for _, id := range ids {
		e, _ := w.ledger.Entry(id)
		if c, ok := w.running[id]; ok && e.Started && !e.Fits(c.cpus) {
			w.ledger.Untold(id)
		}
	}
}

func (w *walk) partition(which func(Holder) bool) {
	for _, h := range w.ledger.Holders() {
		if which(h) && h.Obstacle == "" && w.policy.KernelKeeps {
			w.ledger.Enforced(h.ID, Enforcement{Tier: KernelTier})
			w.count["partitions"]++
		}
	}
}

// yield ends partitions that a newcomer makes impossible, after everybody else was moved
// off their CPUs.
func (w *walk) yield() {
	for _, h := range w.ledger.Holders() {
		if h.Enforcement.Tier == KernelTier && h.Obstacle != "" {
			w.confine()
			w.ledger.Enforced(h.ID, Enforcement{Tier: RuntimeTier})
		}
	}
}

func (w *walk) confine() {
	for _, e := range w.ledger.Entries() {
		if c, ok := w.running[e.ID]; ok {
			c.cpus = e.Desired
			w.ledger.Untold(e.ID)
		}
	}
}

// degrade is a partition that breaks and cannot be mended, which is noticed.
func (w *walk) degrade() {
	holders := slices.DeleteFunc(w.ledger.Holders(), func(h Holder) bool { return h.Enforcement.Tier != KernelTier || !h.Started })
	if len(holders) == 0 {
		return
	}
	w.ledger.Enforced(holders[w.random.IntN(len(holders))].ID, Enforcement{Tier: DegradedTier})
	w.readBack(slices.Collect(maps.Keys(w.running))...)
	w.count["degraded"]++
}

func first(c Container) Ref {
	if len(c.Claims) == 0 {
		return Ref{}
	}
	return c.Claims[0]
}

// anyContainer is one that runs, or one that never was.
func (w *walk) anyContainer() ContainerID {
	ids := append(slices.Sorted(maps.Keys(w.running)), "unknown")
	return ids[w.random.IntN(len(ids))]
}

func (w *walk) remove() {
	id := w.anyContainer()
	w.ledger.Remove(id)
	delete(w.running, id)
}

func (w *walk) update() {
	for _, u := range w.ledger.Updates() {
		if c, ok := w.running[u.ID]; ok {
			c.cpus = u.CPUs
		}
	}
	if again := w.ledger.Updates(); len(again) > 0 {
		w.t.Errorf("what was carried out is asked for again: %v", again)
	}
	w.checkWhereTheyRun()
}

// checkWhereTheyRun looks at what the kernel lets each container run on, when all updates
// were carried out.
func (w *walk) checkWhereTheyRun() {
	entries := w.ledger.Entries()
	for _, e := range entries {
		c, ok := w.running[e.ID]
		if !ok || !e.Started || e.Orphan {
			continue
		}
		if t, _ := w.ledger.containers.get(e.ID); !t.listed {
			continue
		}
		effective := c.cpus
		for _, holder := range entries {
			if holder.ID == e.ID || holder.Enforcement.Tier != KernelTier {
				continue
			}
			if holder.Pod == e.Pod && c.cpus.Intersects(holder.Desired) {
				w.t.Errorf("container %s has %s, which breaks the partition %s of %s in the same pod", e.ID, c.cpus, holder.Desired, holder.ID)
			}
			effective = effective.Difference(holder.Desired)
		}
		for _, holder := range entries {
			if holder.Started && !holder.Orphan && !holder.Granted.Intersects(e.Granted) && effective.Intersects(holder.Granted) {
				w.t.Errorf("container %s runs on %s beside %s, which has %s (%v)", e.ID, effective, holder.ID, holder.Granted, holder.Enforcement)
			}
		}
		if !e.Fits(effective) {
			w.t.Errorf("container %s runs on %s instead of %s", e.ID, effective, e.Desired)
		}
		if e.Pod == "shared" && !e.Bounds.Equals(e.Desired) {
			w.count["lent"]++
		}
	}
}

// ignoreUpdate is a runtime that does not heed, and a look that finds out.
func (w *walk) ignoreUpdate() {
	for _, u := range w.ledger.Updates() {
		w.ledger.Untold(u.ID)
	}
}

// crash is the end of the process, and the beginning of the next one.
func (w *walk) crash() {
	settled, partitions := map[ContainerID]topology.CPUSet{}, map[ContainerID]topology.CPUSet{}
	for _, e := range w.ledger.Entries() {
		if c := w.running[e.ID]; c != nil && e.Fits(c.cpus) {
			settled[e.ID] = e.Desired
		}
		if e.Enforcement.Tier == KernelTier {
			partitions[e.ID] = e.Desired
		}
	}
	before := w.ledger.Grants()
	w.start(w.ledger.Inventory().Machine)
	if diff := gocmp.Diff(before, w.ledger.Grants(), compareSets); diff != "" {
		w.t.Errorf("grants -before +after the crash:\n%s", diff)
	}
	var listed []Container
	for _, c := range w.running {
		observed := c.Container
		observed.Observed = c.cpus
		for id, cpus := range partitions {
			if id != c.ID {
				observed.Observed = observed.Observed.Difference(cpus)
			}
		}
		listed = append(listed, observed)
	}
	slices.SortFunc(listed, func(a, b Container) int { return cmp.Compare(a.ID, b.ID) })
	w.ledger.Sync(listed)
	w.partition(func(h Holder) bool { _, had := partitions[h.ID]; return had })
	for _, u := range w.ledger.Updates() {
		if cpus, ok := settled[u.ID]; ok {
			w.t.Errorf("container %s ran on %s, as it ought to, and is moved to %s by a restart", u.ID, cpus, u.CPUs)
		}
		w.running[u.ID].cpus = u.CPUs
	}
}

func (w *walk) replug() {
	spec := w.spec
	if w.random.IntN(2) == 0 {
		spec.Offline = fmt.Sprint(1 + w.random.IntN(11))
	}
	if err := w.ledger.Replace(topologytest.New(spec)); err != nil {
		w.t.Error(err)
	}
}

// equal is quicker than a comparison that can say what differs.
func equal(a, b Grant) bool {
	return a.UID == b.UID && slices.Equal(a.Pods, b.Pods) && slices.EqualFunc(a.Parts, b.Parts, func(p, q Part) bool {
		return reflect.DeepEqual(p.Request, q.Request) && p.CPUs.Equals(q.CPUs) && p.Idle.Equals(q.Idle) && slices.Equal(p.MemoryNodes, q.MemoryNodes)
	})
}

// check looks for what must never be.
func (w *walk) check() {
	grants, pool := w.ledger.Grants(), w.ledger.Pool()
	if len(grants) != len(w.grants) {
		w.t.Errorf("%d grants, want %d", len(grants), len(w.grants))
	}
	if !slices.EqualFunc(grants, w.store.grants, equal) {
		w.t.Errorf("the ledger has the grants %v, stored are %v", grants, w.store.grants)
	}
	var taken topology.CPUSet
	for _, g := range grants {
		if !equal(g, w.grants[g.UID]) {
			w.t.Errorf("claim %s was given %v and has %v", g.UID, w.grants[g.UID], g)
		}
		for _, p := range g.Parts {
			if p.CPUs.Intersects(taken) {
				w.t.Errorf("CPUs %s are in two claims", p.CPUs.Intersection(taken))
			}
			taken = taken.Union(p.CPUs)
		}
	}
	if pool.IsEmpty() || pool.Intersects(taken) {
		w.t.Errorf("the pool is %s, claims have %s", pool, taken)
	}
	for _, e := range w.ledger.Entries() {
		own := topology.CPUSet{}
		for _, r := range e.Claims {
			own = own.Union(w.grants[r.Claim].CPUsOf(r.Request))
		}
		if others := taken.Difference(own); e.Desired.IsEmpty() || e.Desired.Intersects(others) {
			w.t.Errorf("container %s of claims %v is to run on %s, others have %s", e.ID, e.Claims, e.Desired, others)
		}
	}
	for _, d := range w.ledger.Inventory().Memory {
		held := uint64(0)
		for _, g := range grants {
			for _, p := range g.Parts {
				if p.Domain == d.Name {
					held += bytesOf(p.Memory, 0)
				}
			}
		}
		if held > bytesOf(d.Pages, 0) {
			w.t.Errorf("claims hold %d bytes of %s, which has %d", held, d.Name, bytesOf(d.Pages, 0))
		}
	}
}

// What the walk stores survives the disk.
func TestTheGrantsOfAWalkSurviveTheDisk(t *testing.T) {
	w := newWalk(t, 2, false)
	file := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint.json")}
	for range 300 {
		w.grant()
		w.release()
		if err := file.Save(w.ledger.Grants()); err != nil {
			t.Fatal(err)
		}
		loaded, err := file.Load()
		if err != nil || !slices.EqualFunc(loaded, w.ledger.Grants(), equal) {
			t.Fatalf("saved %v, loaded %v, %v", w.ledger.Grants(), loaded, err)
		}
	}
}
