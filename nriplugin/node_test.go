package nriplugin

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/expect"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// discard is a Store for tests that do not restart.
type discard struct{}

func (discard) Save([]allocator.Grant) error { return nil }

// books keeps what was said of pods that request too little, and can refuse.
type books struct {
	mu     sync.Mutex
	short  []ShortageError
	refuse bool
}

func (b *books) TooLittle(_ context.Context, s ShortageError) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.short = append(b.short, s)
	if b.refuse {
		return s
	}
	return nil
}

// noKernel leaves everything to the runtime.
var noKernel = Kernel{Why: "these cgroups are files", Changed: func() {}}

// node is a machine of eight single-threaded CPUs on two NUMA nodes, of which
// CPU 0 is reserved, with a runtime and topolet's side of it.
type node struct {
	*fakeRuntime
	ledger *allocator.Ledger
	books  books
	plugin *Plugin
}

// newNode starts everything and waits until the plugin is synchronised.
func newNode(t testing.TB, v1 bool) *node {
	t.Helper()
	n := newOfflineNode(t, v1)
	n.connect()
	return n
}

// newOfflineNode has a runtime without a plugin.
func newOfflineNode(t testing.TB, v1 bool) *node {
	t.Helper()
	r := newFakeRuntime(t, v1)
	n := &node{fakeRuntime: r, ledger: newLedger(t)}
	n.plugin = New(r.socket(), n.ledger, os.DirFS(r.root), &n.books, noKernel)
	return n
}

func newLedger(t testing.TB, grants ...allocator.Grant) *allocator.Ledger {
	t.Helper()
	return ledgerOf(t, allocator.Policy{ReservedCPUs: topology.NewCPUSet(0)}, grants...)
}

func ledgerOf(t testing.TB, policy allocator.Policy, grants ...allocator.Grant) *allocator.Ledger {
	t.Helper()
	m := topologytest.New(topologytest.Spec{
		NUMAPerSocket: 2, CoresPerL3: 4, Hugepages: []topology.Hugepages{{SizeBytes: 2 << 20, Total: 64}},
	})
	ledger, err := allocator.NewLedger(m, policy, discard{}, grants)
	if err != nil {
		t.Fatal(err)
	}
	return ledger
}

// connect runs the plugin until the test ends.
func (n *node) connect() {
	n.t.Helper()
	n.background(n.plugin.Run)
	n.waitReady()
}

// background runs a function until the test ends, or the returned one is called.
func (n *node) background(run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	n.t.Cleanup(stop)
	return stop
}

func (n *node) waitReady() {
	n.t.Helper()
	expect.State(n.t, "the plugin to be synchronised", func() string { return fmt.Sprint(n.plugin.Ready()) }, "<nil>")
	// The runtime enters the plugin a moment after it has synchronised it.
	n.nri.BlockPluginSync().Unblock()
}

// waitLost waits until a plugin notices that its connection has ended.
func waitLost(t testing.TB, ready func() error) {
	t.Helper()
	expect.State(t, "the loss of the connection to be noticed", func() string { return fmt.Sprint(ready() != nil) }, "true")
}

// grant gives a claim of this name CPUs of a domain, for the pod of the
// container of this name.
func (n *node) grant(claim, container, domain string, count int) string {
	n.t.Helper()
	return grant(n.t, n.ledger, allocator.Request{Name: "cpus", Domain: domain, Count: count}, claim, container)
}

func grant(t testing.TB, l *allocator.Ledger, r allocator.Request, claim string, containers ...string) string {
	t.Helper()
	c := allocator.Claim{UID: allocator.ClaimUID(claim), Namespace: "default", Name: claim}
	for _, container := range containers {
		c.Pods = append(c.Pods, allocator.PodUID("pod-"+container))
	}
	g, err := l.Grant(c, []allocator.Request{r})
	if err != nil {
		t.Fatal(err)
	}
	return g.CPUs().String()
}

// device is the CDI device by which a container names the claim.
func device(claim string) string {
	return allocator.Ref{Claim: allocator.ClaimUID(claim), Request: "cpus"}.String()
}

// waitCPUs waits until the container runs on these CPUs.
func (n *node) waitCPUs(c *fakeContainer, want string) {
	n.t.Helper()
	expect.State(n.t, "the CPUs of "+c.Name, func() string { return n.cpusOf(c) }, want)
}

func (n *node) wantCPUs(c *fakeContainer, want string) {
	n.t.Helper()
	if got := n.cpusOf(c); got != want {
		n.t.Errorf("%s runs on CPUs %q, want %q", c.Name, got, want)
	}
}
