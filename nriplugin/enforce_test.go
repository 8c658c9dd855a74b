package nriplugin

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/containerd/nri/pkg/api"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/expect"
)

// layouts runs a test on both cgroup hierarchies.
func layouts(t *testing.T, test func(t *testing.T, n *node)) {
	t.Run("cgroup v1", func(t *testing.T) { test(t, newNode(t, true)) })
	t.Run("cgroup v2", func(t *testing.T) { test(t, newNode(t, false)) })
}

func TestSharedContainersMakeRoomForAnExclusiveOneAndGrowAfterIt(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		a, b := n.run("a"), n.run("b")
		n.wantCPUs(a, "0-7")

		if got := n.grant("claim", "x", "numa-1", 2); got != "4-5" {
			t.Fatalf("the claim got CPUs %s", got)
		}
		n.wantCPUs(a, "0-7") // nobody uses the claim yet
		x := n.newContainer("x", device("claim"))
		if err := n.create(x); err != nil {
			t.Fatal(err)
		}
		// Before the exclusive container's workload could run.
		n.wantCPUs(a, "0-3,6-7")
		n.wantCPUs(b, "0-3,6-7")
		if err := n.start(x); err != nil {
			t.Fatal(err)
		}
		n.wantCPUs(x, "4-5")

		// A container that restarts finds its CPUs as they were.
		n.exit(x)
		expect.State(t, "the claim to be unused", func() string { return errorText(n.ledger.Release("claim")) }, "")
		n.wantCPUs(a, "0-3,6-7")
		n.plugin.Push()
		n.waitCPUs(a, "0-7")
		n.waitCPUs(b, "0-7")
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestAnExclusiveContainerDoesNotStartBesideOneThatWasNotMoved(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		a := n.run("a")
		n.run("b")
		n.refuse("a")
		n.grant("claim", "x", "numa-1", 2)
		x := n.newContainer("x", device("claim"))
		if err := n.create(x); err != nil {
			t.Fatal(err)
		}
		expect.Error(t, n.start(x), "container x of pod default/pod-x is not started",
			"container a of pod default/pod-a could not be moved off its CPUs 4-5")

		// It is told again, and the kubelet's next attempt works.
		n.heed()
		n.run("x", device("claim"))
		n.wantCPUs(a, "0-3,6-7")
	})
}

// A runtime that says yes and does nothing is found out by each start, and told
// again by each creation.
func TestAnExclusiveContainerDoesNotStartBesideOneThatIsNotConfined(t *testing.T) {
	n := newNode(t, false)
	a := n.run("a")
	n.ignore("a")
	n.grant("claim", "x", "numa-1", 2)
	for range 2 {
		x := n.newContainer("x", device("claim"))
		if err := n.create(x); err != nil {
			t.Fatal(err)
		}
		expect.Error(t, n.start(x), "container a of pod default/pod-a could not be moved off its CPUs 4-5")
	}
	n.heed()
	n.run("x", device("claim"))
	n.wantCPUs(a, "0-3,6-7")
}

func TestAnExclusiveContainerDoesNotStartOnOtherCPUsThanItsOwn(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		n.grant("claim", "x", "numa-1", 2)
		for _, cpus := range []string{"4,6", "4", "4-6"} { // other plugins' ideas
			x := n.newContainer("x", device("claim"))
			if err := n.create(x); err != nil {
				t.Fatal(err)
			}
			x.Linux.Resources.Cpu.Cpus = cpus
			expect.Error(t, n.start(x), "container x of pod default/pod-x is not started: it would run on CPUs "+cpus+" instead of 4-5")
			if _, known := n.ledger.Entry("x"); known {
				t.Error("the container that did not start is still in the ledger")
			}
		}
	})
}

func TestASharedContainerDoesNotStartOnTheCPUsOfAnExclusiveOne(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		n.grant("claim", "x", "numa-1", 2)
		n.run("x", device("claim"))
		a := n.newContainer("a")
		if err := n.create(a); err != nil {
			t.Fatal(err)
		}
		a.Linux.Resources.Cpu.Cpus = "" // the runtime forgot
		expect.Error(t, n.start(a), "container a of pod default/pod-a is not started", "CPUs 0-7 instead of 0-3,6-7")
	})
}

// The runtime drops updates of a container that it does not list yet.
func TestASharedContainerThatIsCreatedBesideAnExclusiveOneNeverRunsOnItsCPUs(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		a := n.newContainer("a")
		if err := n.beginCreate(a); err != nil {
			t.Fatal(err)
		}
		n.grant("claim", "x", "numa-1", 2)
		n.run("x", device("claim"))

		t.Run("when it is told late", func(t *testing.T) {
			n.ignore("a")
			if err := n.endCreate(a); err != nil {
				t.Fatal(err)
			}
			expect.Error(t, n.start(a), "container a of pod default/pod-a is not started")
		})
		t.Run("when it is told in time", func(t *testing.T) {
			n.heed()
			b := n.newContainer("b")
			if err := n.beginCreate(b); err != nil {
				t.Fatal(err)
			}
			n.grant("another", "y", "numa-0", 1)
			n.run("y", device("another"))
			if err := n.endCreate(b); err != nil {
				t.Fatal(err)
			}
			expect.State(t, "the configuration of b", func() string { return n.configured(b) }, "0,2-3,6-7")
			if err := n.start(b); err != nil {
				t.Fatal(err)
			}
			n.wantCPUs(b, "0,2-3,6-7")
		})
	})
}

// A Pod whose restart policy is Never would be lost by a start that fails for
// nothing.
func TestASharedContainerStartsAlthoughAClaimWasGrantedMeanwhile(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		a := n.newContainer("a")
		if err := n.create(a); err != nil {
			t.Fatal(err)
		}
		n.grant("claim", "x", "numa-1", 2)
		if err := n.start(a); err != nil {
			t.Fatal(err)
		}
		n.waitCPUs(a, "0-3,6-7") // moved before anyone needs it
		n.run("x", device("claim"))
	})
}

func TestAnUpdateOfAContainerKeepsItsCPUs(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		n.grant("claim", "x", "numa-1", 2)
		x, a := n.run("x", device("claim")), n.run("a")
		for _, c := range []*fakeContainer{x, a} {
			want := n.cpusOf(c)
			for _, request := range []string{"", "0-7", "4"} {
				if err := n.resize(c, request); err != nil {
					t.Fatal(err)
				}
				n.wantCPUs(c, want)
			}
		}
	})
}

func TestAContainerWithTheSharedPoolFollowsIt(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		grant(t, n.ledger, allocator.Request{Name: "cpus", Domain: "numa-1", Count: 2, SharedPool: true}, "mixed", "x")
		x := n.run("x", device("mixed"))
		n.wantCPUs(x, "0-7")
		n.grant("claim", "y", "numa-0", 1)
		y := n.run("y", device("claim"))
		n.wantCPUs(y, "1")
		n.wantCPUs(x, "0,2-7")
		if err := n.remove(y); err != nil {
			t.Fatal(err)
		}
		if err := n.ledger.Release("claim"); err != nil {
			t.Fatal(err)
		}
		n.plugin.Push()
		n.waitCPUs(x, "0-7")
	})
}

func TestAContainerIsThrottledUnlessItsCPUsAreItsOwn(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		n.grant("own", "x", "numa-1", 2)
		grant(t, n.ledger, allocator.Request{Name: "cpus", Domain: "numa-0", Count: 1, SharedPool: true}, "mixed", "y")
		for _, tc := range []struct {
			c    *fakeContainer
			want int64
		}{{n.newContainer("x", device("own")), -1}, {n.newContainer("y", device("mixed")), 50000}, {n.newContainer("z"), 50000}} {
			tc.c.Linux.Resources.Cpu.Quota = api.Int64(50000)
			if err := errors.Join(n.create(tc.c), n.start(tc.c)); err != nil {
				t.Fatal(err)
			}
			if got := tc.c.Linux.Resources.Cpu.GetQuota().GetValue(); got != tc.want {
				t.Errorf("%s was created with a quota of %d, want %d", tc.c.Name, got, tc.want)
			}
			if err := n.resize(tc.c, ""); err != nil {
				t.Fatal(err)
			}
			if tc.want > 0 {
				tc.want = 100000
			}
			if got := tc.c.Linux.Resources.Cpu.GetQuota().GetValue(); got != tc.want {
				t.Errorf("after a resize %s has a quota of %d, want %d", tc.c.Name, got, tc.want)
			}
		}
	})
}

func TestMemoryIsBoundAtCreationWhereTheClaimAsksForIt(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		grant(t, n.ledger, allocator.Request{Name: "cpus", Domain: "numa-1", Count: 2, LocalMemory: true}, "local", "x")
		n.grant("any", "y", "numa-0", 1)
		for c, want := range map[*fakeContainer]string{n.run("x", device("local")): "1", n.run("y", device("any")): "", n.run("z"): ""} {
			if got := c.Linux.Resources.Cpu.Mems; got != want {
				t.Errorf("%s has its memory on nodes %q, want %q", c.Name, got, want)
			}
		}
	})
}

func TestContainersOfOnePodShareAClaim(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		n.grant("claim", "x", "numa-1", 2)
		first := n.run("x", device("claim"))
		second := n.newContainer("x", device("claim"))
		second.Id = "x-sidecar"
		if err := errors.Join(n.create(second), n.start(second)); err != nil {
			t.Fatal(err)
		}
		n.wantCPUs(first, "4-5")
		n.wantCPUs(second, "4-5")
	})
}

func TestAContainerIsRefused(t *testing.T) {
	n := newNode(t, false)
	n.grant("claim", "owner", "numa-1", 2)
	for _, tc := range []struct {
		name, device string
		want         []string
	}{
		{"that names a claim of another pod", device("claim"),
			[]string{"container x of pod default/pod-x (pod-x) names claim default/claim", "which belongs to another pod", "sharing: ManyPods"}},
		{"that names a claim that is not prepared", device("unknown"), []string{"names claim unknown", "not prepared on this node"}},
		{"that names a request that the claim does not have", allocator.Ref{Claim: "claim", Request: "gpu"}.String(),
			[]string{`request "gpu"`, "not prepared on this node"}},
		{"that names a claim by too many words", allocator.RefPrefix + "claim.cpus.more", []string{"want topolet.dev/claim=<claim UID>.<request>"}},
		{"that names a claim without a UID", allocator.RefPrefix, []string{"want topolet.dev/claim=<claim UID>.<request>"}},
		{"that names a claim with an empty request", allocator.RefPrefix + "claim.", []string{"want topolet.dev/claim=<claim UID>.<request>"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			expect.Error(t, n.create(n.newContainer("x", tc.device)), tc.want...)
			if diff := cmp.Diff([]allocator.Entry(nil), n.ledger.Entries(), cmp.Transformer("len", func(e []allocator.Entry) int { return len(e) })); diff != "" {
				t.Errorf("containers in the ledger (-want +got):\n%s", diff)
			}
		})
	}
}

func TestForeignDevicesAndEnvironmentAreNoClaims(t *testing.T) {
	n := newNode(t, false)
	n.grant("claim", "owner", "numa-1", 2)
	c := n.newContainer("x", "example.com/gpu=0", "topolet.dev/other=claim.cpus")
	c.Env = []string{"TOPOLET_CPUS_CLAIM_CPUS=4-5"}
	c.Annotations = map[string]string{"topolet.dev/claim": "claim"}
	if err := errors.Join(n.create(c), n.start(c)); err != nil {
		t.Fatal(err)
	}
	n.wantCPUs(c, "0-3,6-7")
}

// Virtual machine runtimes confine the sandbox, and make no cgroup of this name.
func TestASharedContainerWithoutACgroupStarts(t *testing.T) {
	n := newNode(t, false)
	a := n.newContainer("a")
	if err := n.create(a); err != nil {
		t.Fatal(err)
	}
	a.Linux.CgroupsPath = "kubepods.slice:kata:elsewhere"
	entry, _ := n.ledger.Entry("a")
	entry.Cgroup = a.Linux.CgroupsPath
	if err := n.plugin.verify(t.Context(), entry); err != nil {
		t.Error(err)
	}
	entry.Granted, entry.Desired = n.ledger.Pool(), n.ledger.Pool()
	expect.Error(t, n.plugin.verify(t.Context(), entry), "container a of pod default/pod-a is not started", "kubepods.slice:kata:elsewhere")
}

func TestAStartWithoutACreationIsRefused(t *testing.T) {
	n := newNode(t, false)
	expect.Error(t, n.start(n.newContainer("ghost")), "container ghost of pod default/pod-ghost starts without having been created")
}

// Its cgroup is there and has all CPUs until the runtime has filled it.
func TestAContainerThatIsBeingMadeIsNoIntruder(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		n.grant("claim", "x", "numa-1", 2)
		other := n.newContainer("a")
		if err := n.create(other); err != nil {
			t.Fatal(err)
		}
		configured := other.Linux.Resources.Cpu.Cpus
		other.Linux.Resources.Cpu.Cpus = ""
		n.makeCgroup(other)
		n.run("x", device("claim"))
		expect.Error(t, n.launch(other), "container a of pod default/pod-a is not started", "instead of "+configured)
	})
}

func TestAnUpdateWhileAContainerStartsIsNotLost(t *testing.T) {
	layouts(t, func(t *testing.T, n *node) {
		n.grant("claim", "x", "numa-1", 2)
		a := n.newContainer("a")
		if err := n.create(a); err != nil {
			t.Fatal(err)
		}
		n.makeCgroup(a)
		if err := n.ledger.Release("claim"); err != nil {
			t.Fatal(err)
		}
		n.plugin.Push()
		expect.State(t, "the update", func() string { return strings.Join(slices.Compact(n.asked()), " ") }, "a=0-7")
		if err := n.launch(a); err != nil {
			t.Fatal(err)
		}
		n.waitCPUs(a, "0-7")
	})
}
