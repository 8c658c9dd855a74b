//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/test/harness"
)

// TestNothingMovesWhenAPartRestarts holds the node's containers and the ledger
// against themselves across the end of each part.
func TestNothingMovesWhenAPartRestarts(t *testing.T) {
	for name, restart := range map[string]func(*testing.T){
		"topolet killed":      func(t *testing.T) { killDaemon(t, nil) },
		"containerd killed":   func(t *testing.T) { restartComponent(t, "containerd") },
		"the kubelet killed":  func(t *testing.T) { restartComponent(t, "kubelet") },
		"topolet put in anew": func(t *testing.T) { replaceDaemon(t, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			ns := namespace(t)
			start(t, ns, podOf("plain"))
			claimFor(t, ns, "held", "1")
			held := start(t, ns, podOf("exclusive", "held")).Allowed
			before, ledger := placements(t), readCheckpoint(t)

			restart(t)

			if diff := cmp.Diff(before, placements(t)); diff != "" {
				t.Errorf("CPUs -before +after:\n%s", diff)
			}
			if diff := cmp.Diff(ledger, readCheckpoint(t)); diff != "" {
				t.Errorf("ledger -before +after:\n%s", diff)
			}
			if got := lines(t, ns, "exclusive"); len(got) != 1 {
				t.Errorf("the exclusive workload was moved: %+v", got)
			}

			claimFor(t, ns, "further", "1")
			create(t, ns, podOf("further", "further"))
			if claimable(t.Context(), t) > 1 {
				if got := running(t, ns, "further", "main").Allowed; got.Intersects(held) {
					t.Errorf("a further claim got %s, of which %s are held", got, held)
				}
				return
			}
			// The node has no further CPU to give, until the first claim ends.
			unschedulable(t, ns, "further")
			deletePod(t.Context(), t, ns, "exclusive")
			if got := running(t, ns, "further", "main").Allowed; !got.Equals(granted(t, ns, "further")) {
				t.Errorf("the further claim was granted %s and runs on %s", granted(t, ns, "further"), got)
			}
		})
	}
}

// restartComponent kills a part of the testbed, starts it again and waits until
// topolet serves claims through it.
func restartComponent(t *testing.T, name string) {
	t.Helper()
	for _, verb := range []string{"kill", "start"} {
		if _, err := cluster.Testbed(t.Context(), verb, name); err != nil {
			t.Fatal(err)
		}
	}
	waitDaemon(t, 0)
}

func TestAClaimPreparedBeforeAKillIsServedAfterIt(t *testing.T) {
	ns := namespace(t)
	start(t, ns, podOf("plain"))
	claimFor(t, ns, "one", "1")
	// The claim is prepared for the pod as a whole, before its first container:
	// an init container without the claim holds the others back.
	p := podOf("late", "one")
	p.Spec.InitContainers = append(p.Spec.InitContainers, workload("first"))
	create(t, ns, p)
	first := running(t, ns, "late", "first")
	cpu := granted(t, ns, "one")
	if first.Allowed.Intersects(cpu) {
		t.Errorf("the init container without the claim runs on %s, of which %s are claimed", first.Allowed, cpu)
	}

	killDaemon(t, nil)
	for _, pid := range first.Pids {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if got := running(t, ns, "late", "main"); !got.Allowed.Equals(cpu) || !got.Cgroup.Equals(cpu) {
		t.Errorf("prepared with %s, runs on %s, cgroup %s", cpu, got.Allowed, got.Cgroup)
	}
	if diff := cmp.Diff(cpu.String(), granted(t, ns, "one").String()); diff != "" {
		t.Errorf("grant -before +after:\n%s", diff)
	}
}

func TestAContainerThatRestartsKeepsItsCPUs(t *testing.T) {
	ns := namespace(t)
	plain := start(t, ns, podOf("plain"))
	claimFor(t, ns, "one", "1")
	k := start(t, ns, podOf("exclusive", "one"))
	cpu := granted(t, ns, "one")
	for _, pid := range k.Pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := harness.Wait(t.Context(), startLimit, "another process of the container", func(ctx context.Context) error {
		again, err := cluster.Kernel(ctx, ns, "exclusive", "main")
		switch {
		case err != nil:
			return err
		case len(again.Pids) == 0 || slices.Equal(again.Pids, k.Pids):
			return fmt.Errorf("processes %v", again.Pids)
		case !again.Allowed.Equals(cpu):
			t.Errorf("granted %s; after its restart the container runs on %s", cpu, again.Allowed)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, line := range lines(t, ns, "plain")[1:] {
		if line.CPUsAllowed != plain.Allowed.Difference(cpu).String() {
			t.Errorf("the plain pod was let onto a claimed CPU between two runs of its container: %+v", line)
		}
	}
}
