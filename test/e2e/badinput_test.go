//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/test/harness"
)

// TestWrongParametersAreRefused gives claims parameters that the API server
// cannot check. The pod's events must say what is wrong, and the node must be as
// it was.
func TestWrongParametersAreRefused(t *testing.T) {
	ns := namespace(t)
	start(t, ns, podOf("plain"))
	const header = `"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig"`
	for name, test := range map[string]struct{ parameters, said string }{
		"unknown-field": {`{` + header + `,"sharedpool":"Include"}`, `unknown field "sharedpool"`},
		"wrong-type":    {`{` + header + `,"sharedPool":1}`, `sharedPool`},
		"wrong-value":   {`{` + header + `,"sharedPool":"Maybe"}`, `CPUConfig field sharedPool: "Maybe" is not valid: use Exclude (the default) or Include`},
		"wrong-kind":    {`{"apiVersion":"topolet.dev/v1alpha1","kind":"GPUConfig"}`, `CPUConfig field kind: "GPUConfig" is not valid: use CPUConfig`},
		"wrong-version": {`{"apiVersion":"topolet.dev/v2","kind":"CPUConfig"}`, `use topolet.dev/v1alpha1`},
	} {
		t.Run(name, func(t *testing.T) {
			before, ledger, files := placements(t), readCheckpoint(t), cdiFiles(t)
			claimFor(t, ns, name, "1", withParameters(test.parameters))
			create(t, ns, podOf(name, name))
			waitEvent(t, ns, name, test.said)
			if diff := cmp.Diff(before, placements(t)); diff != "" {
				t.Errorf("CPUs -before +after:\n%s", diff)
			}
			if diff := cmp.Diff(ledger, readCheckpoint(t)); diff != "" {
				t.Errorf("ledger -before +after:\n%s", diff)
			}
			if diff := cmp.Diff(files, cdiFiles(t)); diff != "" {
				t.Errorf("CDI files -before +after:\n%s", diff)
			}
			deletePod(t.Context(), t, ns, name)
		})
	}
}

func cdiFiles(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(cluster.Var("TESTBED_CDI_DIR"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestACheckpointThatCannotBeUsedIsKept starts topolet on checkpoints that it
// must not act upon while a claimed container runs.
func TestACheckpointThatCannotBeUsedIsKept(t *testing.T) {
	for name, content := range map[string]string{
		"garbled":          "{\"version\": 1, \"grants\": [",
		"a future version": `{"version": 99, "claims": {"somehow": "different"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			ns := namespace(t)
			start(t, ns, podOf("plain"))
			claimFor(t, ns, "held", "1")
			start(t, ns, podOf("exclusive", "held"))
			before, good := placements(t), readCheckpoint(t)

			replaceDaemonWith(t, content)

			aside := asideFiles(t)
			if len(aside) != 1 {
				t.Fatalf("kept files: %v", aside)
			}
			kept, err := os.ReadFile(aside[0])
			if err != nil || string(kept) != content {
				t.Errorf("kept %q, %v", kept, err)
			}
			if diff := cmp.Diff(before, placements(t)); diff != "" {
				t.Errorf("CPUs -before +after:\n%s", diff)
			}
			nodeEvent(t, "CheckpointUnusable", aside[0])

			// The person mends it: the file is put right, and topolet starts anew.
			if err := os.Remove(aside[0]); err != nil {
				t.Fatal(err)
			}
			replaceDaemonWith(t, good)
			if diff := cmp.Diff(before, placements(t)); diff != "" {
				t.Errorf("CPUs -before +after mending:\n%s", diff)
			}
			if diff := cmp.Diff(good, readCheckpoint(t)); diff != "" {
				t.Errorf("ledger -before +after mending:\n%s", diff)
			}
		})
	}
}

// replaceDaemonWith has another topolet start on this checkpoint.
func replaceDaemonWith(t *testing.T, content string) {
	t.Helper()
	withoutDaemon(t, func() {
		if err := os.WriteFile(checkpoint(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	})
}

// withoutDaemon does something while the node takes no daemon: the old one is gone
// before, and the new one comes after.
func withoutDaemon(t *testing.T, do func()) {
	t.Helper()
	selector := `{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/os":"%s"}}}}}`
	patch := func(value string) {
		if _, err := cluster.Kubectl(t.Context(), "patch", "daemonset/topolet", "--namespace", harness.Namespace,
			"--patch", fmt.Sprintf(selector, value)); err != nil {
			t.Fatal(err)
		}
	}
	patch("none")
	if err := harness.Wait(t.Context(), deleteLimit, "topolet to be gone", func(ctx context.Context) error {
		if p, err := daemon(ctx); err == nil {
			return fmt.Errorf("pod %s is there", p.Name)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	do()
	patch("linux")
	waitDaemon(t, 0)
}

func asideFiles(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(checkpoint() + ".unusable-*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// nodeEvent waits for an event about the node that contains the text.
func nodeEvent(t *testing.T, reason, text string) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, "an event "+reason+" of the node", func(ctx context.Context) error {
		events, err := cluster.Client.CoreV1().Events(corev1.NamespaceDefault).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.InvolvedObject.Kind == "Node" && e.Reason == reason && strings.Contains(e.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("none of %d events is", len(events.Items))
	}); err != nil {
		t.Fatal(err)
	}
}
