//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Init containers, sidecars and main containers may name a claim of their pod;
// ephemeral containers may not, and a debugger beside an exclusive container does not
// disturb it.
func TestEveryKindOfContainerRunsWhereItOught(t *testing.T) {
	ns := namespace(t)
	claimFor(t, ns, "one", "1")
	p := podOf("kinds", "one")
	first, sidecar := workload("first", "one"), workload("sidecar", "one")
	first.Args = []string{"-for=50ms"}
	sidecar.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	p.Spec.InitContainers = []corev1.Container{first, sidecar}
	create(t, ns, p)
	for _, container := range []string{"main", "sidecar"} {
		k, cpu := running(t, ns, "kinds", container), granted(t, ns, "one")
		if !k.Allowed.Equals(cpu) || !k.Cgroup.Equals(cpu) {
			t.Errorf("container %s runs on %s, cgroup %s; the claim has %s", container, k.Allowed, k.Cgroup, cpu)
		}
	}
	cpu := granted(t, ns, "one")
	said, err := cluster.Lines(t.Context(), ns, "kinds", "first")
	if err != nil || len(said) == 0 {
		t.Fatalf("the log of the init container: %v, %v", said, err)
	}
	for _, line := range said {
		if line.CPUsAllowed != cpu.String() {
			t.Errorf("the init container ran on %s; the claim has %s", line.CPUsAllowed, cpu)
		}
	}

	pods := cluster.Client.CoreV1().Pods(ns)
	p, err = pods.Get(t.Context(), "kinds", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	debug := corev1.EphemeralContainerCommon(workload("debug", "one"))
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: debug}}
	_, err = pods.UpdateEphemeralContainers(t.Context(), "kinds", p, metav1.UpdateOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "ephemeralContainers[0].resources") {
		t.Errorf("an ephemeral container that names the claim: %v", err)
	}
	p.Spec.EphemeralContainers[0].Resources = corev1.ResourceRequirements{}
	if _, err := pods.UpdateEphemeralContainers(t.Context(), "kinds", p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if k, pool := running(t, ns, "kinds", "debug"), online(t, cluster.Node()).Difference(cpu); !k.Allowed.Equals(pool) || !k.Cgroup.Equals(pool) {
		t.Errorf("the ephemeral container runs on %s, cgroup %s; the shared pool is %s", k.Allowed, k.Cgroup, pool)
	}
	if k := running(t, ns, "kinds", "main"); !k.Allowed.Equals(cpu) {
		t.Errorf("beside the ephemeral container main runs on %s; the claim has %s", k.Allowed, cpu)
	}
}

func TestAClaimThatNoContainerNamesIsNobodyElses(t *testing.T) {
	ns := namespace(t)
	before := start(t, ns, podOf("beside")).Allowed
	claimFor(t, ns, "one", "1")
	p := podOf("unnamed", "one")
	p.Spec.Containers[0].Resources.Claims = nil
	k := start(t, ns, p)
	cpu := granted(t, ns, "one")
	if cpu.IsEmpty() || k.Allowed.Intersects(cpu) {
		t.Errorf("the container that does not name the claim runs on %s, of which the claim has %s", k.Allowed, cpu)
	}
	changeTo(t, ns, "beside", before.Difference(cpu))
	claimFor(t, ns, "rest", fmt.Sprint(claimable(t.Context(), t)))
	create(t, ns, podOf("rest", "rest"))
	unschedulable(t, ns, "rest")
	deletePod(t.Context(), t, ns, "rest")
	deletePod(t.Context(), t, ns, "unnamed")
	changeTo(t, ns, "beside", before)
}
