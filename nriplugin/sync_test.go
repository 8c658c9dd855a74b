package nriplugin

import (
	"testing"

	"github.com/containerd/nri/pkg/api"
	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/expect"
)

// restart is a new process of topolet beside a runtime that goes on: the grants
// come from the checkpoint, the containers from Synchronize.
func (n *node) restart(grants ...allocator.Grant) {
	n.t.Helper()
	n.asked()
	n.ledger = newLedger(n.t, grants...)
	n.plugin = New(n.socket(), n.ledger, n.plugin.cgroups.root, &n.books, noKernel)
	n.connect()
}

// runOffline runs a container that no plugin has seen.
func (n *node) runOffline(name, cpus string, devices ...string) *fakeContainer {
	c := n.newContainer(name, devices...)
	c.Linux.Resources.Cpu.Cpus = cpus
	n.mu.Lock()
	defer n.mu.Unlock()
	c.State = api.ContainerState_CONTAINER_RUNNING
	n.listed[c.Id] = c
	n.writeCgroup(c)
	return c
}

// claimed is a grant as a checkpoint holds it: two CPUs of numa-1 for container x.
func claimed(t testing.TB) allocator.Grant {
	t.Helper()
	before := newLedger(t)
	grant(t, before, allocator.Request{Name: "cpus", Domain: "numa-1", Count: 2}, "claim", "x")
	return before.Grants()[0]
}

func TestSynchronizeChangesNothingThatIsAsItOughtToBe(t *testing.T) {
	for _, v1 := range []bool{true, false} {
		n := newOfflineNode(t, v1)
		g := claimed(t)
		n.runOffline("x", "4-5", device("claim"))
		n.runOffline("a", "0-3,6-7")
		n.restart(g)
		if diff := cmp.Diff([]string(nil), n.asked()); diff != "" {
			t.Errorf("updates (-want +got):\n%s", diff)
		}
	}
}

func TestSynchronizeLeavesContainersWithoutACpusetAlone(t *testing.T) {
	n := newOfflineNode(t, false)
	n.runOffline("a", "")
	n.restart()
	if diff := cmp.Diff([]string(nil), n.asked()); diff != "" {
		t.Errorf("updates (-want +got):\n%s", diff)
	}
}

func TestSynchronizeRepairsWhatIsNot(t *testing.T) {
	n := newOfflineNode(t, false)
	x := n.runOffline("x", "4-7", device("claim"))
	a := n.runOffline("a", "")
	stopped := n.runOffline("stopped", "")
	n.exit(stopped)
	n.exits.Wait()
	// The runtime's configuration says one thing, the kernel another.
	b := n.runOffline("b", "0-3,6-7")
	n.write(n.cgroupDir(b)+"/cpuset.cpus.effective", "0-7")
	n.restart(claimed(t))
	if diff := cmp.Diff([]string{"a=0-3,6-7", "b=0-3,6-7", "x=4-5"}, n.asked()); diff != "" {
		t.Errorf("updates (-want +got):\n%s", diff)
	}
	n.wantCPUs(x, "4-5")
	n.wantCPUs(a, "0-3,6-7")
}

func TestSynchronizeFindsContainersThatAreCreatedAndNotStarted(t *testing.T) {
	n := newOfflineNode(t, false)
	x := n.newContainer("x", device("claim"))
	x.Linux.Resources.Cpu.Cpus = "4-5"
	n.listed["x"] = x
	n.restart(claimed(t))
	if diff := cmp.Diff([]string(nil), n.asked()); diff != "" {
		t.Errorf("updates (-want +got):\n%s", diff)
	}
	if err := n.start(x); err != nil {
		t.Error(err)
	}
}

func TestTheCPUsOfAnUnknownClaimAreWithheld(t *testing.T) {
	n := newOfflineNode(t, false)
	orphan := n.runOffline("orphan", "4-5", device("lost"))
	malformed := n.runOffline("malformed", "6", allocator.RefPrefix+".")
	a := n.runOffline("a", "0-7")
	n.restart()
	n.wantCPUs(orphan, "4-5")
	n.wantCPUs(malformed, "6")
	n.wantCPUs(a, "0-3,7")
	if got := len(n.ledger.Conflicts()); got != 2 {
		t.Errorf("%d conflicts, want 2: %v", got, n.ledger.Conflicts())
	}
	if got := n.grant("claim", "x", "numa-1", 1); got != "7" {
		t.Errorf("a new claim got CPUs %s", got)
	}
	// The orphan is gone, and its CPUs come back with it.
	n.exit(orphan)
	n.waitCPUs(a, "0-5")
}

// A container whose pod the runtime does not list belongs to nobody.
func TestAContainerWithoutAPodIsAnOrphan(t *testing.T) {
	n := newOfflineNode(t, false)
	x := n.runOffline("x", "4-5", device("claim"))
	delete(n.pods, x.pod.Id)
	n.restart(claimed(t))
	if e, _ := n.ledger.Entry("x"); !e.Orphan {
		t.Error("it is taken for the claim's")
	}
	n.wantCPUs(x, "4-5")
}

// The runtime told of the end before the plugin connected, and lists the container
// as running still.
func TestAContainerWhoseEndWasMissedDoesNotHoldItsClaim(t *testing.T) {
	n := newOfflineNode(t, false)
	n.grant("gone", "x", "numa-1", 2)
	n.grant("runs", "y", "numa-0", 1)
	stop := n.background(n.plugin.Run)
	n.waitReady()
	x := n.run("x", device("gone"))
	n.run("y", device("runs"))
	stop()
	n.removeCgroup(x)
	n.restart(n.ledger.Grants()...)

	for _, claim := range []allocator.ClaimUID{"gone", "runs"} {
		expect.Error(t, n.ledger.Release(claim), "is in use by container")
		n.plugin.ForgetStopped(claim)
	}
	if err := n.ledger.Release("gone"); err != nil {
		t.Error(err)
	}
	expect.Error(t, n.ledger.Release("runs"), "is in use by container y")
}
