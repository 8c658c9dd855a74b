//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

// grants reads topolet's checkpoints, of all nodes.
func grants(t *testing.T) []allocator.Grant {
	t.Helper()
	var held []allocator.Grant
	dir, err := os.MkdirTemp("", "grants") //nolint:usetesting // also called when the test's own is gone
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // in the system's temporary folder
	for _, node := range cluster.Nodes() {
		data, err := node.ReadFile(checkpoint())
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "checkpoint.json")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		of, err := allocator.FileStore{Path: file}.Load()
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, of...)
	}
	return held
}

func checkpoint() string { return filepath.Join(cluster.StateDir(), "checkpoint.json") }

// granted returns the CPUs of a claim by its name.
func granted(t *testing.T, namespace, claim string) topology.CPUSet {
	t.Helper()
	for _, g := range grants(t) {
		if g.Namespace == namespace && g.Name == claim {
			return g.CPUs()
		}
	}
	t.Fatalf("claim %s/%s has no grant", namespace, claim)
	return topology.CPUSet{}
}

// claimable returns how many CPUs the node publishes.
func claimable(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	slices, err := cluster.Client.ResourceV1().ResourceSlices().List(ctx, metav1.ListOptions{FieldSelector: "spec.driver=" + draplugin.DriverName})
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for _, s := range slices.Items {
		for _, d := range s.Spec.Devices {
			cpus := d.Capacity[draplugin.CapacityCPUs].Value
			n += cpus.Value()
		}
	}
	return n
}

// daemon returns topolet's pod.
func daemon(ctx context.Context) (corev1.Pod, error) {
	pods, err := cluster.Client.CoreV1().Pods(harness.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return corev1.Pod{}, err
	}
	if len(pods.Items) != 1 {
		return corev1.Pod{}, fmt.Errorf("%d daemons", len(pods.Items))
	}
	return pods.Items[0], nil
}

// killDaemon ends topolet's process with SIGKILL, does something while it is
// dead, and waits until the kubelet's next one is ready.
func killDaemon(t *testing.T, meanwhile func()) {
	t.Helper()
	before, err := daemon(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k := running(t, harness.Namespace, before.Name, "topolet")
	for _, pid := range k.Pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	if meanwhile != nil {
		meanwhile()
	}
	waitDaemon(t, before.Status.ContainerStatuses[0].RestartCount+1)
}

// waitDaemon waits until topolet is ready after so many restarts.
func waitDaemon(t *testing.T, restarts int32) {
	t.Helper()
	if err := harness.Wait(t.Context(), restartLimit, "topolet to be ready again", func(ctx context.Context) error {
		p, err := daemon(ctx)
		if err != nil {
			return err
		}
		if len(p.Status.ContainerStatuses) != 1 {
			return errors.New("its container has no status")
		}
		s := p.Status.ContainerStatuses[0]
		if s.RestartCount < restarts || !s.Ready {
			return fmt.Errorf("%d restarts, ready: %t, %+v", s.RestartCount, s.Ready, s.State)
		}
		return served(ctx)
	}); err != nil {
		t.Fatal(err)
	}
}

// served returns an error unless the active daemon can serve claims. What the kubelet
// says of it may be from the time when it stood by.
func served(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(cluster.StateDir(), "status.sock"))
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://topolet/", nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	var status struct{ Problem string }
	if err := errors.Join(json.NewDecoder(answer.Body).Decode(&status), answer.Body.Close()); err != nil {
		return fmt.Errorf("the daemon's status: %w", err)
	}
	if status.Problem != "" {
		return errors.New(status.Problem)
	}
	return nil
}

// replaceDaemon deletes topolet's pod and waits until the next one is ready;
// there is no back-off in that.
func replaceDaemon(t *testing.T, meanwhile func()) {
	t.Helper()
	before, err := daemon(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deletePod(t.Context(), t, harness.Namespace, before.Name)
	if meanwhile != nil {
		meanwhile()
	}
	waitDaemon(t, 0)
}

// failedPrepares reads from topolet's metrics how many claims it was asked to
// prepare and could not.
func failedPrepares(t *testing.T) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, cluster.Var("TOPOLET_HTTP")+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if name != `topolet_dra_claim_seconds_count{operation="prepare",outcome="error"}` {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 0
}

// placements are the CPUs of all running containers on the node but topolet's
// own, which comes and goes in these tests.
func placements(t *testing.T) map[string]string {
	t.Helper()
	kernels, err := cluster.Kernels(t.Context(), cluster.Node())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for name, k := range kernels {
		if !strings.HasPrefix(name, harness.Namespace+"/") {
			found[name] = k.Cgroup.String() + " " + k.Allowed.String()
		}
	}
	return found
}

// readCheckpoint returns the checkpoint's text, empty before the first grant.
func readCheckpoint(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(checkpoint())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}
