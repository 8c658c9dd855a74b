package nriplugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/expect"
)

// Runtimes that tell who set a container's CPUs, and that do not.
const (
	tellsOwners = "v2.4.2"
	tellsCPUs   = "v2.1.6"
)

// newGuardedNode has a runtime of this version with a guard and without an active
// plugin. The guard does not go through the proxy: the connection of the active
// plugin breaks alone.
func newGuardedNode(t *testing.T, release string) (*node, *Guard) {
	t.Helper()
	n := newOfflineNode(t, false)
	n.stopNRI()
	n.release = release
	n.startNRI()
	return n, n.guard()
}

func (n *node) runtimeSocket() string { return filepath.Join(n.dir, "runtime.sock") }

// guard runs one until the test ends.
func (n *node) guard() *Guard {
	n.t.Helper()
	g := NewGuard(n.runtimeSocket())
	n.background(g.Run)
	n.waitGuard(g)
	return g
}

func (n *node) waitGuard(g *Guard) {
	n.t.Helper()
	expect.State(n.t, "the guard to be connected", func() string { return fmt.Sprint(g.Ready()) }, "<nil>")
	n.nri.BlockPluginSync().Unblock()
}

// setter is another NRI plugin, which gives every container the same CPUs.
type setter struct{ connected chan struct{} }

func (s setter) Synchronize(context.Context, []*api.PodSandbox, []*api.Container) ([]*api.ContainerUpdate, error) {
	close(s.connected)
	return nil, nil
}

func (setter) CreateContainer(context.Context, *api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	adjust := &api.ContainerAdjustment{}
	adjust.SetLinuxCPUSetCPUs("0-7")
	return adjust, nil, nil
}

func (n *node) connectSetter(index string) {
	n.t.Helper()
	s := setter{make(chan struct{})}
	n.background(connection{socket: n.runtimeSocket(), name: "setter", index: index, plugin: s, lost: func(error) {}}.run)
	<-s.connected
	n.nri.BlockPluginSync().Unblock()
}

func TestWithoutAnActivePluginNoContainerIsCreated(t *testing.T) {
	for _, tc := range []struct {
		name   string
		device string
		cpus   string // that the kubelet passes
		setter string // index of another plugin
		said   string
		// passes the guard in a runtime that tells CPUs only
		passes bool
	}{
		{name: "a shared container", said: "it would run on CPUs that are other containers' alone"},
		{name: "a container of a claim", device: device("claim"), said: "it would not run on the CPUs of its claims"},
		{name: "a container that names no claim of this form", device: "topolet.dev/claim=a.b.c", said: "it would not run on the CPUs of its claims"},
		{name: "a container with another driver's device", device: "vendor.example/gpu=0", said: "other containers' alone"},
		{name: "a container with CPUs from the kubelet", cpus: "0-3", said: "other containers' alone", passes: true},
		{name: "a claimed container with CPUs from the kubelet", device: device("claim"), cpus: "4", said: "CPUs of its claims", passes: true},
		{name: "a container with CPUs from an earlier plugin", setter: "40", said: "other containers' alone", passes: true},
		{name: "a container with CPUs from a later plugin", setter: "70", said: "other containers' alone"},
	} {
		for _, release := range []string{tellsOwners, tellsCPUs} {
			t.Run(tc.name+" of containerd "+release, func(t *testing.T) {
				n, _ := newGuardedNode(t, release)
				if tc.setter != "" {
					n.connectSetter(tc.setter)
				}
				var devices []string
				if tc.device != "" {
					devices = append(devices, tc.device)
				}
				c := n.newContainer("a", devices...)
				c.Linux.Resources.Cpu.Cpus = tc.cpus
				err := n.create(c)
				if tc.passes && release == tellsCPUs {
					if tc.device != "" {
						expect.Error(t, err, allocator.UnplacedSource)
					} else if err != nil {
						t.Errorf("refused: %v", err)
					}
					return
				}
				expect.Error(t, err, "no active topolet has placed container a of pod default/pod-a: ", tc.said, "; the kubelet tries again")
			})
		}
	}
}

func TestTheGuardLetsPassWhatTheActivePluginHasPlaced(t *testing.T) {
	for _, release := range []string{tellsOwners, tellsCPUs} {
		t.Run("containerd "+release, func(t *testing.T) {
			n, _ := newGuardedNode(t, release)
			n.connect()
			n.grant("claim", "x", "numa-1", 2)
			a, x := n.run("a"), n.run("x", device("claim"))
			n.wantCPUs(a, "0-3,6-7")
			n.wantCPUs(x, "4-5")

			// Also where the kubelet has passed others.
			b := n.newContainer("b")
			b.Linux.Resources.Cpu.Cpus = "0"
			if err := n.create(b); err != nil {
				t.Error(err)
			}
			// Pods begin without any plugin's part in it.
			if err := n.nri.RunPodSandbox(t.Context(), &api.RunPodSandboxRequest{Pod: n.addPod("pod-c")}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWhenTheActiveConnectionIsLostContainersAreRefusedUntilItIsBack(t *testing.T) {
	for _, release := range []string{tellsOwners, tellsCPUs} {
		t.Run("containerd "+release, func(t *testing.T) {
			n, g := newGuardedNode(t, release)
			n.connect()
			n.grant("claim", "x", "numa-1", 2)
			a := n.run("a")

			n.proxy.close()
			waitLost(t, n.plugin.Ready)
			// The first request may find the connection still listed, and fails by the
			// active plugin's own policy.
			for _, c := range []*fakeContainer{n.newContainer("x", device("claim")), n.newContainer("y")} {
				if n.create(c) == nil {
					t.Errorf("%s was created", c.Name)
				}
			}
			expect.Error(t, n.create(n.newContainer("z")), "no active topolet has placed")
			if err := g.Ready(); err != nil {
				t.Errorf("the guard: %v", err)
			}

			n.proxy = newProxy(t, n.socket(), n.runtimeSocket())
			n.waitReady()
			x := n.run("x", device("claim"))
			n.wantCPUs(x, "4-5")
			n.wantCPUs(a, "0-3,6-7")
		})
	}
}

func TestTheGuardReadsBackInThePlaceOfAnActivePluginThatIsGone(t *testing.T) {
	for _, release := range []string{tellsOwners, tellsCPUs} {
		t.Run("containerd "+release, func(t *testing.T) {
			n, g := newGuardedNode(t, release)
			stop := n.background(n.plugin.Run)
			n.waitReady()
			g.StandInFor(n.plugin)
			right, wrong := n.newContainer("right"), n.newContainer("wrong")
			for _, c := range []*fakeContainer{right, wrong} {
				if err := n.create(c); err != nil {
					t.Fatal(err)
				}
			}
			n.ignore("wrong") // the runtime does not take the claim's CPUs from it
			n.grant("claim", "x", "numa-1", 2)
			n.run("x", device("claim"))
			stop()
			expect.State(t, "the active plugin to be gone", func() string {
				return fmt.Sprint(strings.Contains(n.create(n.newContainer("y")).Error(), "no active topolet"))
			}, "true")

			expect.Error(t, n.start(wrong), "container wrong of pod default/pod-wrong is not started: it would run on CPUs 0-7 instead of 0-3,6-7")
			if err := n.start(right); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDuringAHandOverNoContainerIsUnpinned(t *testing.T) {
	for _, release := range []string{tellsOwners, tellsCPUs} {
		t.Run("containerd "+release, func(t *testing.T) {
			n, _ := newGuardedNode(t, release)
			stopOld := n.background(n.plugin.Run)
			n.waitReady()
			n.grant("claim", "x", "numa-1", 2)
			x, a := n.run("x", device("claim")), n.run("a")

			n.guard() // of the new instance
			n.run("b")
			stopOld()
			expect.State(t, "a container to be refused by the guards", func() string {
				err := n.create(n.newContainer("c"))
				if err == nil {
					t.Fatal("c was created")
				}
				return fmt.Sprint(strings.Contains(err.Error(), "no active topolet has placed"))
			}, "true")

			n.plugin = New(n.socket(), newLedger(t, n.ledger.Grants()...), os.DirFS(n.root), &n.books, noKernel)
			n.connect()
			n.wantCPUs(x, "4-5")
			n.wantCPUs(a, "0-3,6-7")
			n.wantCPUs(n.run("c"), "0-3,6-7")
		})
	}
}

func TestTheGuardFindsTheRuntimeAgain(t *testing.T) {
	n := newOfflineNode(t, false)
	g := NewGuard(n.socket())
	expect.Error(t, g.Ready(), "the guard is not connected to the container runtime's NRI socket yet")
	n.background(g.Run)
	n.waitGuard(g)
	n.stopNRI()
	waitLost(t, g.Ready)
	n.startNRI()
	n.waitGuard(g)
	expect.Error(t, n.create(n.newContainer("a")), "no active topolet has placed")
}

// Neither the plugin nor the guard is there to refuse it: the runtime cannot make its mounts.
func TestAClaimedContainerIsNotCreatedWithoutBeingPlaced(t *testing.T) {
	n := newOfflineNode(t, false)
	n.grant("claim", "x", "numa-1", 2)
	expect.Error(t, n.create(n.newContainer("x", device("claim"))), allocator.UnplacedSource)
	if err := n.create(n.newContainer("shared")); err != nil {
		t.Error(err)
	}
	n.connect()
	if err := n.create(n.newContainer("x", device("claim"))); err != nil {
		t.Error(err)
	}
}
