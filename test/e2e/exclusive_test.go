//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

func TestAClaimedCPUIsTheContainersAlone(t *testing.T) {
	ns := namespace(t)
	before := start(t, ns, podOf("plain")).Allowed
	claimFor(t, ns, "one", "1")
	k := start(t, ns, podOf("exclusive", "one"))
	cpu := granted(t, ns, "one")

	if !k.Allowed.Equals(cpu) || !k.Cgroup.Equals(cpu) {
		t.Errorf("granted %s; the kernel says processes %s, cgroup %s", cpu, k.Allowed, k.Cgroup)
	}
	if !cpu.IsSubsetOf(before) {
		t.Errorf("granted %s, which the plain pod did not have before (%s): nothing was taken from it", cpu, before)
	}
	kernels, err := cluster.Kernels(t.Context(), cluster.Node())
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range kernels {
		if name != ns+"/exclusive/main" && (other.Allowed.Intersects(cpu) || other.Cgroup.Intersects(cpu)) {
			t.Errorf("%s may run on %s, its cgroup on %s", name, other.Allowed, other.Cgroup)
		}
	}

	first := lines(t, ns, "exclusive")[0]
	if first.Event != "start" || first.CPUsAllowed != cpu.String() {
		t.Errorf("at its first instruction the workload had %+v", first)
	}
	left := changeTo(t, ns, "plain", before.Difference(cpu))
	t.Logf("the plain pod left CPU %s %s before the exclusive workload's first instruction", cpu, first.Time.Sub(left))
	if !left.Before(first.Time) {
		t.Errorf("the plain pod left CPU %s at %s, the exclusive workload started at %s", cpu, left, first.Time)
	}

	gone := deletePod(t.Context(), t, ns, "exclusive")
	back := changeTo(t, ns, "plain", before)
	t.Logf("the plain pod got CPU %s back %s after the pod was gone", cpu, back.Sub(gone))
	if back.Sub(gone) > 2*time.Second {
		t.Errorf("the plain pod got CPU %s back only %s after the pod was gone", cpu, back.Sub(gone))
	}
}

// changeTo waits until the last line of a workload's log says that it runs on
// exactly these CPUs, and returns the line's time.
func changeTo(t *testing.T, namespace, pod string, cpus topology.CPUSet) time.Time {
	t.Helper()
	var at time.Time
	if err := harness.Wait(t.Context(), 10*time.Second, fmt.Sprintf("pod %s to run on %s", pod, cpus), func(ctx context.Context) error {
		all, err := cluster.Lines(ctx, namespace, pod, "main")
		if err != nil || len(all) == 0 {
			return fmt.Errorf("no log: %w", err)
		}
		last := all[len(all)-1]
		if last.CPUsAllowed != cpus.String() {
			return fmt.Errorf("it runs on %s", last.CPUsAllowed)
		}
		at = last.Time
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return at
}

// lines returns a workload's log, which has at least one line.
func lines(t *testing.T, namespace, pod string) []harness.Line {
	t.Helper()
	var all []harness.Line
	if err := harness.Wait(t.Context(), startLimit, "the log of pod "+pod, func(ctx context.Context) (err error) {
		if all, err = cluster.Lines(ctx, namespace, pod, "main"); err == nil && len(all) == 0 {
			err = fmt.Errorf("it is empty")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAClaimThatDoesNotFitStaysPending(t *testing.T) {
	ns := namespace(t)
	n := claimable(t.Context(), t)
	failedBefore := failedPrepares(t)

	claimFor(t, ns, "too-large", fmt.Sprint(n+1))
	create(t, ns, podOf("too-large", "too-large"))
	unschedulable(t, ns, "too-large")

	claimFor(t, ns, "all", fmt.Sprint(n))
	start(t, ns, podOf("all", "all"))
	claimFor(t, ns, "one-more", "1")
	create(t, ns, podOf("one-more", "one-more"))
	unschedulable(t, ns, "one-more")

	deletePod(t.Context(), t, ns, "all")
	k := running(t, ns, "one-more", "main")
	if !k.Allowed.Equals(granted(t, ns, "one-more")) {
		t.Errorf("granted %s, runs on %s", granted(t, ns, "one-more"), k.Allowed)
	}
	if failed := failedPrepares(t) - failedBefore; failed != 0 {
		t.Errorf("%d claims reached Prepare and failed there", failed)
	}
}

// unschedulable waits until the scheduler has said that a pod fits nowhere.
func unschedulable(t *testing.T, namespace, pod string) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, "the scheduler to refuse pod "+pod, func(ctx context.Context) error {
		p, err := cluster.Client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable && strings.Contains(c.Message, "claim") {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", p.Status.Conditions)
	}); err != nil {
		t.Fatal(err)
	}
}
