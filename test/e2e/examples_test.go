//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/topolet/topolet/topology"
)

// needsCPUs is the annotation by which an example says how many claimable CPUs
// it takes to run.
const needsCPUs = "topolet.dev/needs-cpus"

// TestExamples runs every example as it is: applied by kubectl, each container on
// exactly the CPUs that the example's comment promises. Those that need more
// CPUs than this node can give run on a larger one, see TestLargeNode.
func TestExamples(t *testing.T) {
	n := claimable(t.Context(), t)
	if n == 0 {
		t.Fatal("the node offers no CPU")
	}
	for _, file := range exampleFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			pod := examplePod(t, file)
			if needs := needsOf(t, pod); int64(needs) > n {
				t.Skipf("needs %d claimable CPUs, this node has %d", needs, n)
			}
			ns := namespace(t)
			if _, err := cluster.Kubectl(t.Context(), "apply", "--namespace", ns, "--filename", file); err != nil {
				t.Fatal(err)
			}
			for _, c := range pod.Spec.Containers {
				got := running(t, ns, pod.Name, c.Name).Allowed
				if want := expected(t, ns, pod, c); !got.Equals(want) {
					t.Errorf("container %s runs on %s, want %s", c.Name, got, want)
				}
			}
		})
	}
}

// expected are the CPUs of the claims that a container names, of their shared
// pool too where they include it, or the pool.
func expected(t *testing.T, namespace string, pod *corev1.Pod, c corev1.Container) topology.CPUSet {
	t.Helper()
	var claimed, all topology.CPUSet
	pool := len(c.Resources.Claims) == 0
	for _, g := range grants(t) {
		all = all.Union(g.CPUs())
		if g.Namespace != namespace {
			continue
		}
		for _, ref := range c.Resources.Claims {
			if claimName(t, namespace, pod.Name, ref.Name) != g.Name {
				continue
			}
			claimed = claimed.Union(g.RunsOn(ref.Request))
			for _, p := range g.Parts {
				pool = pool || p.SharedPool
			}
		}
	}
	if pool {
		claimed = claimed.Union(online(t).Difference(all))
	}
	return claimed
}

// claimName is the name of the claim that a pod calls by another one.
func claimName(t *testing.T, namespace, pod, name string) string {
	t.Helper()
	p, err := cluster.Client.CoreV1().Pods(namespace).Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Status.ResourceClaimStatuses {
		if s.Name == name && s.ResourceClaimName != nil {
			return *s.ResourceClaimName
		}
	}
	for _, c := range p.Spec.ResourceClaims {
		if c.Name == name && c.ResourceClaimName != nil {
			return *c.ResourceClaimName
		}
	}
	t.Fatalf("pod %s has no claim %s", pod, name)
	return ""
}

func online(t *testing.T) topology.CPUSet {
	t.Helper()
	host, err := topology.OpenRoot("/")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close() //nolint:errcheck // only read
	m, err := topology.Discover(host)
	if err != nil {
		t.Fatal(err)
	}
	return m.Online
}

func exampleFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cluster.Source, "deploy/examples/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	return files
}

// examplePod returns the pod of an example file; each has one.
func examplePod(t *testing.T, file string) *corev1.Pod {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for doc := range bytes.SplitSeq(data, []byte("\n---\n")) {
		var pod corev1.Pod
		if err := yaml.Unmarshal(doc, &pod); err != nil {
			t.Fatal(err)
		}
		if pod.Kind == "Pod" {
			return &pod
		}
	}
	t.Fatalf("%s has no pod", file)
	return nil
}

func needsOf(t *testing.T, pod *corev1.Pod) int {
	t.Helper()
	text, ok := pod.Annotations[needsCPUs]
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(fmt.Errorf("annotation %s: %w", needsCPUs, err))
	}
	return n
}
