package nriplugin

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/expect"
)

func wantAsked(t *testing.T, n *node, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, n.asked()); diff != "" {
		t.Errorf("the runtime was asked for -want +got:\n%s", diff)
	}
}

// giveBack waits for the runtime to say that the claim's containers have ended.
func (n *node) giveBack(claim allocator.ClaimUID) {
	n.t.Helper()
	expect.State(n.t, "the release of "+string(claim), func() string { return fmt.Sprint(n.ledger.Release(claim)) }, "<nil>")
}

// Where the kernel keeps everyone off a claim's CPUs, claims come and go without the
// runtime's being told about anybody else.
func TestWhatTheKernelSeesToTheRuntimeIsNotTold(t *testing.T) {
	n, k := newKernelNode(t, false)
	n.run("before")
	n.grant("claim", "x", "numa-1", 2)
	x := n.run("x", device("claim"))
	if got, want := k.partitions(), "x=4-5 (root)"; got != want {
		t.Errorf("partitions %q, want %q", got, want)
	}
	after := n.run("after")
	if got, want := n.configured(after), "0-7"; got != want {
		t.Errorf("a container from after the claim may have %s, want %s: the kernel takes what is claimed", got, want)
	}
	n.exit(x)
	n.giveBack("claim")
	n.plugin.Push()
	n.run("last")
	wantAsked(t, n)
}

// Two sets of one pod that overlap are a broken partition.
func TestABesideItsPartitionAContainerOfTheSamePodIsTold(t *testing.T) {
	n, k := newKernelNode(t, false)
	n.grant("claim", "x", "numa-1", 2)
	x := n.newContainer("x", device("claim"))
	sidecar := n.beside(x, "sidecar")
	n.mustRun(sidecar)
	n.mustRun(x)
	n.wantCPUs(sidecar, "0-3,6-7")
	if got, want := k.partitions(), "x=4-5 (root)"; got != want {
		t.Errorf("partitions %q, want %q", got, want)
	}
	// Claims of others take from it and give back.
	n.asked()
	n.grant("other", "y", "numa-1", 1)
	y := n.run("y", device("other"))
	wantAsked(t, n, "sidecar=0-3,7")
	n.exit(y)
	n.giveBack("other")
	n.plugin.Push()
	n.waitCPUs(sidecar, "0-3,6-7")
}

// The kernel gives CPUs back to everyone at the moment in which a partition is given up.
func TestOthersAreMovedOffBeforeAPartitionIsGivenUp(t *testing.T) {
	n, k := newKernelNode(t, false)
	shared := n.run("shared")
	n.grant("claim", "x", "numa-1", 2)
	first := n.run("x", device("claim"))
	k.asked()
	second := n.beside(first, "second", device("claim"))
	if err := n.create(second); err != nil {
		t.Fatal(err)
	}
	if got, want := k.asked(), []string{"confine shared to 0-3,6-7", "deactivate x"}; !slices.Equal(got, want) {
		t.Errorf("the kernel was asked for %q, want %q", got, want)
	}
	n.wantCPUs(shared, "0-3,6-7")
	wantAsked(t, n, "shared=0-3,6-7")
	if err := n.start(second); err != nil {
		t.Fatal(err)
	}
}

func TestAPartitionIsKeptWhenOthersCannotBeMovedOff(t *testing.T) {
	n, k := newKernelNode(t, false)
	n.run("shared")
	n.grant("claim", "x", "numa-1", 2)
	first := n.run("x", device("claim"))
	k.fail(errors.New("the kernel says no"))
	err := n.create(n.beside(first, "second", device("claim")))
	expect.Error(t, err, "container shared of pod default/pod-shared cannot be moved off CPUs 4-5", "the kernel says no")
	if got, want := k.partitions(), "x=4-5 (root)"; got != want {
		t.Errorf("partitions %q, want %q", got, want)
	}
	n.waitTier(first, allocator.KernelTier, "")
}

// When the kernel no longer keeps them off, the runtime has to.
func TestOthersAreMovedOffWhenAPartitionCannotBeMended(t *testing.T) {
	n, k := newKernelNode(t, false)
	shared := n.run("shared")
	n.grant("claim", "x", "numa-1", 2)
	x := n.run("x", device("claim"))
	n.wantCPUs(shared, "0-7")
	k.fail(errors.New("the kernel says no"))
	k.lose("x")
	n.plugin.kernel.look()
	n.waitTier(x, allocator.DegradedTier, "the kernel says no")
	n.waitCPUs(shared, "0-3,6-7")
}

func TestARestartTellsNobodyWhatTheKernelSeesTo(t *testing.T) {
	n, _ := newKernelNode(t, false)
	n.run("shared")
	n.grant("claim", "x", "numa-1", 2)
	n.run("x", device("claim"))
	n.stopNRI()
	waitLost(t, n.plugin.Ready)
	n.startNRI()
	n.waitReady()
	wantAsked(t, n)
}

func TestWhatIsLentIsNoDrift(t *testing.T) {
	n, _ := newKernelNode(t, false)
	shared := n.run("shared")
	n.grant("claim", "x", "numa-1", 2)
	d := n.plugin.newDrift(nil)
	if found := d.differing(t.Context(), nil); len(found) > 0 {
		t.Errorf("on other CPUs than they ought to be: %v", found)
	}
	shared.Linux.Resources.Cpu.Cpus = "1"
	n.writeCgroup(shared)
	if found := d.differing(t.Context(), nil); len(found) != 1 {
		t.Errorf("on other CPUs than they ought to be: %v, want the shared container", found)
	}
}

// After a restart it is not known what the runtime was told, only what the kernel has made
// of it.
func TestWhoIsMovedOffAfterARestartIsToldAsWell(t *testing.T) {
	n, _ := newKernelNode(t, false)
	shared := n.run("shared")
	n.grant("claim", "x", "numa-1", 2)
	first := n.run("x", device("claim"))
	n.write(n.cgroupDir(shared)+"/cpuset.cpus.effective", "0-3,6-7")
	n.stopNRI()
	waitLost(t, n.plugin.Ready)
	n.startNRI()
	n.waitReady()
	n.asked()
	if err := n.create(n.beside(first, "second", device("claim"))); err != nil {
		t.Fatal(err)
	}
	wantAsked(t, n, "shared=0-3,6-7")
}

// Two containers of one claim that are created before either starts have no partition: the
// others are told in time.
func TestWhoWillHaveNoPartitionHasTheOthersTold(t *testing.T) {
	n, k := newKernelNode(t, false)
	shared := n.run("shared")
	n.grant("claim", "x", "numa-1", 2)
	first := n.newContainer("x", device("claim"))
	second := n.beside(first, "second", device("claim"))
	for _, c := range []*fakeContainer{first, second} {
		if err := n.create(c); err != nil {
			t.Fatal(err)
		}
	}
	n.wantCPUs(shared, "0-3,6-7")
	for _, c := range []*fakeContainer{first, second} {
		if err := n.start(c); err != nil {
			t.Fatal(err)
		}
	}
	if got := k.partitions(); got != "" {
		t.Errorf("partitions %s", got)
	}
}
