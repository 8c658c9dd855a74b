//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/topolet/topolet/test/harness"
)

// TestAResizedContainerKeepsItsCPUs has the kubelet change something else of a
// claimed container and of a shared one while they run.
func TestAResizedContainerKeepsItsCPUs(t *testing.T) {
	ns := namespace(t)
	claimFor(t, ns, "one", "1")
	for _, p := range []*corev1.Pod{podOf("exclusive", "one"), podOf("plain")} {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")}
		start(t, ns, p)
	}
	before := placements(t)
	for _, pod := range []string{"exclusive", "plain"} {
		patch := `{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"20m"}}}]}}`
		if _, err := cluster.Client.CoreV1().Pods(ns).Patch(t.Context(), pod, types.StrategicMergePatchType, []byte(patch),
			metav1.PatchOptions{}, "resize"); err != nil {
			t.Fatal(err)
		}
		if err := harness.Wait(t.Context(), startLimit, "pod "+pod+" to be resized", func(ctx context.Context) error {
			p, err := cluster.Client.CoreV1().Pods(ns).Get(ctx, pod, metav1.GetOptions{})
			if err != nil {
				return err
			}
			got := p.Status.ContainerStatuses[0].Resources
			if got == nil || got.Requests.Cpu().String() != "20m" {
				return fmt.Errorf("resources %+v, conditions %+v", got, p.Status.Conditions)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	after := placements(t)
	for name, cpus := range before {
		if after[name] != cpus {
			t.Errorf("%s ran on %s and runs on %s", name, cpus, after[name])
		}
	}
	if got := lines(t, ns, "exclusive"); len(got) != 1 {
		t.Errorf("the exclusive workload was moved: %+v", got)
	}
}
