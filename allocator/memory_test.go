package allocator

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

const (
	mi = 1 << 20
	gi = 1 << 30
)

func TestMemoryDomains(t *testing.T) {
	spec := topologytest.Spec{
		NUMAPerSocket: 2, CoresPerL3: 2, NUMAMemory: 10 * gi, MemoryOnly: []int{4},
		Hugepages: []topology.Hugepages{{SizeBytes: 2 * mi, Total: 512}, {SizeBytes: gi, Total: 3}, {SizeBytes: 32 * mi}},
	}
	huge := []Pages{{SizeBytes: 2 * mi, Bytes: gi}, {SizeBytes: gi, Bytes: 3 * gi}}
	for _, test := range []struct {
		name    string
		reserve Reserve
		// ordinary memory with and without huge pages beside it
		beside, alone uint64
	}{
		{"nothing is reserved", Reserve{}, 6 * gi, 10 * gi},
		{"a part is reserved", Reserve{Percent: 50}, 3 * gi, 5 * gi},
		{"an amount is reserved, and what is left of a step is lost", Reserve{Bytes: 1}, 6*gi - mi, 10*gi - mi},
		{"more than there is", Reserve{Bytes: 7 * gi}, 0, 3 * gi},
		{"everything", Reserve{Percent: 100}, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			with := append([]Pages{{Bytes: test.beside}}, huge...)
			if test.beside == 0 {
				with = huge
			}
			want := []*MemoryDomain{
				{Name: "memory-numa-0", CPUNodes: []int{0}, Pages: with},
				{Name: "memory-numa-1", NUMANode: 1, CPUNodes: []int{1}, Pages: with},
			}
			if test.alone > 0 {
				want = append(want, &MemoryDomain{
					Name: "memory-numa-4", NUMANode: 4, MemoryOnly: true, CPUNodes: []int{0, 1}, Pages: []Pages{{Bytes: test.alone}},
				})
			}
			if diff := cmp.Diff(want, MemoryDomains(topologytest.New(spec), test.reserve)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestDamagedHugepageFilesGiveNoMemory(t *testing.T) {
	m := topologytest.New(topologytest.Spec{NUMAMemory: gi})
	m.NUMANodes[0].Hugepages = []topology.Hugepages{
		{SizeBytes: 2 * mi, Total: 1 << 63}, {SizeBytes: 1 << 63, Total: 2}, {Total: 3}, {SizeBytes: 2 * mi, Total: 1},
	}
	want := []Pages{{Bytes: gi - 2*mi}, {SizeBytes: 2 * mi, Bytes: 2 * mi}}
	if diff := cmp.Diff(want, MemoryDomains(m, Reserve{})[0].Pages); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	m.NUMANodes[0].MemoryBytes = nil
	if got := MemoryDomains(m, Reserve{}); len(got) > 0 {
		t.Errorf("memory of an unknown size: %v", got)
	}
}

// memoryLedger is that of a machine of two NUMA nodes with 8 GiB of ordinary memory
// and 2 GiB of huge pages each, and two CPUs.
func memoryLedger(t *testing.T, store Store, grants ...Grant) *Ledger {
	t.Helper()
	m := topologytest.New(topologytest.Spec{
		NUMAPerSocket: 2, CoresPerL3: 2, NUMAMemory: 10 * gi, Hugepages: []topology.Hugepages{{SizeBytes: 2 * mi, Total: 1024}},
	})
	l, err := NewLedger(m, Policy{ReservedCPUs: topology.NewCPUSet(0)}, store, grants)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func memoryOf(node string, pages ...Pages) Request {
	return Request{Name: "memory", Domain: "memory-numa-" + node, Memory: pages}
}

func TestMemoryIsPromisedOnce(t *testing.T) {
	l := memoryLedger(t, &memory{})
	refused := func(uid string, want string, requests ...Request) {
		t.Helper()
		var insufficient *InsufficientMemoryError
		if _, err := l.Grant(claim(uid, "pod"), requests); !errors.As(err, &insufficient) || !strings.Contains(err.Error(), want) {
			t.Errorf("claim %s: %v, want %q", uid, err, want)
		}
	}
	grant(t, l, claim("a", "pod"), []Request{memoryOf("0", Pages{Bytes: 5 * gi}, Pages{SizeBytes: 2 * mi, Bytes: gi})})
	refused("b", "domain memory-numa-0: 3221225473 bytes of ordinary memory requested, 3221225472 free", memoryOf("0", Pages{Bytes: 3*gi + 1}))
	refused("b", "1075838976 bytes of huge pages of 2097152 bytes requested, 1073741824 free", memoryOf("0", Pages{SizeBytes: 2 * mi, Bytes: gi + 2*mi}))
	refused("b", "huge pages of 1073741824 bytes requested, 0 free", memoryOf("1", Pages{SizeBytes: gi, Bytes: gi}))
	refused("b", "4294967296 free", memoryOf("1", Pages{Bytes: 4 * gi}), memoryOf("1", Pages{Bytes: 4*gi + 1}))
	grant(t, l, claim("b", "pod"), []Request{memoryOf("0", Pages{Bytes: 3 * gi}), memoryOf("0", Pages{SizeBytes: 2 * mi, Bytes: gi})})
	grant(t, l, claim("nothing", "pod"), []Request{memoryOf("0")})
	refused("c", "0 free", memoryOf("0", Pages{Bytes: 1}))
	if err := l.Release("a"); err != nil {
		t.Fatal(err)
	}
	grant(t, l, claim("c", "pod"), []Request{memoryOf("0", Pages{Bytes: 5 * gi})})
	if _, err := l.Grant(claim("c", "pod"), []Request{memoryOf("0", Pages{Bytes: 4 * gi})}); err == nil {
		t.Error("another amount under the same UID was granted")
	}
	if got := l.Pool().String(); got != "0-3" {
		t.Errorf("the pool is %s", got)
	}
}

func TestClaimsOfMemoryBindContainers(t *testing.T) {
	store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint.json")}
	l := memoryLedger(t, store)
	numa := func(n string) Request { return Request{Name: "cpus", Domain: "numa-" + n, Count: 1} }
	grant(t, l, claim("memory", "pod"), []Request{memoryOf("1", Pages{Bytes: gi})})
	grant(t, l, claim("both", "pod"), []Request{numa("1"), memoryOf("1", Pages{SizeBytes: 2 * mi, Bytes: 2 * mi})})
	grant(t, l, claim("cpus", "pod"), []Request{numa("0")})
	grants, err := store.Load()
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*Ledger{"at first": l, "after a restart": memoryLedger(t, store, grants...)} {
		for _, test := range []struct {
			name string
			refs []Ref
			want Placement
		}{
			{"memory alone leaves the container on the pool", []Ref{{Claim: "memory"}}, Placement{CPUs: set(t, "0,3"), MemoryNodes: []int{1}}},
			{"CPUs and memory", []Ref{{Claim: "both"}}, Placement{CPUs: set(t, "2"), MemoryNodes: []int{1}, Unthrottled: true}},
			{"only the CPUs of a claim with both", []Ref{{Claim: "both", Request: "cpus"}}, Placement{CPUs: set(t, "2"), Unthrottled: true}},
			{"only its memory", []Ref{{Claim: "both", Request: "memory"}}, Placement{CPUs: set(t, "0,3"), MemoryNodes: []int{1}}},
			{"CPUs of one node and memory of another", []Ref{{Claim: "cpus"}, {Claim: "memory"}}, Placement{CPUs: set(t, "1"), MemoryNodes: []int{1}, Unthrottled: true}},
		} {
			got, err := l.Admit(Container{ID: "c", Pod: "pod", PodNamespace: "default", Claims: test.refs})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, compareSets); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", name, test.name, diff)
			}
			if e, _ := l.Entry("c"); e.Orphan {
				t.Errorf("%s: %s: an orphan", name, test.name)
			}
			l.Remove("c")
		}
	}
}

func TestMemoryThatIsGoneIsAConflict(t *testing.T) {
	l := memoryLedger(t, &memory{})
	grant(t, l, claim("a", "pod"), []Request{memoryOf("1", Pages{Bytes: gi})})
	if got := l.Conflicts(); len(got) > 0 {
		t.Fatalf("before: %v", got)
	}
	if err := l.Replace(topologytest.New(topologytest.Spec{CoresPerL3: 2})); err != nil {
		t.Fatal(err)
	}
	got := l.Conflicts()
	if len(got) != 1 || got[0].Part.Domain != "memory-numa-1" || !strings.Contains(got[0].Message, "holds memory of device memory-numa-1, which is gone") {
		t.Errorf("conflicts %+v", got)
	}
}

func TestHeldByCountsWhatThePodsClaimsHold(t *testing.T) {
	l := memoryLedger(t, &memory{})
	many := Request{Name: "cpus", Domain: "numa-1", Count: 1, ManyPods: true}
	grant(t, l, claim("a", "pod"), []Request{{Name: "cpus", Domain: "numa-0", Count: 1}, memoryOf("0", Pages{Bytes: gi})})
	grant(t, l, claim("many", "pod"), []Request{many})
	grant(t, l, claim("other", "another"), cpus(1, "numa-1"))
	got := l.HeldBy(Container{Pod: "pod", PodNamespace: "default", Claims: []Ref{{Claim: "a", Request: "memory"}}})
	if diff := cmp.Diff(Held{CPUs: 1, Memory: []Pages{{Bytes: gi}}}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(Held{}, l.HeldBy(Container{Pod: "stranger", PodNamespace: "default"})); diff != "" {
		t.Errorf("a pod without claims (-want +got):\n%s", diff)
	}
}

func TestAClaimIsOnePodsUnlessItSaysOtherwise(t *testing.T) {
	one, many := cpus(1, "numa-0"), cpus(1, "numa-0")
	many[0].ManyPods = true
	mixed := append(cpus(1, "numa-0"), Request{Name: "more", Domain: "numa-0", Count: 1, ManyPods: true})
	for _, test := range []struct {
		name     string
		requests []Request
		ref      Ref
		allowed  map[string]bool
	}{
		{"one pod", one, Ref{Claim: "x"}, map[string]bool{"default/first": true, "default/second": false, "other/first": true}},
		{"many pods", many, Ref{Claim: "x"}, map[string]bool{"default/first": true, "default/second": true, "default/late": true, "other/second": false}},
		{"one request of a claim", mixed, Ref{Claim: "x", Request: "more"}, map[string]bool{"default/second": true, "other/second": false}},
		{"all requests of a claim with one for many", mixed, Ref{Claim: "x"}, map[string]bool{"default/first": true, "default/second": false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLedger(t, &memory{})
			grant(t, l, claim("x", "first", "second"), test.requests)
			for pod, want := range test.allowed {
				namespace, name, _ := strings.Cut(pod, "/")
				_, err := l.Admit(Container{ID: "c", Pod: PodUID(name), PodNamespace: namespace, Claims: []Ref{test.ref}})
				var notReserved *NotReservedError
				if want != (err == nil) || err != nil && !errors.As(err, &notReserved) {
					t.Errorf("pod %s: %v", pod, err)
				}
			}
		})
	}
}

func TestAClaimStaysWithItsPodWhileThatHasIt(t *testing.T) {
	l := newLedger(t, &memory{})
	for _, test := range []struct {
		reserved []PodUID
		want     PodUID
	}{
		{[]PodUID{"a"}, "a"},
		{[]PodUID{"b", "a"}, "a"}, // a second one came
		{[]PodUID{"b", "c"}, "b"}, // the first one is gone
	} {
		if got := grant(t, l, claim("x", test.reserved...), cpus(1, "numa-0")).Pods; len(got) != 1 || got[0] != test.want {
			t.Errorf("reserved for %v: belongs to %v, want %s", test.reserved, got, test.want)
		}
	}
}
