//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// requesting is a pod of the claim one, with a CPU request of its container.
func requesting(name, cpu string) *corev1.Pod {
	p := podOf(name, "one")
	if cpu != "" {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
	return p
}

// TestAPodThatRequestsLessThanItsClaimsHold is told by default, and refused where
// that is configured.
func TestAPodThatRequestsLessThanItsClaimsHold(t *testing.T) {
	ns := namespace(t)
	claimFor(t, ns, "one", "1")
	start(t, ns, requesting("low", "500m"))
	waitEvent(t, ns, "low", "field resources.requests[cpu]: 500m is less than the 1 that its claims hold: set it to 1")
	deletePod(t.Context(), t, ns, "low")
	start(t, ns, requesting("enough", "1"))
	if told := eventsOf(t, ns, "enough", "RequestsTooLow"); len(told) > 0 {
		t.Errorf("a pod that requests enough was told %q", told)
	}
	deletePod(t.Context(), t, ns, "enough")

	install(t, "config.cpuRequests=Refuse")
	create(t, ns, requesting("refused", ""))
	waitEvent(t, ns, "refused", "field resources.requests[cpu]: 0 is less than the 1")
	p, err := cluster.Client.CoreV1().Pods(ns).Get(t.Context(), "refused", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s := p.Status.ContainerStatuses; len(s) != 1 || s[0].State.Waiting == nil {
		t.Errorf("its container is %+v", s)
	}
	deletePod(t.Context(), t, ns, "refused")
	start(t, ns, requesting("accepted", "1"))
}

// install has topolet run with these values of the chart until the test ends.
func install(t *testing.T, values ...string) {
	t.Helper()
	t.Cleanup(func() {
		if err := cluster.Install(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := cluster.Install(t.Context(), values...); err != nil {
		t.Fatal(err)
	}
}

// eventsOf are the messages of a pod's events with a reason.
func eventsOf(t *testing.T, namespace, pod, reason string) []string {
	t.Helper()
	events, err := cluster.Client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{
		FieldSelector: fmt.Sprintf("involvedObject.name=%s,reason=%s", pod, reason),
	})
	if err != nil {
		t.Fatal(err)
	}
	var messages []string
	for _, e := range events.Items {
		messages = append(messages, e.Message)
	}
	return messages
}

// TestPodsShareAClaimOnlyWhereItSaysSo has two pods name one claim.
func TestPodsShareAClaimOnlyWhereItSaysSo(t *testing.T) {
	ns := namespace(t)
	claimFor(t, ns, "one", "1")
	first := start(t, ns, podOf("first", "one"))
	create(t, ns, podOf("second", "one"))
	waitEvent(t, ns, "second", "which belongs to another pod")
	if got := running(t, ns, "first", "main"); !got.Allowed.Equals(first.Allowed) {
		t.Errorf("the first pod ran on %s and runs on %s", first.Allowed, got.Allowed)
	}
	for _, pod := range []string{"first", "second"} {
		deletePod(t.Context(), t, ns, pod)
	}

	claimFor(t, ns, "many", "1", withParameters(`{"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig","sharing":"ManyPods"}`))
	third := start(t, ns, podOf("third", "many"))
	fourth := start(t, ns, podOf("fourth", "many"))
	if !third.Allowed.Equals(fourth.Allowed) || third.Allowed.Size() != 1 {
		t.Errorf("the pods of one claim run on %s and %s", third.Allowed, fourth.Allowed)
	}
	deletePod(t.Context(), t, ns, "third")
	if got := granted(t, ns, "many"); !got.Equals(fourth.Allowed) {
		t.Errorf("after the first of its pods the claim holds %s", got)
	}
}
