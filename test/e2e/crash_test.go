//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/allocator/crashpoint"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

// passing says what makes topolet pass a point.
type passing string

const (
	creation passing = "when a pod with a claim is created"
	deletion passing = "when a pod with a claim is deleted"
	// partitioning happens on the NUMA machine only.
	partitioning passing = "when a container becomes the kernel's to protect"
	// rebinding needs a PCI function behind an IOMMU: the unit tests of package draplugin
	// crash at every moment of it.
	rebinding passing = "when a function changes its driver"
)

// passages of every point.
var passages = map[crashpoint.Point][]passing{
	crashpoint.CheckpointWritten: {creation},
	crashpoint.CheckpointRenamed: {creation, deletion},
	crashpoint.CheckpointSynced:  {creation},
	crashpoint.Granted:           {creation},
	crashpoint.HandoverStored:    {rebinding},
	crashpoint.HandedOver:        {rebinding},
	crashpoint.GivenBack:         {rebinding},
	crashpoint.SpecWritten:       {creation},
	crashpoint.Admitted:          {creation},
	crashpoint.PartitionPrepared: {partitioning},
	crashpoint.PartitionMade:     {partitioning},
	crashpoint.Verified:          {creation, partitioning},
	crashpoint.ReleaseStored:     {deletion},
	crashpoint.SpecRemoved:       {deletion},
}

// TestACrashAtEveryPoint kills topolet between each two of its lasting effects, in a
// build of it that can be told where to die.
func TestACrashAtEveryPoint(t *testing.T) {
	topoletBuild := func(ctx context.Context, flags ...string) {
		if _, err := cluster.Testbed(ctx, append([]string{"up"}, flags...)...); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), restartLimit)
		defer cancel()
		topoletBuild(ctx)
		p, err := daemon(ctx)
		if err != nil {
			t.Fatal(err)
		}
		deletePod(ctx, t, harness.Namespace, p.Name)
		if err := harness.Wait(ctx, restartLimit, "the ordinary topolet to be ready", func(ctx context.Context) error {
			p, err := daemon(ctx)
			if err == nil && (len(p.Status.ContainerStatuses) != 1 || !p.Status.ContainerStatuses[0].Ready) {
				err = fmt.Errorf("pod %s is not", p.Name)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	})
	topoletBuild(t.Context(), "--topolet-tags", "crashpoints")
	for _, point := range crashpoint.All() {
		if len(passages[point]) == 0 {
			t.Errorf("nothing here makes topolet pass the point %s", point)
		}
		for _, when := range passages[point] {
			if when == partitioning || when == rebinding {
				continue
			}
			t.Run(fmt.Sprintf("%s %s", point, when), func(t *testing.T) { crashAt(t, point, when) })
		}
	}
}

func crashAt(t *testing.T, point crashpoint.Point, when passing) {
	ns := namespace(t)
	replaceDaemon(t, nil) // the kubelet restarts a new one at once when it dies
	first, second := podOf("first"), podOf("second")
	before := start(t, ns, first).Allowed
	claimFor(t, ns, "one", "1")
	exclusive := podOf("exclusive", "one")
	if when == creation {
		arm(t, point)
		create(t, ns, exclusive)
	} else {
		start(t, ns, exclusive)
		arm(t, point)
		if _, err := cluster.Kubectl(t.Context(), "delete", "pod", "exclusive", "--namespace", ns, "--wait=false"); err != nil {
			t.Fatal(err)
		}
	}
	create(t, ns, second)
	waitCrash(t, point)

	running(t, ns, "second", "main")
	if when == creation {
		// After a failed Prepare the kubelet looks at the pod again within a minute
		// and a half, or when the pod changes.
		if _, err := cluster.Kubectl(t.Context(), "label", "pod", "exclusive", "--namespace", ns, "look=again"); err != nil {
			t.Fatal(err)
		}
		k := running(t, ns, "exclusive", "main")
		held := granted(t, ns, "one")
		if !k.Allowed.Equals(held) || !k.Cgroup.Equals(held) {
			t.Errorf("granted %s; processes run on %s, the cgroup on %s", held, k.Allowed, k.Cgroup)
		}
		if said := lines(t, ns, "exclusive"); len(said) != 1 || said[0].CPUsAllowed != held.String() {
			t.Errorf("granted %s; the workload has seen %+v", held, said)
		}
		if all := grants(t); len(all) != 1 {
			t.Errorf("grants: %+v", all)
		}
		changeTo(t, ns, "first", before.Difference(held))
		changeTo(t, ns, "second", before.Difference(held))
		alone(t, ns, "exclusive", held)
	}
	deletePod(t.Context(), t, ns, "exclusive")
	nothingHeld(t)
	changeTo(t, ns, "first", before)
	changeTo(t, ns, "second", before)
	var been []string
	for _, line := range lines(t, ns, "first") {
		been = append(been, line.CPUsAllowed)
	}
	if len(been) != 3 || been[0] != before.String() || been[2] != before.String() {
		t.Errorf("the pod beside was moved: %v; want once off the claim's CPU, and once back", been)
	}

	// What was free is also given again.
	claimFor(t, ns, "all", fmt.Sprint(claimable(t.Context(), t)))
	start(t, ns, podOf("all", "all"))
}

// arm has topolet die at a point.
func arm(t *testing.T, point crashpoint.Point) {
	t.Helper()
	if err := os.WriteFile(armed(), []byte(point), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(armed()) }) //nolint:errcheck // gone when the point was reached
}

func armed() string { return filepath.Join(cluster.StateDir(), crashpoint.FileName) }

// waitCrash waits until topolet has died at the point and is ready again.
func waitCrash(t *testing.T, point crashpoint.Point) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("topolet to die at the point %s", point), func(context.Context) error {
		if _, err := os.Stat(armed()); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("it has not been there: %w", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	waitDaemon(t, 1)
}

// alone fails the test if anybody but the pod may run on the CPUs.
func alone(t *testing.T, namespace, pod string, cpus topology.CPUSet) {
	t.Helper()
	kernels, err := cluster.Kernels(t.Context(), cluster.Node())
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range kernels {
		if !strings.HasPrefix(name, namespace+"/"+pod+"/") && (k.Allowed.Intersects(cpus) || k.Cgroup.Intersects(cpus)) {
			t.Errorf("%s may run on %s, its cgroup on %s; CPUs %s are claimed", name, k.Allowed, k.Cgroup, cpus)
		}
	}
}

// nothingHeld waits until no claim has left anything: no grant, no CDI spec.
func nothingHeld(t *testing.T) {
	t.Helper()
	waitReleased(t.Context(), t)
	if err := harness.Wait(t.Context(), deleteLimit, "the CDI specs of all claims to be gone", func(context.Context) error {
		files := slices.DeleteFunc(cdiFiles(t), func(name string) bool { return !strings.HasPrefix(name, "topolet.dev-claim_") })
		if len(files) > 0 {
			return fmt.Errorf("there are %v", files)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(cluster.StateDir())
	if err != nil {
		t.Fatal(err)
	}
	// Those of devices stay from an installation that had some.
	complete := []string{"checkpoint.json", "lock", "status.sock", "hook", "fatal-errors.json", "gpu-memory.json"}
	for _, e := range entries {
		if !slices.Contains(complete, e.Name()) {
			t.Errorf("the state folder has %s", e.Name())
		}
	}
}

// TestAPartEndsInTheMiddleOfACreation kills the kubelet and the container runtime
// while the containers of a pod with a claim are created one after the other.
func TestAPartEndsInTheMiddleOfACreation(t *testing.T) {
	for _, name := range []string{"containerd", "kubelet"} {
		t.Run(name, func(t *testing.T) {
			ns := namespace(t)
			before := start(t, ns, podOf("plain")).Allowed
			claimFor(t, ns, "one", "1")
			p := podOf("exclusive", "one")
			for i := range 12 {
				first := workload(fmt.Sprintf("first-%d", i), "one")
				first.Args = []string{"-for=50ms"}
				p.Spec.InitContainers = append(p.Spec.InitContainers, first)
			}
			create(t, ns, p)
			if err := harness.Wait(t.Context(), startLimit, "the claim to be granted", func(context.Context) error {
				if len(grants(t)) == 0 {
					return errors.New("there is no grant")
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := cluster.Testbed(t.Context(), "kill", name); err != nil {
				t.Fatal(err)
			}
			if err := cluster.Running(t.Context(), ns, "exclusive", "main"); err == nil {
				t.Error("all containers were there already")
			}
			if _, err := cluster.Testbed(t.Context(), "start", name); err != nil {
				t.Fatal(err)
			}
			waitDaemon(t, 0)
			k, held := running(t, ns, "exclusive", "main"), granted(t, ns, "one")
			if !k.Allowed.Equals(held) || !k.Cgroup.Equals(held) {
				t.Errorf("granted %s; processes run on %s, the cgroup on %s", held, k.Allowed, k.Cgroup)
			}
			changeTo(t, ns, "plain", before.Difference(held))
			alone(t, ns, "exclusive", held)
			deletePod(t.Context(), t, ns, "exclusive")
			nothingHeld(t)
			changeTo(t, ns, "plain", before)
		})
	}
}

// TestABadGrantDoesNotTouchTheOthers starts topolet on a checkpoint to which grants
// were added by hand: two that cannot be believed, and one of a claim that does not
// exist.
func TestABadGrantDoesNotTouchTheOthers(t *testing.T) {
	ns := namespace(t)
	start(t, ns, podOf("plain"))
	claimFor(t, ns, "held", "1")
	start(t, ns, podOf("exclusive", "held"))
	before, good := placements(t), readCheckpoint(t)
	bad := `{"version": 1, "grants": [{"uid": "../evil", "surprise": 1}, {"uid": "no-parts", "parts": []}, `
	replaceDaemonWith(t, strings.Replace(strings.Join(strings.Fields(good), " "), `{ "version": 1, "grants": [`, bad, 1))
	if diff := cmp.Diff(before, placements(t)); diff != "" {
		t.Errorf("CPUs -before +after:\n%s", diff)
	}
	if diff := cmp.Diff(good, readCheckpoint(t)); diff != "" {
		t.Errorf("ledger -before +after:\n%s", diff)
	}
	aside := asideFiles(t)
	if len(aside) != 1 {
		t.Fatalf("kept files: %v", aside)
	}
	nodeEvent(t, "CheckpointGrantsUnusable", aside[0])
	if err := os.Remove(aside[0]); err != nil {
		t.Fatal(err)
	}
}

// TestAForgottenClaimIsReleased starts topolet on a grant of a claim that does not
// exist, as after a force-deleted pod and a lost state of the kubelet.
func TestAForgottenClaimIsReleased(t *testing.T) {
	ns := namespace(t)
	before := start(t, ns, podOf("plain")).Allowed
	cpu := topology.NewCPUSet(before.List()[before.Size()-1])
	replaceDaemonWith(t, fmt.Sprintf(`{"version": 1, "grants": [{"uid": "forgotten", "namespace": %q, "name": "forgotten", "pods": ["p"],
		"parts": [{"request": "cpus", "domain": "numa-0", "count": 1, "cpus": %q}]}]}`, ns, cpu))
	changeTo(t, ns, "plain", before.Difference(cpu))
	nothingHeld(t)
	changeTo(t, ns, "plain", before)
}

// TestAContainerThatIsMovedFromOutsideIsMovedBack writes to a container's cgroup as
// somebody on the host may.
func TestAContainerThatIsMovedFromOutsideIsMovedBack(t *testing.T) {
	ns := namespace(t)
	before := start(t, ns, podOf("plain")).Allowed
	claimFor(t, ns, "one", "1")
	held := start(t, ns, podOf("exclusive", "one")).Allowed
	dir, err := cluster.CgroupOf(t.Context(), ns, "exclusive", "main")
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Node().WriteFile(filepath.Join(dir, "cpuset.cpus"), before.String()); err != nil {
		t.Fatal(err)
	}
	if err := harness.Wait(t.Context(), startLimit, "the exclusive pod to be on its CPUs again", func(ctx context.Context) error {
		k, err := cluster.Kernel(ctx, ns, "exclusive", "main")
		if err == nil && (!k.Allowed.Equals(held) || !k.Cgroup.Equals(held)) {
			err = fmt.Errorf("it runs on %s, its cgroup on %s", k.Allowed, k.Cgroup)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	changeTo(t, ns, "exclusive", held)
	said := lines(t, ns, "exclusive")
	if len(said) != 3 {
		t.Fatalf("the exclusive pod has seen %+v", said)
	}
	t.Logf("moved to %s, and back %s later", said[1].CPUsAllowed, said[2].Time.Sub(said[1].Time))
}
