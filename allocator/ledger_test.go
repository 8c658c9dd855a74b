package allocator

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// memory is a Store that can also say no.
type memory struct {
	grants []Grant
	saves  int
	fail   error
}

func (m *memory) Save(grants []Grant) error {
	if m.fail != nil {
		return m.fail
	}
	m.saves++
	m.grants = grants
	return nil
}

// newLedger makes a ledger of eight single-threaded CPUs on two NUMA nodes, with
// CPU 0 reserved.
func newLedger(t testing.TB, store Store, grants ...Grant) *Ledger {
	t.Helper()
	m := topologytest.New(topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 4})
	l, err := NewLedger(m, Policy{ReservedCPUs: topology.NewCPUSet(0)}, store, grants)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func claim(uid string, pods ...PodUID) Claim {
	return Claim{UID: ClaimUID(uid), Namespace: "default", Name: uid, Pods: pods}
}

func cpus(n int, domain string) []Request {
	return []Request{{Name: "cpus", Domain: domain, Count: n}}
}

func grant(t testing.TB, l *Ledger, c Claim, requests []Request) Grant {
	t.Helper()
	g, err := l.Grant(c, requests)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// create admits a container and lists it, as the runtime does.
func create(t testing.TB, l *Ledger, c Container) string {
	t.Helper()
	placement, err := l.Admit(c)
	if err != nil {
		t.Fatal(err)
	}
	l.Listed(c.ID)
	return placement.CPUs.String()
}

func shared(id string) Container { return Container{ID: ContainerID(id), Pod: PodUID("pod-" + id)} }

func claiming(id string, pod PodUID, claim string) Container {
	return Container{ID: ContainerID(id), Pod: pod, Claims: []Ref{{Claim: ClaimUID(claim), Request: "cpus"}}}
}

func updatesOf(l *Ledger) map[ContainerID]string {
	updates := map[ContainerID]string{}
	for _, u := range l.Updates() {
		updates[u.ID] = u.CPUs.String()
	}
	return updates
}

func expectUpdates(t *testing.T, l *Ledger, want map[ContainerID]string) {
	t.Helper()
	if diff := cmp.Diff(want, updatesOf(l)); diff != "" {
		t.Errorf("updates -want +got:\n%s", diff)
	}
}

func TestTheSharedPoolShrinksForAClaimAndGrowsAfterIt(t *testing.T) {
	l := newLedger(t, &memory{})
	if got := create(t, l, shared("a")); got != "0-7" {
		t.Fatalf("a shared container of an unclaimed machine got %s", got)
	}
	expectUpdates(t, l, map[ContainerID]string{})

	if got := grant(t, l, claim("x", "pod"), cpus(2, "numa-0")).CPUs().String(); got != "1-2" {
		t.Fatalf("granted %s", got)
	}
	if got := create(t, l, claiming("b", "pod", "x")); got != "1-2" {
		t.Errorf("the claim's container got %s", got)
	}
	expectUpdates(t, l, map[ContainerID]string{"a": "0,3-7"})
	expectUpdates(t, l, map[ContainerID]string{})
	if got := create(t, l, shared("c")); got != "0,3-7" {
		t.Errorf("a shared container beside a claim got %s", got)
	}

	l.Remove("b")
	expectUpdates(t, l, map[ContainerID]string{})
	if err := l.Release("x"); err != nil {
		t.Fatal(err)
	}
	expectUpdates(t, l, map[ContainerID]string{"a": "0-7", "c": "0-7"})
}

func TestAnUpdateThatWasNotHeededIsRepeated(t *testing.T) {
	l := newLedger(t, &memory{})
	create(t, l, shared("a"))
	grant(t, l, claim("x", "pod"), cpus(1, "numa-0"))
	expectUpdates(t, l, map[ContainerID]string{"a": "0,2-7"})
	l.Untold("a")
	expectUpdates(t, l, map[ContainerID]string{"a": "0,2-7"})
}

func TestAContainerThatTheRuntimeCannotFindYetIsUpdatedLater(t *testing.T) {
	l := newLedger(t, &memory{})
	if _, err := l.Admit(shared("a")); err != nil {
		t.Fatal(err)
	}
	grant(t, l, claim("x", "pod"), cpus(1, "numa-0"))
	expectUpdates(t, l, map[ContainerID]string{})
	l.Listed("a")
	expectUpdates(t, l, map[ContainerID]string{"a": "0,2-7"})
}

func TestGrantIsIdempotent(t *testing.T) {
	store := &memory{}
	l := newLedger(t, store)
	first := grant(t, l, claim("x", "pod"), cpus(2, "numa-1"))
	second := grant(t, l, claim("x", "pod"), cpus(2, "numa-1"))
	if diff := cmp.Diff(first, second, compareSets); diff != "" {
		t.Errorf("-first +second:\n%s", diff)
	}
	if store.saves != 1 {
		t.Errorf("stored %d times", store.saves)
	}
	third := grant(t, l, claim("x", "another"), cpus(2, "numa-1"))
	if !third.CPUs().Equals(first.CPUs()) || third.Pods[0] != "another" || store.saves != 2 {
		t.Errorf("a claim of another pod became %+v after %d saves", third, store.saves)
	}
}

func TestGrantRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		claim    Claim
		requests []Request
		want     string
	}{
		"a device that is not there": {claim("y"), cpus(1, "numa-9"),
			`request "cpus": device "numa-9" does not exist on this node: the claim was allocated from an outdated picture of the machine; ` +
				`delete the pod so that the scheduler allocates anew`},
		"more than is free": {claim("y"), cpus(3, "numa-0"),
			`request "cpus": domain numa-0: 3 CPUs requested, 2 free in whole cores`},
		"no CPU": {claim("y"), cpus(0, "numa-0"),
			`request "cpus": domain numa-0: cannot serve 0 CPUs: ask for a multiple of 1 (whole cores) between 1 and 3`},
		"another allocation of the same claim": {claim("x"), cpus(2, "numa-0"),
			`claim default/x (x) is prepared already with another allocation: delete the pods that use it first`},
		"a second request that does not fit": {claim("y"), append(cpus(2, "numa-0"), Request{Name: "more", Domain: "numa-0", Count: 1}),
			`request "more": domain numa-0: 1 CPUs requested, 0 free in whole cores`},
	} {
		t.Run(name, func(t *testing.T) {
			store := &memory{}
			l := newLedger(t, store)
			grant(t, l, claim("x"), cpus(1, "numa-0"))
			before, saves := l.Grants(), store.saves
			_, err := l.Grant(test.claim, test.requests)
			if err == nil || err.Error() != test.want {
				t.Errorf("error %v\nwant  %s", err, test.want)
			}
			if diff := cmp.Diff(before, l.Grants(), compareSets); diff != "" || store.saves != saves {
				t.Errorf("the refusal changed the ledger (%d saves):\n%s", store.saves-saves, diff)
			}
		})
	}
}

func TestAGrantThatCannotBeStoredIsUndone(t *testing.T) {
	store := &memory{}
	l := newLedger(t, store)
	grant(t, l, claim("x", "pod"), cpus(1, "numa-0"))
	full := errors.New("disk full")
	store.fail = full

	if _, err := l.Grant(claim("y"), cpus(1, "numa-0")); !errors.Is(err, full) {
		t.Errorf("new claim: %v", err)
	}
	if _, err := l.Grant(claim("x", "another"), cpus(1, "numa-0")); !errors.Is(err, full) {
		t.Errorf("known claim with another pod: %v", err)
	}
	if err := l.Release("x"); !errors.Is(err, full) {
		t.Errorf("release: %v", err)
	}
	if diff := cmp.Diff(store.grants, l.Grants(), compareSets); diff != "" {
		t.Errorf("-stored +held:\n%s", diff)
	}
	if got := l.Pool().String(); got != "0,2-7" {
		t.Errorf("pool %s", got)
	}
}

func TestReleaseWaitsForTheContainer(t *testing.T) {
	l := newLedger(t, &memory{})
	grant(t, l, claim("x", "pod"), cpus(1, "numa-0"))
	create(t, l, claiming("a", "pod", "x"))
	var inUse *InUseError
	if err := l.Release("x"); !errors.As(err, &inUse) {
		t.Errorf("released under a running container: %v", err)
	}
	l.Remove("a")
	if err := l.Release("x"); err != nil {
		t.Error(err)
	}
	if err := l.Release("x"); err != nil {
		t.Errorf("a second release: %v", err)
	}
}

func TestAdmitRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		container Container
		want      any
	}{
		"a claim that nobody prepared":        {claiming("a", "pod", "unknown"), new(*UnknownClaimError)},
		"a request that the claim lacks":      {Container{ID: "a", Pod: "pod", Claims: []Ref{{"x", "gpus"}}}, new(*UnknownClaimError)},
		"another pod's claim":                 {claiming("a", "thief", "x"), new(*NotReservedError)},
		"another pod's claim beside its own":  {Container{ID: "a", Pod: "pod", Claims: []Ref{{"x", "cpus"}, {"z", "cpus"}}}, new(*NotReservedError)},
		"a claim reserved for nobody at all":  {claiming("a", "", "z"), new(*NotReservedError)},
		"a claim named without request":       {Container{ID: "a", Pod: "thief", Claims: []Ref{{"x", ""}}}, new(*NotReservedError)},
		"a claim that was released meanwhile": {claiming("a", "pod", "released"), new(*UnknownClaimError)},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t, &memory{})
			grant(t, l, claim("x", "pod"), cpus(1, "numa-0"))
			grant(t, l, claim("z", "owner"), cpus(1, "numa-1"))
			grant(t, l, claim("released", "pod"), cpus(1, "numa-1"))
			if err := l.Release("released"); err != nil {
				t.Fatal(err)
			}
			_, err := l.Admit(test.container)
			if err == nil || !errors.As(err, test.want) {
				t.Errorf("error %v, want a %T", err, test.want)
			}
			if got := l.Entries(); len(got) != 0 {
				t.Errorf("the refused container was entered: %+v", got)
			}
		})
	}
}

func TestAContainerGetsTheRequestsItNames(t *testing.T) {
	l := newLedger(t, &memory{})
	grant(t, l, claim("x", "pod"), []Request{
		{Name: "fast", Domain: "numa-0", Count: 1},
		{Name: "spread", Domain: "numa-0", Count: 1},
		{Name: "spread", Domain: "numa-1", Count: 2},
	})
	for request, want := range map[string]string{"fast": "1", "spread": "2,4-5", "": "1-2,4-5"} {
		c := Container{ID: ContainerID("c-" + request), Pod: "pod", Claims: []Ref{{"x", request}}}
		if got := create(t, l, c); got != want {
			t.Errorf("request %q: CPUs %s, want %s", request, got, want)
		}
	}
}

func TestAClaimThatIncludesTheSharedPoolFollowsIt(t *testing.T) {
	l := newLedger(t, &memory{})
	grant(t, l, claim("x", "pod"), []Request{{Name: "cpus", Domain: "numa-0", Count: 1, SharedPool: true}})
	if got := create(t, l, claiming("a", "pod", "x")); got != "0-7" {
		t.Errorf("got %s", got)
	}
	grant(t, l, claim("y"), cpus(4, "numa-1"))
	expectUpdates(t, l, map[ContainerID]string{"a": "0-3"})
	e, _ := l.Entry("a")
	if e.Granted.String() != "1" {
		t.Errorf("granted %s", e.Granted)
	}
}

func TestIdleSiblingsAreNobodysToRunOn(t *testing.T) {
	m := topologytest.New(topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 4, Threads: 2})
	store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint.json")}
	l, err := NewLedger(m, Policy{ReservedCPUs: DefaultReserved(m)}, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	create(t, l, shared("a"))
	grant(t, l, claim("x", "pod"), []Request{{Name: "cpus", Domain: "numa-1", Count: 4, IdleSiblings: true}})
	grants, err := store.Load()
	if err != nil {
		t.Fatal(err)
	}
	// Also after a restart.
	again, err := NewLedger(m, Policy{ReservedCPUs: DefaultReserved(m)}, store, grants)
	if err != nil {
		t.Fatal(err)
	}
	create(t, again, shared("a"))
	for _, l := range []*Ledger{l, again} {
		if got := create(t, l, claiming("b", "pod", "x")); got != "4-5" {
			t.Errorf("the container runs on %s, want the first threads 4-5 of its cores 4,12 and 5,13", got)
		}
		if got := l.Pool().String(); got != "0-3,6-11,14-15" {
			t.Errorf("the pool is %s", got)
		}
		if e, _ := l.Entry("b"); e.Granted.String() != "4-5,12-13" {
			t.Errorf("granted %s", e.Granted)
		}
	}
}

func TestPlacement(t *testing.T) {
	l := newLedger(t, &memory{})
	grant(t, l, claim("plain", "pod"), cpus(1, "numa-0"))
	grant(t, l, claim("local", "pod"), []Request{{Name: "cpus", Domain: "numa-1", Count: 1, LocalMemory: true}})
	grant(t, l, claim("mixed", "pod"), []Request{{Name: "cpus", Domain: "numa-1", Count: 1, SharedPool: true}})
	for _, test := range []struct {
		name   string
		claims []string
		want   Placement
	}{
		{"without a claim", nil, Placement{CPUs: set(t, "0,2-3,6-7")}},
		{"a claim", []string{"plain"}, Placement{CPUs: set(t, "1"), Unthrottled: true}},
		{"a claim with local memory", []string{"local"}, Placement{CPUs: set(t, "4"), MemoryNodes: []int{1}, Unthrottled: true}},
		{"a claim with local memory beside one without", []string{"local", "plain"}, Placement{CPUs: set(t, "1,4"), MemoryNodes: []int{0, 1}, Unthrottled: true}},
		{"a claim with the shared pool", []string{"mixed", "plain"}, Placement{CPUs: set(t, "0-3,5-7")}},
	} {
		c := shared(test.name)
		c.Pod = "pod"
		for _, name := range test.claims {
			c.Claims = append(c.Claims, Ref{Claim: ClaimUID(name)})
		}
		got, err := l.Admit(c)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, got, compareSets); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestSyncLeavesAloneWhatIsInPlace(t *testing.T) {
	store := &memory{}
	before := newLedger(t, store)
	grant(t, before, claim("x", "pod"), cpus(2, "numa-0"))

	// The same machine after a restart of the process.
	l := newLedger(t, store, store.grants...)
	if diff := cmp.Diff(before.Grants(), l.Grants(), compareSets); diff != "" {
		t.Errorf("restored -before +after:\n%s", diff)
	}
	exclusive, plain := claiming("a", "pod", "x"), shared("b")
	exclusive.Observed, plain.Observed = set(t, "1-2"), set(t, "0,3-7")
	l.Sync([]Container{exclusive, plain})
	expectUpdates(t, l, map[ContainerID]string{})

	// And what drifted while nobody looked comes back.
	plain.Observed = topology.CPUSet{}
	exclusive.Observed = set(t, "1-3")
	l.Sync([]Container{exclusive, plain})
	expectUpdates(t, l, map[ContainerID]string{"a": "1-2", "b": "0,3-7"})
	if got := grant(t, l, claim("y"), cpus(1, "numa-0")).CPUs().String(); got != "3" {
		t.Errorf("a further claim got %s", got)
	}
}

func TestAContainerWhoseClaimIsUnknownKeepsItsCPUs(t *testing.T) {
	l := newLedger(t, &memory{})
	orphan, unpinned := claiming("a", "pod", "lost"), claiming("b", "pod", "lost")
	orphan.Observed = set(t, "1-2")
	l.Sync([]Container{orphan, unpinned})
	expectUpdates(t, l, map[ContainerID]string{"b": "0,3-7"})
	if got := grant(t, l, claim("x"), cpus(1, "numa-0")).CPUs().String(); got != "3" {
		t.Errorf("a new claim got %s, of which 1-2 are in use", got)
	}
	if e, _ := l.Entry("a"); !e.Orphan || e.Desired.String() != "1-2" {
		t.Errorf("orphan became %+v", e)
	}
	if got := l.Conflicts(); len(got) != 2 {
		t.Errorf("conflicts: %v", got)
	}
	l.Remove("a")
	l.Remove("b")
	if got := l.Pool().String(); got != "0-2,4-7" {
		t.Errorf("pool without the orphans: %s", got)
	}
}

func TestThePoolIsNeverEmpty(t *testing.T) {
	store := &memory{}
	l := newLedger(t, store)
	grant(t, l, claim("x"), cpus(3, "numa-0"))
	grant(t, l, claim("y"), cpus(4, "numa-1"))
	if got := l.Pool().String(); got != "0" {
		t.Errorf("pool of a fully claimed machine: %s", got)
	}
	// The administrator reserves CPU 1, which x holds, instead of CPU 0.
	m := topologytest.New(topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 4, Offline: "0"})
	l, err := NewLedger(m, Policy{ReservedCPUs: topology.NewCPUSet(1)}, store, store.grants)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Pool().String(); got != "1" {
		t.Errorf("pool: %s", got)
	}
	if got := l.Conflicts(); len(got) != 1 || got[0].Part.Domain != "numa-0" {
		t.Errorf("conflicts: %+v", got)
	}
}

func TestALedgerNeedsACPUForEveryoneElse(t *testing.T) {
	m := topologytest.New(topologytest.Spec{CoresPerL3: 4, Isolated: "3"})
	for _, reserved := range []string{"", "3", "7"} {
		if _, err := NewLedger(m, Policy{ReservedCPUs: set(t, reserved)}, &memory{}, nil); err == nil {
			t.Errorf("reserved %q was accepted", reserved)
		}
	}
}

func TestRefText(t *testing.T) {
	for text, want := range map[string]Ref{
		"topolet.dev/claim=123":      {"123", ""},
		"topolet.dev/claim=123.cpus": {"123", "cpus"},
	} {
		ref, ok, err := ParseRef(text)
		if err != nil || !ok || ref != want || ref.String() != text {
			t.Errorf("%s: %+v %v %v", text, ref, ok, err)
		}
	}
	for _, text := range []string{"topolet.dev/claim=", "topolet.dev/claim=1.", "topolet.dev/claim=1.a.b", "topolet.dev/claim=.a"} {
		if ref, ok, err := ParseRef(text); err == nil || ok {
			t.Errorf("%s was accepted as %+v", text, ref)
		}
	}
	if _, ok, err := ParseRef("vendor.com/gpu=0"); ok || err != nil {
		t.Errorf("another vendor's device: %v %v", ok, err)
	}
}

var compareSets = cmp.Comparer(func(a, b topology.CPUSet) bool { return a.Equals(b) })

// during is a Store that does something while it saves.
type during struct{ do func() }

func (d *during) Save([]Grant) error {
	if d.do != nil {
		d.do()
	}
	return nil
}

func TestNoContainerComesToAClaimWhoseReleaseIsBeingStored(t *testing.T) {
	store := &during{}
	l := newLedger(t, store)
	grant(t, l, claim("x", "p"), cpus(2, "numa-0"))
	errDisk := errors.New("no space left on device")
	var late error
	store.do = func() { _, late = l.Admit(claiming("late", "p", "x")) }
	if err := l.Release("x"); err != nil {
		t.Fatal(err)
	}
	if unknown := (*UnknownClaimError)(nil); !errors.As(late, &unknown) {
		t.Errorf("a container that came while the release was stored: %v", late)
	}
	// A release that fails leaves the claim as it was.
	failing := &memory{}
	l = newLedger(t, failing)
	grant(t, l, claim("x", "p"), cpus(2, "numa-0"))
	failing.fail = errDisk
	if err := l.Release("x"); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	if _, err := l.Admit(claiming("after", "p", "x")); err != nil {
		t.Errorf("a container that came after the release had failed: %v", err)
	}
}

// The grant was lost with the checkpoint, and the kubelet prepares the claim again.
func TestAClaimThatComesAgainFindsItsContainerWhereItWas(t *testing.T) {
	for name, test := range map[string]struct {
		observed, other string // the other's claim is unknown as well
		owner           string
		want            string
	}{
		"alone there":                   {"2-3", "", "pod", "2-3"},
		"beside somebody else":          {"2-3", "3", "pod", "refused"},
		"on other CPUs than a claim's":  {"2", "", "pod", "1,3"},
		"outside of the device":         {"3-4", "", "pod", "1-2"},
		"of a pod that is not for it":   {"2-3", "", "stranger", "refused"},
		"on reserved CPUs, as a mishap": {"0-1", "", "pod", "2-3"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(t, &memory{})
			own, other := claiming("a", PodUID(test.owner), "x"), claiming("b", "pod", "lost")
			own.Observed, other.Observed = set(t, test.observed), set(t, test.other)
			l.Sync([]Container{own, other})
			g, err := l.Grant(claim("x", "pod"), cpus(2, "numa-0"))
			got := g.CPUs().String()
			if err != nil {
				got = "refused"
			}
			if got != test.want {
				t.Errorf("got %s, want %s: %v", got, test.want, err)
			}
		})
	}
}
