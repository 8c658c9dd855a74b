package nriplugin

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/test/expect"
)

func TestCanPush(t *testing.T) {
	for _, tc := range []struct {
		version string
		want    bool
	}{
		{"v0.12.5", true},
		{"v0.12.1", true},
		{"0.12.1", true},
		{"v0.13.0-rc.1", true},
		{"v1.0.0", true},
		{"v0.12.2-0.20260801000000-abcdefabcdef", true},
		{"v0.12.1-rc.1", false},
		{"v0.12.0", false},
		{"v0.6.1", false},
		{"0.0.0-unknown", false},
		{"unknown", false},
		{"(devel)", false},
		{"", false},
	} {
		if got := canPush(tc.version); got != tc.want {
			t.Errorf("canPush(%q) is %v, want %v", tc.version, got, tc.want)
		}
	}
}

// In such a runtime an update of the plugin's own accord that meets an event
// stops both for ever.
func TestAnOldRuntimeIsSentNothingUnasked(t *testing.T) {
	n := newOfflineNode(t, false)
	n.stopNRI()
	n.version = "v0.12.0"
	n.startNRI()
	n.connect()
	n.updateUnasked(func() { t.Error("an update that the runtime did not ask for") })

	a := n.run("a")
	n.grant("claim", "x", "numa-1", 2)
	x := n.run("x", device("claim"))
	n.wantCPUs(a, "0-3,6-7")
	if err := n.remove(x); err != nil {
		t.Fatal(err)
	}
	if err := n.ledger.Release("claim"); err != nil {
		t.Fatal(err)
	}
	n.plugin.Push()
	expect.State(t, "the push to be looked at", func() string {
		if len(n.plugin.push) == 0 {
			return "yes"
		}
		return "no"
	}, "yes")
	b := n.run("b") // an event, whose reply brings it
	n.wantCPUs(a, "0-7")
	n.wantCPUs(b, "0-7")
}

// The runtime carries out an update of the plugin's own accord when no event
// holds its lock. If one from before a grant were carried out after the claim's
// container has started, others would run on its CPUs.
func TestAnUpdateFromBeforeAGrantIsNotCarriedOutAfterIt(t *testing.T) {
	n := newNode(t, false)
	a := n.run("a")
	n.grant("first", "gone", "numa-1", 2)
	n.run("b") // a makes room
	n.wantCPUs(a, "0-3,6-7")
	if err := n.ledger.Release("first"); err != nil {
		t.Fatal(err)
	}
	under, goOn := make(chan struct{}), make(chan struct{})
	n.updateUnasked(func() { close(under); <-goOn })
	n.plugin.Push()
	<-under // "a may run on 0-7" is on its way
	n.updateUnasked(nil)

	n.grant("claim", "x", "numa-1", 2)
	limited, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := n.plugin.Settled(limited); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Settled returns %v while an update is under way", err)
	}
	close(goOn)
	if err := n.plugin.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.run("x", device("claim"))
	n.wantCPUs(a, "0-3,6-7")
}

func TestAnEventDoesNotWaitForAPush(t *testing.T) {
	n := newNode(t, false)
	a := n.run("a")
	under, goOn := make(chan struct{}), make(chan struct{})
	n.updateUnasked(func() { close(under); <-goOn })
	n.ledger.Untold("a")
	n.plugin.Push()
	<-under
	n.updateUnasked(nil)
	// The whole life of a container, with pushes of its own, while one is stuck.
	if err := n.remove(n.run("b")); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	n.waitCPUs(a, "0-7")
}

func TestARefusedUpdateIsSentAgainWithoutAnEvent(t *testing.T) {
	n := newNode(t, false)
	a := n.run("a")
	n.mu.Lock()
	n.confine(a, "4")
	n.mu.Unlock()
	n.refuse("a")
	n.ledger.Untold("a")
	n.plugin.Push()
	expect.State(t, "the update", func() string {
		return strings.Join(slices.Compact(n.asked()), " ") // the one of the creation may come on top
	}, "a=0-7")
	n.wantCPUs(a, "4")
	n.heed()
	n.waitCPUs(a, "0-7")
}

// failingStub is a connection that breaks during an update.
type failingStub struct{ stub.Stub }

func (failingStub) UpdateContainers([]*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	return nil, errors.New("connection reset")
}

func TestAnUpdateThatDidNotArriveIsSentAgain(t *testing.T) {
	n := newNode(t, false)
	n.run("a")
	n.ledger.Untold("a")
	if err := n.plugin.pushOnce(t.Context(), failingStub{}); err == nil {
		t.Fatal("no error")
	}
	got := n.plugin.updates()
	if len(got) != 1 {
		t.Fatalf("%d updates are due", len(got))
	}
	if diff := cmp.Diff("a", got[0].GetContainerId()); diff != "" {
		t.Errorf("the update that is due (-want +got):\n%s", diff)
	}
}
