package nriplugin

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// told keeps what was said of containers that do not stay on their CPUs.
type told struct {
	mu   sync.Mutex
	said []string
}

func (d *told) Drifted(_ context.Context, entry allocator.Entry, runsOn topology.CPUSet) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said = append(d.said, fmt.Sprintf("%s on %s, not %s", entry.Name, runsOn, entry.Desired))
}

func (d *told) all() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprint(d.said)
}

// follow follows the drift with short intervals until the test ends.
func (n *node) follow(report Drifts) {
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() { n.plugin.newDrift(report).follow(ctx, 5*time.Millisecond, time.Millisecond) })
	n.t.Cleanup(func() {
		cancel()
		following.Wait()
	})
}

func (n *node) drifts() float64 {
	n.t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(n.plugin.metrics.drifts)
	gathered, err := registry.Gather()
	if err != nil || len(gathered) != 1 {
		n.t.Fatalf("gathered %v, %v", gathered, err)
	}
	return gathered[0].GetMetric()[0].GetCounter().GetValue()
}

// stray writes other CPUs into a container's cgroup, as somebody on the host may.
func (n *node) stray(c *fakeContainer, cpus string) {
	file := "cpuset.cpus.effective"
	if n.v1 {
		file = "cpuset.effective_cpus"
	}
	n.write(n.cgroupDir(c)+"/"+file, cpus)
}

func TestAContainerThatIsMovedFromOutsideIsMovedBack(t *testing.T) {
	for _, v1 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v1=%t", v1), func(t *testing.T) {
			n := newNode(t, v1)
			cpu := n.grant("claim", "x", "numa-1", 2)
			a, x := n.run("a"), n.run("x", device("claim"))
			n.asked()
			n.follow(&told{})
			n.stray(a, "0-7")
			n.waitCPUs(a, "0-3,6-7")
			n.stray(x, "0-7")
			n.waitCPUs(x, cpu)
			if n.drifts() < 2 {
				t.Errorf("counted %v times", n.drifts())
			}
		})
	}
}

func TestAContainerThatCannotBeMovedBackIsReportedOnce(t *testing.T) {
	n := newNode(t, false)
	a, b := n.run("stuck"), n.run("b")
	n.ignore("stuck")
	report := &told{}
	d := n.plugin.newDrift(report)
	n.stray(a, "3")
	for range 2 * driftPatience {
		d.tell(t.Context(), d.differing(t.Context(), nil))
	}
	if said := report.all(); said != "[stuck on 3, not 0-7]" || n.drifts() != 2*driftPatience {
		t.Errorf("the pods were told %s; counted %v times", said, n.drifts())
	}
	n.wantCPUs(b, "0-7")
	n.heed()
	d.tell(t.Context(), d.differing(t.Context(), nil))
	n.waitCPUs(a, "0-7")
	d.tell(t.Context(), d.differing(t.Context(), nil))
	// A new fault is news again.
	n.ignore("stuck")
	n.stray(a, "4")
	for range driftPatience {
		d.tell(t.Context(), d.differing(t.Context(), nil))
	}
	if said := report.all(); said != "[stuck on 3, not 0-7 stuck on 4, not 0-7]" {
		t.Errorf("the pods were told %s", said)
	}
}

func TestContainersInOrderAreLeftAlone(t *testing.T) {
	n := newNode(t, false)
	n.grant("claim", "x", "numa-1", 2)
	n.run("a")
	n.run("x", device("claim"))
	gone := n.run("gone")
	n.removeCgroup(gone)
	created := n.newContainer("created")
	if err := n.create(created); err != nil {
		t.Fatal(err)
	}
	n.stray(created, "") // the runtime has made its cgroup and not filled it
	n.asked()
	d := n.plugin.newDrift(&told{})
	for range 3 {
		d.tell(t.Context(), d.differing(t.Context(), nil))
	}
	if asked := n.asked(); len(asked) > 0 || n.drifts() > 0 {
		t.Errorf("the runtime was asked %v; counted %v times", asked, n.drifts())
	}
}

func TestAContainerFromBeforeMayStayOnIsolatedCPUsThatNobodyHolds(t *testing.T) {
	n := newNode(t, false)
	m := topologytest.New(topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 4, Isolated: "6-7"})
	if err := n.ledger.Replace(m); err != nil {
		t.Fatal(err)
	}
	a := n.run("a")
	d := n.plugin.newDrift(&told{})
	for _, test := range []struct {
		cpus string
		want int
	}{{"0-5", 0}, {"0-7", 0}, {"0-6", 0}, {"0-4,6-7", 1}, {"1-7", 1}} {
		n.stray(a, test.cpus)
		if found := d.differing(t.Context(), nil); len(found) != test.want {
			t.Errorf("on %s: found %v", test.cpus, found)
		}
	}
	held := n.grant("claim", "x", "numa-1-isolated", 1)
	n.stray(a, "0-7")
	if found := d.differing(t.Context(), nil); len(found) != 1 {
		t.Errorf("on the claimed CPU %s: found %v", held, found)
	}
}

// An update that is on its way is no drift.
func TestWhatIsMendedBetweenTwoLooksIsNotCounted(t *testing.T) {
	n := newNode(t, false)
	a := n.run("a")
	n.stray(a, "3")
	d := n.plugin.newDrift(&told{})
	suspects := d.differing(t.Context(), nil)
	if len(suspects) != 1 {
		t.Fatalf("suspects: %v", suspects)
	}
	n.stray(a, "0-7")
	d.tell(t.Context(), d.differing(t.Context(), suspects))
	if n.drifts() > 0 {
		t.Errorf("counted %v times", n.drifts())
	}
}

func TestNothingIsComparedWithoutTheRuntime(t *testing.T) {
	n := newNode(t, false)
	a := n.run("a")
	n.stray(a, "3")
	n.plugin.setNotReady(errEnded)
	if found := n.plugin.newDrift(&told{}).differing(t.Context(), nil); len(found) > 0 {
		t.Errorf("found %v", found)
	}
}

func BenchmarkDrift(b *testing.B) {
	p, r, _, ctrs := crowded(b, false)
	for _, c := range ctrs { // as the pool is beside the claim
		entry, _ := p.ledger.Entry(allocator.ContainerID(c.Id))
		c.Linux.Resources.Cpu.Cpus = entry.Desired.String()
	}
	for _, c := range ctrs {
		r.writeCgroup(&fakeContainer{Container: c, pod: r.pods[c.PodSandboxId]})
	}
	d := p.newDrift(&told{})
	b.ReportAllocs()
	for b.Loop() {
		if found := d.differing(b.Context(), nil); len(found) != 0 {
			b.Fatalf("%d differ", len(found))
		}
	}
}
