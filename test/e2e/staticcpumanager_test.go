//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/topolet/topolet/test/harness"
)

// The last test by its file's name: a kubelet that starts deletes the node's slices,
// and the driver's library lets up to half a minute pass before it publishes again.
func TestTopoletDoesNotStartBesideAStaticCPUManager(t *testing.T) {
	before := claimable(t.Context(), t)
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
	nodeEvent(t, "StaticCPUManager", "cpuManagerPolicy")
	if pod, err = daemon(t.Context()); err != nil || len(pod.Status.ContainerStatuses) != 1 || pod.Status.ContainerStatuses[0].Ready {
		t.Errorf("topolet is ready: %+v, %v", pod.Status, err)
	}

	if err := configure(string(config)); err != nil {
		t.Fatal(err)
	}
	waitDaemon(t, 0) // it has noticed by itself
	if err := harness.Wait(t.Context(), startLimit, "the node to offer its CPUs again", func(ctx context.Context) error {
		if got := claimable(ctx, t); got != before {
			return fmt.Errorf("it offers %d", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
