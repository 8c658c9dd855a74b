//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/test/harness"
)

func TestTopoletDoesNotStartBesideAStaticCPUManager(t *testing.T) {
	file := filepath.Join(cluster.Var("TESTBED_STATE"), "config", "kubelet.yaml")
	config, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	configure := func(text string) error {
		// A kubelet refuses the state of another policy.
		state := filepath.Join(cluster.Var("TESTBED_KUBELET_ROOT"), "cpu_manager_state")
		if err := os.Remove(state); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), restartLimit)
		defer cancel()
		_, err := cluster.Testbed(ctx, "restart", "kubelet")
		return err
	}
	t.Cleanup(func() {
		if err := configure(string(config)); err != nil {
			t.Error(err)
		}
	})
	if err := configure(string(config) + "cpuManagerPolicy: static\nreservedSystemCPUs: \"0\"\n"); err != nil {
		t.Fatal(err)
	}
	pod, err := daemon(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deletePod(t.Context(), t, harness.Namespace, pod.Name)
	waitNodeEvent(t, "StaticCPUManager")
	if pod, err = daemon(t.Context()); err != nil || len(pod.Status.ContainerStatuses) != 1 || pod.Status.ContainerStatuses[0].Ready {
		t.Errorf("topolet is ready: %+v, %v", pod.Status, err)
	}

	if err := configure(string(config)); err != nil {
		t.Fatal(err)
	}
	deletePod(t.Context(), t, harness.Namespace, pod.Name) // without the back-off
	waitDaemon(t, 0)
}

// waitNodeEvent waits for an event about the node with this reason.
func waitNodeEvent(t *testing.T, reason string) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, "an event of the node: "+reason, func(ctx context.Context) error {
		events, err := cluster.Client.CoreV1().Events(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Node"})
		if err != nil {
			return err
		}
		var said []string
		for _, e := range events.Items {
			if e.Reason == reason {
				t.Log(e.Message)
				return nil
			}
			said = append(said, e.Reason)
		}
		return fmt.Errorf("the events are %v", said)
	}); err != nil {
		t.Fatal(err)
	}
}
