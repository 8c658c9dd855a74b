//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator/crashpoint"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

// crashingImage has topolet built so that it can be told where to die.
const crashingImage = "docker.io/topolet/topolet-crashing:test"

// crashesOnMachine kills topolet on the NUMA machine at the steps in which a container's
// cgroup becomes a partition.
func crashesOnMachine(t *testing.T, node harness.Node) {
	const patch = `{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":%s},"containers":[{"name":"topolet","image":%q}]}}}}`
	set := func(ctx context.Context, host, image string) {
		t.Helper()
		for _, args := range [][]string{
			{"patch", "daemonset/topolet", "--namespace", harness.Namespace, "--patch", fmt.Sprintf(patch, host, image)},
			{"rollout", "status", "daemonset/topolet", "--namespace", harness.Namespace, "--timeout=" + restartLimit.String()},
		} {
			if _, err := cluster.Kubectl(ctx, args...); err != nil {
				t.Fatal(err)
			}
		}
	}
	before, err := cluster.Client.AppsV1().DaemonSets(harness.Namespace).Get(t.Context(), "topolet", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer set(context.Background(), "null", before.Spec.Template.Spec.Containers[0].Image)
	set(t.Context(), fmt.Sprintf("%q", node.Name), crashingImage)

	ns := namespace(t)
	beside := startIdle(t, node, ns, "beside", 1)
	for _, point := range crashpoint.All() {
		if slices.Contains(passages[point], partitioning) {
			t.Run(string(point), func(t *testing.T) { crashOnMachineAt(t, node, ns, beside, point) })
		}
	}
	deletePod(t.Context(), t, ns, "beside")
}

func crashOnMachineAt(t *testing.T, node harness.Node, ns string, beside exclusivePod, point crashpoint.Point) {
	replaceDaemonOn(t, node)
	file := path.Join(cluster.StateDir(), crashpoint.FileName)
	if err := node.WriteFile(file, string(point)); err != nil {
		t.Fatal(err)
	}
	name := string(point)
	claimFor(t, ns, name, "2", atNUMANode(1))
	p := podOn(node, name, name)
	p.Spec.Containers[0].Args = []string{"-interval=1h"}
	create(t, ns, p)
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("topolet to die at the point %s", point), func(context.Context) error {
		if _, err := node.ReadFile(file); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("it has not been there: %w", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	cpus := running(t, ns, name, "main").Allowed
	waitDaemonOn(t, node, "topolet", func(p corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount > 0 })
	waitEnforced(t, node, ns, name, cpus)
	waitEnforced(t, node, ns, "beside", beside.cpus)
	if cpus.Size() != 2 || cpus.Intersects(beside.cpus) {
		t.Errorf("the pod runs on CPUs %s, the one beside it on %s", cpus, beside.cpus)
	}
	deletePod(t.Context(), t, ns, name)
	kubepods := path.Dir(path.Dir(path.Dir(beside.dir)))
	waitFile(t, node, kubepods+"/"+exclusiveFile, beside.cpus.String())
}

// waitEnforced waits until the kernel keeps everyone off the CPUs of a pod's container
// main, and topolet says so.
func waitEnforced(t *testing.T, node harness.Node, ns, pod string, cpus topology.CPUSet) {
	t.Helper()
	dir, err := cluster.CgroupOf(t.Context(), ns, pod, "main")
	if err != nil {
		t.Fatal(err)
	}
	waitFile(t, node, dir+"/"+partitionFile, "root")
	waitFile(t, node, dir+"/cpuset.cpus.effective", cpus.String())
	waitConditions(t, ns, pod, "Enforced=True Kernel")
}

// replaceDaemonOn has a new topolet on a node, whose container was never restarted: the
// kubelet starts it again at once when it dies.
func replaceDaemonOn(t *testing.T, node harness.Node) {
	t.Helper()
	old, err := daemonOn(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Client.CoreV1().Pods(harness.Namespace).Delete(t.Context(), old.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](5)}); err != nil {
		t.Fatal(err)
	}
	waitDaemonOn(t, node, "a new topolet", func(p corev1.Pod) bool { return p.UID != old.UID })
}

func daemonOn(ctx context.Context, node harness.Node) (corev1.Pod, error) {
	pods, err := cluster.Client.CoreV1().Pods(harness.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node.Name})
	if err != nil {
		return corev1.Pod{}, err
	}
	if len(pods.Items) != 1 {
		return corev1.Pod{}, fmt.Errorf("there are %d", len(pods.Items))
	}
	return pods.Items[0], nil
}

func waitDaemonOn(t *testing.T, node harness.Node, what string, is func(corev1.Pod) bool) {
	t.Helper()
	if err := harness.Wait(t.Context(), restartLimit, what+" to be ready", func(ctx context.Context) error {
		p, err := daemonOn(ctx, node)
		if err != nil {
			return err
		}
		if len(p.Status.ContainerStatuses) != 1 || !p.Status.ContainerStatuses[0].Ready || !is(p) {
			return fmt.Errorf("pod %s is not: %+v", p.Name, p.Status.ContainerStatuses)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// powerLoss cuts the power of the machine: afterwards its pods have the CPUs that they had,
// nobody else has them, and who waited is served.
func powerLoss(t *testing.T, node harness.Node) {
	ns := namespace(t)
	held := map[string]topology.CPUSet{}
	for i, name := range []string{"first", "second"} {
		held[name] = startIdle(t, node, ns, name, i+1).cpus
	}
	start(t, ns, podOn(node, "plain"))
	claimFor(t, ns, "pending", "2", atNUMANode(3))
	if _, err := cluster.Testbed(t.Context(), "numa", "reset"); err != nil {
		t.Fatal(err)
	}
	create(t, ns, podOn(node, "pending", "pending"))
	waitDaemonOn(t, node, "topolet", func(p corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount > 0 })
	// After a failed Prepare the kubelet looks at a pod again within a minute and a half,
	// or when the pod changes.
	if _, err := cluster.Kubectl(t.Context(), "label", "pods", "--all", "--namespace", ns, "look=again"); err != nil {
		t.Fatal(err)
	}
	held["pending"] = running(t, ns, "pending", "main").Allowed
	var taken topology.CPUSet
	for name, cpus := range held {
		if got := running(t, ns, name, "main").Allowed; !got.Equals(cpus) {
			t.Errorf("pod %s had CPUs %s and has %s", name, cpus, got)
		}
		waitEnforced(t, node, ns, name, cpus)
		if cpus.Intersects(taken) {
			t.Errorf("pod %s has CPUs %s, of which others have %s", name, cpus, cpus.Intersection(taken))
		}
		taken = taken.Union(cpus)
	}
	if plain := running(t, ns, "plain", "main"); plain.Allowed.Intersects(taken) {
		t.Errorf("the pod without a claim may run on %s, claims hold %s", plain.Allowed, taken)
	}
}
