//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/topolet/topolet/test/examples"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

// TestExamples runs every example as it is: applied by kubectl, each container on
// exactly the CPUs that the example's comment promises. Those that need more than this
// node has run on larger ones, see TestLargeNode and TestNUMAMachine.
func TestExamples(t *testing.T) {
	if claimable(t.Context(), t) == 0 {
		t.Fatal("the node offers no CPU")
	}
	node := cluster.Node()
	published := slicesOf(t.Context(), t, node.Name)
	for _, e := range allExamples(t) {
		t.Run(e.Name, func(t *testing.T) {
			if lacks := e.Lacks(published); lacks != "" {
				if e.NeedsOneCPU() {
					t.Fatal("no other test runs it, and this node lacks", lacks)
				}
				t.Skip("this node lacks", lacks)
			}
			ns := namespace(t)
			if _, err := cluster.Kubectl(t.Context(), "apply", "--namespace", ns, "--filename", e.File); err != nil {
				t.Fatal(err)
			}
			for _, c := range e.Pod.Spec.Containers {
				got := running(t, ns, e.Name, c.Name).Allowed
				if want := expected(t.Context(), t, node, ns, e.Pod, c); !got.Equals(want) {
					t.Errorf("container %s runs on %s, want %s", c.Name, got, want)
				}
			}
		})
	}
}

// expected are the CPUs of the claims that a container names, of their shared
// pool too where they include it, or the pool.
func expected(ctx context.Context, t *testing.T, node harness.Node, namespace string, pod *corev1.Pod, c corev1.Container) topology.CPUSet {
	t.Helper()
	var claimed, all topology.CPUSet
	pool := len(c.Resources.Claims) == 0
	for _, g := range grants(t) {
		all = all.Union(g.CPUs())
		if g.Namespace != namespace {
			continue
		}
		for _, ref := range c.Resources.Claims {
			if claimName(ctx, t, namespace, pod.Name, ref.Name) != g.Name {
				continue
			}
			claimed = claimed.Union(g.RunsOn(ref.Request))
			for _, p := range g.Parts {
				pool = pool || p.SharedPool
			}
		}
	}
	if pool {
		claimed = claimed.Union(online(t, node).Difference(all))
	}
	return claimed
}

// claimName is the name of the claim that a pod calls by another one.
func claimName(ctx context.Context, t *testing.T, namespace, pod, name string) string {
	t.Helper()
	p, err := cluster.Client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
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

// online are the CPUs of a node on which processes run without asking.
func online(t *testing.T, node harness.Node) topology.CPUSet {
	t.Helper()
	const cpus = "/sys/devices/system/cpu/"
	return readSet(t, node, cpus+"online").Difference(readSet(t, node, cpus+"isolated"))
}

func allExamples(t *testing.T) []examples.Example {
	t.Helper()
	all, err := examples.Read(filepath.Join(cluster.Source, "deploy/examples"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// slicesOf are the ResourceSlices of all drivers on a node.
func slicesOf(ctx context.Context, t *testing.T, node string) []*resourceapi.ResourceSlice {
	t.Helper()
	list, err := cluster.Client.ResourceV1().ResourceSlices().List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		t.Fatal(err)
	}
	var all []*resourceapi.ResourceSlice
	for i := range list.Items {
		all = append(all, &list.Items[i])
	}
	return all
}

// applyTo applies an example by kubectl with its pod bound for one node, and as it is
// otherwise.
func applyTo(t *testing.T, namespace, node string, e examples.Example) {
	t.Helper()
	pod := e.Pod.DeepCopy()
	pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	text, err := os.ReadFile(e.File)
	if err != nil {
		t.Fatal(err)
	}
	documents := bytes.Split(text, []byte("\n---\n"))
	for i, document := range documents {
		if !bytes.Contains(document, []byte("kind: Pod\n")) {
			continue
		}
		if documents[i], err = yaml.Marshal(pod); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), e.Name+".yaml")
	if err := os.WriteFile(file, bytes.Join(documents, []byte("\n---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Kubectl(t.Context(), "apply", "--namespace", namespace, "--filename", file); err != nil {
		t.Fatal(err)
	}
}
