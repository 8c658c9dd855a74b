package allocator

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// replace changes which CPUs of newLedger's machine are offline.
func replace(t *testing.T, l *Ledger, offline string) {
	t.Helper()
	if err := l.Replace(topologytest.New(topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 4, Offline: offline})); err != nil {
		t.Fatal(err)
	}
}

func TestAnOfflineCPUConcernsItsClaimAndNobodyElse(t *testing.T) {
	l := newLedger(t, &memory{})
	create(t, l, shared("a"))
	grant(t, l, claim("x", "pod"), cpus(2, "numa-0"))
	create(t, l, claiming("b", "pod", "x"))
	grant(t, l, claim("y", "neighbour"), cpus(1, "numa-0"))
	create(t, l, claiming("c", "neighbour", "y"))
	l.Updates()

	replace(t, l, "2")
	expectUpdates(t, l, map[ContainerID]string{"b": "1"})
	conflicts := l.Conflicts()
	if len(conflicts) != 1 || conflicts[0].Claim.UID != "x" || conflicts[0].Part.Domain != "numa-0" || conflicts[0].Offline.String() != "2" {
		t.Errorf("conflicts: %+v", conflicts)
	}
	var offline *OfflineError
	if _, err := l.Admit(claiming("d", "pod", "x")); !errors.As(err, &offline) || offline.CPUs.String() != "2" {
		t.Errorf("a container of the claim that lost CPU 2: %v", err)
	}
	if got := create(t, l, claiming("e", "neighbour", "y")); got != "3" {
		t.Errorf("a container of the neighbour got %s", got)
	}

	replace(t, l, "")
	expectUpdates(t, l, map[ContainerID]string{"b": "1-2"})
	if got := l.Conflicts(); len(got) != 0 {
		t.Errorf("conflicts with all CPUs online: %+v", got)
	}
}

func TestAClaimWithoutAnyOnlineCPURunsOnThePool(t *testing.T) {
	l := newLedger(t, &memory{})
	grant(t, l, claim("x", "pod"), cpus(2, "numa-0"))
	create(t, l, claiming("a", "pod", "x"))
	grant(t, l, claim("y", "neighbour"), cpus(1, "numa-0"))
	replace(t, l, "1-2")
	expectUpdates(t, l, map[ContainerID]string{"a": "0,4-7"})
}

func TestAFreeCPUThatGoesOfflineLeavesThePoolAndItsDomain(t *testing.T) {
	l := newLedger(t, &memory{})
	create(t, l, shared("a"))
	replace(t, l, "7")
	expectUpdates(t, l, map[ContainerID]string{"a": "0-6"})
	var count *CountError
	if _, err := l.Grant(claim("x"), cpus(4, "numa-1")); !errors.As(err, &count) || count.Max != 3 {
		t.Errorf("four CPUs of three: %v", err)
	}
	replace(t, l, "4-7")
	var unknown *UnknownDomainError
	if _, err := l.Grant(claim("x"), cpus(1, "numa-1")); !errors.As(err, &unknown) {
		t.Errorf("a CPU of a node without any: %v", err)
	}
	replace(t, l, "")
	grant(t, l, claim("x"), cpus(4, "numa-1"))
	expectUpdates(t, l, map[ContainerID]string{"a": "0-3"})
}

func TestAMachineWithoutReservedCPUsIsNotTakenOver(t *testing.T) {
	l := newLedger(t, &memory{})
	before := l.Inventory()
	m := topologytest.New(topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 4, Offline: "0"})
	if err := l.Replace(m); err == nil {
		t.Error("it was")
	}
	if diff := cmp.Diff(before.shareable.String(), l.Inventory().shareable.String()); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
}

func TestAThreadThatComesOnlineOnAClaimedCoreIsNobodys(t *testing.T) {
	spec := topologytest.Spec{CoresPerL3: 4, Threads: 2}
	on := topologytest.New(spec)
	spec.Offline = "4-7" // one thread of each core
	l, err := NewLedger(topologytest.New(spec), Policy{ReservedCPUs: topology.NewCPUSet(0, 4)}, &memory{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	create(t, l, shared("a"))
	grant(t, l, claim("x", "pod"), cpus(1, "numa-0"))
	if err := l.Replace(on); err != nil {
		t.Fatal(err)
	}
	if got := l.Pool().String(); got != "0,2-4,6-7" {
		t.Errorf("the claim holds CPU 1, the pool is %s", got)
	}
	if got := l.Conflicts(); len(got) != 1 || got[0].Siblings.String() != "5" {
		t.Errorf("conflicts: %+v", got)
	}
	if got := grant(t, l, claim("y"), cpus(4, "numa-0")).CPUs().String(); got != "2-3,6-7" {
		t.Errorf("the next claim got %s", got)
	}
	if err := l.Release("x"); err != nil {
		t.Fatal(err)
	}
	if got := l.Pool().String(); got != "0-1,4-5" {
		t.Errorf("after the claim the pool is %s", got)
	}
}

func TestACPUThatIsReservedAndIsolatedIsNotGivenAway(t *testing.T) {
	m := topologytest.New(topologytest.Spec{CoresPerL3: 3, Isolated: "1"})
	l, err := NewLedger(m, Policy{ReservedCPUs: topology.NewCPUSet(0, 1)}, &memory{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range l.Inventory().Domains {
		if d.CPUs.Contains(1) {
			t.Errorf("%s offers it", d.Name)
		}
	}
}
