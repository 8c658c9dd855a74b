//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/test/harness"
)

// TestAlphaFeatures switches on the feature gates for what topolet publishes only
// when it is asked to. Its file's name puts it last: the kubelet starts anew.
func TestAlphaFeatures(t *testing.T) {
	gates := func(value string) error {
		ctx, cancel := context.WithTimeout(context.Background(), restartLimit)
		defer cancel()
		_, err := cluster.Testbed(ctx, "up", "--feature-gates", value)
		return err
	}
	ns := namespace(t)
	install(t, "config.nodeAllocatable=true", "config.listAttributes=true")
	nodeEvent(t, "FeatureGatesOff", "DRANodeAllocatableResources")
	claimFor(t, ns, "one", "1")
	// What the scheduler was asked to count it does not: the pod is told again.
	start(t, ns, podOf("uncounted", "one"))
	waitEvent(t, ns, "uncounted", "field resources.requests[cpu]: 0 is less than the 1")
	deletePod(t.Context(), t, ns, "uncounted")

	t.Cleanup(func() {
		if err := gates(""); err != nil {
			t.Error(err)
		}
	})
	if err := gates("DRANodeAllocatableResources=true,DRAListTypeAttributes=true"); err != nil {
		t.Fatal(err)
	}
	if err := harness.Wait(t.Context(), startLimit, "the node to offer its CPU, counted by the scheduler", func(ctx context.Context) error {
		devices, err := published(ctx, cluster.Var("TESTBED_NODE"))
		if err != nil {
			return err
		}
		for name, d := range devices {
			if len(d.NodeAllocatableResources) == 0 {
				return fmt.Errorf("device %s counts as nothing", name)
			}
		}
		if len(devices) == 0 {
			return errors.New("it offers nothing")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	start(t, ns, podOf("counted", "one"))
	// The claim counts: one CPU of the node's is left to request, less what others have.
	greedy := podOf("greedy")
	node, err := cluster.Client.CoreV1().Nodes().Get(t.Context(), cluster.Var("TESTBED_NODE"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	most := node.Status.Allocatable.Cpu().DeepCopy()
	most.Sub(resource.MustParse("600m"))
	greedy.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: most}
	create(t, ns, greedy)
	waitEvent(t, ns, "greedy", "Insufficient cpu")
	deletePod(t.Context(), t, ns, "counted")
	running(t, ns, "greedy", "main")
	if told := eventsOf(t, ns, "counted", "RequestsTooLow"); len(told) > 0 {
		t.Errorf("a pod whose claim the scheduler counts was told %q", told)
	}
}
