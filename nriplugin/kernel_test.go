package nriplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/nri/pkg/api"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/nriplugin/partition"
	"github.com/topolet/topolet/test/expect"
	"github.com/topolet/topolet/topology"
)

// fakeKernel has partitions as Linux does, where that matters to who asks for them:
// whoever is not named as live when another one comes loses its own, two sets of one
// parent must not overlap, and a cgroup takes its partition with it.
type fakeKernel struct {
	runtime *fakeRuntime

	mu     sync.Mutex
	valid  map[string]partition.Partition
	done   []string // what was asked for and changed something
	broken error    // the answer to every change
}

func (k *fakeKernel) Activate(_ context.Context, p partition.Partition, live []partition.Partition) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken != nil {
		return k.broken
	}
	k.demote(append(live, p))
	for cgroup, other := range k.valid {
		if cgroup != p.Cgroup && other.CPUs.Intersects(p.CPUs) {
			return fmt.Errorf("%s: its CPUs belong to %s", p.Cgroup, cgroup)
		}
	}
	k.runtime.mu.Lock()
	defer k.runtime.mu.Unlock()
	for _, c := range k.runtime.listed {
		dir := strings.TrimPrefix(k.runtime.cgroupDir(c), cgroupMount+"/")
		cpus, err := topology.ParseCPUSet(c.Linux.Resources.Cpu.Cpus)
		if err == nil && !c.stopped && dir != p.Cgroup && path.Dir(dir) == path.Dir(p.Cgroup) && cpus.Intersects(p.CPUs) {
			return fmt.Errorf("%s: its sibling %s has CPUs %s", p.Cgroup, dir, cpus)
		}
	}
	k.valid[p.Cgroup] = p
	k.done = append(k.done, "activate "+short(p.Cgroup))
	return nil
}

// demote is what happens to those for which the cgroups above have no CPUs any more.
func (k *fakeKernel) demote(live []partition.Partition) {
	maps.DeleteFunc(k.valid, func(cgroup string, _ partition.Partition) bool {
		return !slices.ContainsFunc(live, func(p partition.Partition) bool { return p.Cgroup == cgroup })
	})
}

func (k *fakeKernel) Check(p partition.Partition) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := fs.Stat(k.runtimeRoot(), path.Join(cgroupMount, p.Cgroup)); err != nil {
		delete(k.valid, p.Cgroup)
		return err
	}
	if has, ok := k.valid[p.Cgroup]; !ok || !has.CPUs.Equals(p.CPUs) || has.Kind != p.Kind {
		return errors.New("it is not a partition")
	}
	return nil
}

func (k *fakeKernel) Deactivate(_ context.Context, p partition.Partition, live []partition.Partition) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken != nil {
		return k.broken
	}
	delete(k.valid, p.Cgroup)
	k.demote(live)
	k.done = append(k.done, "deactivate "+short(p.Cgroup))
	return nil
}

func (k *fakeKernel) Tidy(_ context.Context, live []partition.Partition) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.demote(live)
	return nil
}

func (k *fakeKernel) Roots(...string) {}

// Confine writes to the cgroup itself; the runtime does not learn of it.
func (k *fakeKernel) Confine(cgroup string, cpus topology.CPUSet) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken != nil {
		return k.broken
	}
	if _, err := fs.Stat(k.runtimeRoot(), path.Join(cgroupMount, cgroup)); err != nil {
		return err
	}
	k.runtime.write(path.Join(cgroupMount, cgroup, "cpuset.cpus.effective"), cpus.String())
	k.done = append(k.done, "confine "+short(cgroup)+" to "+cpus.String())
	return nil
}

// short is the container's name in its cgroup's.
func short(cgroup string) string {
	return strings.TrimSuffix(strings.TrimPrefix(path.Base(cgroup), "cri-containerd-"), ".scope")
}

// partitions are those that there are, as "container=cpus".
func (k *fakeKernel) partitions() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []string
	for cgroup, p := range k.valid {
		list = append(list, fmt.Sprintf("%s=%s (%s)", short(cgroup), p.CPUs, p.Kind))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// lose ends a container's partition as somebody else's write does.
func (k *fakeKernel) lose(container string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.valid, func(cgroup string, _ partition.Partition) bool {
		return strings.Contains(cgroup, "-"+container+".scope")
	})
}

func (k *fakeKernel) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.broken = err
}

// asked returns what was asked for since the last call.
func (k *fakeKernel) asked() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	done := k.done
	k.done = nil
	return done
}

func (k *fakeKernel) runtimeRoot() fs.FS { return os.DirFS(k.runtime.root) }

func newKernelNode(t *testing.T, required bool) (*node, *fakeKernel) {
	t.Helper()
	n := newOfflineNode(t, false)
	k := &fakeKernel{runtime: n.fakeRuntime, valid: map[string]partition.Partition{}}
	n.ledger = ledgerOf(t, allocator.Policy{ReservedCPUs: topology.NewCPUSet(0), KernelKeeps: true})
	n.plugin = New(n.socket(), n.ledger, os.DirFS(n.root), &n.books, Kernel{Partitions: k, Required: required, Changed: func() {}})
	n.connect()
	return n, k
}

func (n *node) waitTier(c *fakeContainer, tier allocator.Tier, reason string) {
	n.t.Helper()
	expect.State(n.t, "the tier of "+c.Name, func() string {
		e, _ := n.ledger.Entry(allocator.ContainerID(c.Id))
		return fmt.Sprint(e.Enforcement)
	}, fmt.Sprint(allocator.Enforcement{Tier: tier, Reason: reason}))
}

// beside describes a container of the same pod.
func (n *node) beside(c *fakeContainer, name string, devices ...string) *fakeContainer {
	other := n.newContainer(name, devices...)
	other.pod, other.PodSandboxId = c.pod, c.PodSandboxId
	other.Linux.CgroupsPath = strings.TrimSuffix(c.Linux.CgroupsPath, c.Name) + name
	return other
}

func (n *node) mustRun(c *fakeContainer) {
	n.t.Helper()
	if err := errors.Join(n.create(c), n.start(c)); err != nil {
		n.t.Fatal(err)
	}
}

func TestAnExclusiveContainerStartsInAPartition(t *testing.T) {
	n, k := newKernelNode(t, false)
	n.run("a")
	n.ignore("a") // which the kernel moves all the same
	n.grant("claim", "x", "numa-1", 2)
	n.grant("other", "y", "numa-1", 1)
	x := n.run("x", device("claim"))
	y := n.run("y", device("other"))
	if got, want := k.partitions(), "x=4-5 (root), y=6 (root)"; got != want {
		t.Errorf("partitions %q, want %q", got, want)
	}
	n.waitTier(x, allocator.KernelTier, "")

	n.exit(x)
	expect.State(t, "the partitions", k.partitions, "y=6 (root)")
	n.waitTier(y, allocator.KernelTier, "")
}

func TestNoLoadBalancingIsAPartitionOfItsOwnKind(t *testing.T) {
	n, k := newKernelNode(t, false)
	grant(t, n.ledger, allocator.Request{Name: "cpus", Domain: "numa-1", Count: 2, Isolated: true}, "claim", "x")
	n.run("x", device("claim"))
	if got, want := k.partitions(), "x=4-5 (isolated)"; got != want {
		t.Errorf("partitions %q, want %q", got, want)
	}
}

func TestAnExclusiveContainerWithoutItsPartitionDoesNotStart(t *testing.T) {
	n, k := newKernelNode(t, false)
	n.grant("claim", "x", "numa-1", 2)
	k.fail(errors.New("cpuset.cpus.partition: root invalid"))
	x := n.newContainer("x", device("claim"))
	if err := n.create(x); err != nil {
		t.Fatal(err)
	}
	expect.Error(t, n.start(x), "container x of pod default/pod-x is not started", "root invalid")
	if _, known := n.ledger.Entry("x"); known {
		t.Error("the container that did not start is still in the ledger")
	}
	k.fail(nil)
	n.waitTier(n.run("x", device("claim")), allocator.KernelTier, "")
}

// An init container, then two that share the claim, of which the first had it alone.
func TestContainersOfOnePodTakeTheirPartitionInTurns(t *testing.T) {
	n, k := newKernelNode(t, false)
	n.grant("claim", "x", "numa-1", 2)
	first := n.run("x", device("claim"))
	n.exit(first)
	expect.State(t, "the partitions", k.partitions, "")

	sidecar := n.beside(first, "sidecar", device("claim"))
	n.mustRun(sidecar)
	n.waitTier(sidecar, allocator.KernelTier, "")

	main := n.beside(first, "main", device("claim"))
	if err := n.create(main); err != nil {
		t.Fatal(err)
	}
	if got := k.partitions(); got != "" {
		t.Errorf("a second container of the CPUs is there, and still the partition %s", got)
	}
	if err := n.start(main); err != nil {
		t.Fatal(err)
	}
	n.waitTier(sidecar, allocator.RuntimeTier, "container main of pod default/pod-x runs on the same CPUs")
	n.waitTier(main, allocator.RuntimeTier, "container sidecar of pod default/pod-x runs on the same CPUs")

	n.exit(sidecar)
	n.waitTier(main, allocator.KernelTier, "")
	expect.State(t, "the partitions", k.partitions, "main=4-5 (root)")
}

func TestWhatIsNotTheContainersAloneIsNoPartition(t *testing.T) {
	for name, test := range map[string]struct {
		request allocator.Request
		reason  string
	}{
		"the shared pool": {allocator.Request{Name: "cpus", Domain: "numa-1", Count: 2, SharedPool: true}, "request cpus includes the shared pool"},
	} {
		t.Run(name, func(t *testing.T) {
			n, k := newKernelNode(t, false)
			grant(t, n.ledger, test.request, "claim", "x")
			n.waitTier(n.run("x", device("claim")), allocator.RuntimeTier, test.reason)
			if got := k.partitions(); got != "" {
				t.Errorf("partitions %s", got)
			}
		})
		t.Run(name+" where the kernel is demanded", func(t *testing.T) {
			n, _ := newKernelNode(t, true)
			grant(t, n.ledger, test.request, "claim", "x")
			expect.Error(t, n.create(n.newContainer("x", device("claim"))), "field enforcement", "Kernel", test.reason)
			if _, known := n.ledger.Entry("x"); known {
				t.Error("the refused container is in the ledger")
			}
		})
	}
}

func TestARestartFindsItsPartitions(t *testing.T) {
	n, k := newKernelNode(t, false)
	n.grant("claim", "x", "numa-1", 2)
	x := n.run("x", device("claim"))
	k.asked()
	n.stopNRI()
	expect.State(t, "the plugin's readiness", func() string { return fmt.Sprint(n.plugin.Ready() == nil) }, "false")
	n.startNRI()
	n.waitReady()
	n.grant("other", "y", "numa-1", 1)
	n.run("y", device("other"))
	if got, want := k.partitions(), "x=4-5 (root), y=6 (root)"; got != want {
		t.Errorf("partitions %q, want %q", got, want)
	}
	if got := k.asked(); len(got) != 1 {
		t.Errorf("asked for %q, want one activation: that of y", got)
	}
	n.waitTier(x, allocator.KernelTier, "")
}

func TestALostPartitionIsMended(t *testing.T) {
	n, k := newKernelNode(t, false)
	n.grant("claim", "x", "numa-1", 2)
	n.grant("other", "y", "numa-1", 1)
	x := n.run("x", device("claim"))
	n.run("y", device("other"))

	k.fail(errors.New("the kernel says no"))
	k.lose("x")
	n.plugin.kernel.look()
	n.waitTier(x, allocator.DegradedTier, "the kernel says no")

	k.fail(nil)
	n.plugin.kernel.look()
	n.waitTier(x, allocator.KernelTier, "")
	expect.State(t, "the partitions", k.partitions, "x=4-5 (root), y=6 (root)")
}

// What the runtime lists has its partition from then on, not only when it is looked at
// the next time: the first start thereafter would take it away.
func TestAPartitionIsKnownFromSynchronizeOn(t *testing.T) {
	n, k := newKernelNode(t, false)
	n.grant("claim", "x", "numa-1", 2)
	n.grant("other", "y", "numa-1", 1)
	x := n.run("x", device("claim"))
	n.stopNRI()
	next := New(n.socket(), n.ledger, os.DirFS(n.root), &n.books, Kernel{Partitions: k, Changed: func() {}})
	if _, err := next.Synchronize(t.Context(), []*api.PodSandbox{x.pod}, []*api.Container{x.Container}); err != nil {
		t.Fatal(err)
	}
	y := n.newContainer("y", device("other"))
	if _, _, err := next.CreateContainer(t.Context(), y.pod, y.Container); err != nil {
		t.Fatal(err)
	}
	y.Linux.Resources.Cpu.Cpus = "6"
	n.makeCgroup(y)
	if err := next.StartContainer(t.Context(), y.pod, y.Container); err != nil {
		t.Fatal(err)
	}
	if got, want := k.partitions(), "x=4-5 (root), y=6 (root)"; got != want {
		t.Errorf("partitions %q, want %q", got, want)
	}
}
