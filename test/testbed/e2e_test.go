//go:build e2e

package testbed_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/topolet/topolet/test/testbed"
	"github.com/topolet/topolet/test/testbed/internal/cgroup"
	"github.com/topolet/topolet/test/testbed/internal/host"
	"github.com/topolet/topolet/test/testbed/internal/images"
	"github.com/topolet/topolet/test/testbed/internal/layout"
	"github.com/topolet/topolet/test/testbed/internal/mountpoint"
	"github.com/topolet/topolet/test/testbed/internal/process"
)

// The tests have a testbed of their own, beside one that may be in use.
const state = "/var/lib/tb-selftest"

// newTestbed returns a testbed that is removed when the test is over, whatever
// became of it, and then checks that the host is as it was.
func newTestbed(t *testing.T) (*testbed.Testbed, *hostState) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("run as root")
	}
	tb, err := testbed.New(testbed.Options{State: state, WithoutTopolet: true, Progress: logWriter{t}})
	if err != nil {
		t.Fatal(err)
	}
	if err := tb.Down(t.Context()); err != nil {
		t.Fatalf("clean up after an earlier run: %v", err)
	}
	before := observe(t)
	t.Cleanup(func() {
		// The test's own context is over by now.
		if err := tb.Down(context.Background()); err != nil {
			t.Errorf("down: %v", err)
		}
	})
	return tb, before
}

type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// hostState is what a testbed changes outside of its own folder, cgroup and
// bridge. Another testbed that comes or goes at the same time changes it too.
type hostState struct {
	settings map[string]string
	folders  map[string]bool
}

func observe(t *testing.T) *hostState {
	t.Helper()
	s := &hostState{settings: map[string]string{}, folders: map[string]bool{}}
	for _, name := range []string{"kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "net/ipv4/ip_forward"} {
		value, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			t.Fatal(err)
		}
		s.settings[name] = strings.TrimSpace(string(value))
	}
	for _, dir := range []string{"/var/lib/kubelet", "/var/log/containers", "/run/containerd", "/var/lib/cni", "/run/netns", state} {
		_, err := os.Stat(dir)
		s.folders[dir] = err == nil
	}
	return s
}

// nothingLeft compares the host with what it was before, and looks for every
// mark of the testbed.
func nothingLeft(t *testing.T, before *hostState) {
	t.Helper()
	l, err := layout.New(state)
	if err != nil {
		t.Fatal(err)
	}
	left, err := process.Finder{State: l.State, Cgroup: l.Cgroup()}.All()
	if err != nil || len(left) > 0 {
		t.Errorf("processes are left: %v, %v", left, err)
	}
	mounts, err := host.Mounts(state)
	if err != nil || len(mounts) > 0 {
		t.Errorf("mounts are left: %v, %v", mounts, err)
	}
	// A folder of the testbed must not show elsewhere either.
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(table), state) {
		t.Errorf("the mount table names the testbed, %v:\n%s", err, table)
	}
	hs, err := cgroup.Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	if dirs := cgroup.Remaining(hs, l.Cgroup()); len(dirs) > 0 {
		t.Errorf("cgroups are left: %v", dirs)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if link.Attrs().Name == l.Bridge() || (link.Type() == "veth" && link.Attrs().MasterIndex == 0) {
			t.Errorf("the interface %s is left", link.Attrs().Name)
		}
	}
	after := observe(t)
	for name, value := range before.settings {
		if after.settings[name] != value {
			t.Errorf("%s is %s, was %s", name, after.settings[name], value)
		}
	}
	for dir, there := range after.folders {
		used, err := mountpoint.InUse(dir)
		if err != nil {
			t.Fatal(err)
		}
		if there && !before.folders[dir] && !used {
			t.Errorf("%s is left", dir)
		}
	}
}

type cluster struct {
	t   *testing.T
	env map[string]string
}

func newCluster(t *testing.T, tb *testbed.Testbed) cluster {
	t.Helper()
	vars, err := tb.Env()
	if err != nil {
		t.Fatal(err)
	}
	c := cluster{t, map[string]string{}}
	for _, v := range vars {
		c.env[v.Name] = v.Value
	}
	return c
}

// kubectl runs kubectl and returns its output.
func (c cluster) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.env["TESTBED_KUBECTL"], args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.env["KUBECONFIG"])
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (c cluster) must(ctx context.Context, stdin string, args ...string) string {
	c.t.Helper()
	out, err := c.kubectl(ctx, stdin, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// firstLine waits for the first line of a pod's log, which comes after the pod is
// Ready.
func (c cluster) firstLine(ctx context.Context, pod string) string {
	c.t.Helper()
	const limit = 30 * time.Second
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if line, _, ended := strings.Cut(c.must(ctx, "", "logs", pod), "\n"); ended {
			return line
		}
	}
	c.t.Fatalf("waited %v for a line in the log of pod %s", limit, pod)
	return ""
}

const podManifest = `apiVersion: v1
kind: Pod
metadata:
  name: w
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: w
    image: docker.io/topolet/workload:test
    imagePullPolicy: Never
`

func status(ctx context.Context, t *testing.T, tb *testbed.Testbed) map[string]testbed.ComponentStatus {
	t.Helper()
	s, err := tb.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]testbed.ComponentStatus{}
	for _, c := range s.Components {
		m[c.Name] = c
	}
	return m
}

func TestLifeOfACluster(t *testing.T) {
	tb, before := newTestbed(t)
	ctx := t.Context()
	if err := tb.Up(ctx); err != nil {
		t.Fatal(err)
	}
	first := status(ctx, t, tb)
	c := newCluster(t, tb)

	t.Run("a second up changes nothing", func(t *testing.T) {
		if err := tb.Up(ctx); err != nil {
			t.Fatal(err)
		}
		for name, now := range status(ctx, t, tb) {
			if now.PID != first[name].PID || !now.Healthy {
				t.Errorf("%s: pid %d, was %d; healthy: %v %s", name, now.PID, first[name].PID, now.Healthy, now.Problem)
			}
		}
	})

	t.Run("a pod runs", func(t *testing.T) {
		c := cluster{t, c.env}
		c.must(ctx, podManifest, "apply", "-f", "-")
		c.must(ctx, "", "wait", "--for=condition=Ready", "pod/w", "--timeout=60s")
		line := c.firstLine(ctx, "w")
		var e struct {
			Event, CPUsAllowed, Affinity string
			Time                         time.Time
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Event != "start" || e.CPUsAllowed == "" || e.Affinity != e.CPUsAllowed {
			t.Errorf("first line of the log: %q, %v", line, err)
		}
		if out := c.must(ctx, "", "exec", "w", "--", "/workload", "--for=20ms"); !strings.Contains(out, `"event":"end"`) {
			t.Errorf("exec printed %q", out)
		}
		ip := c.must(ctx, "", "get", "pod", "w", "-o", "jsonpath={.status.podIP}")
		if node := c.must(ctx, "", "get", "node", c.env["TESTBED_NODE"], "-o", "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}"); ip == "" || ip == node {
			t.Errorf("the pod's address is %q, the node's %q", ip, node)
		}
	})

	t.Run("an image is loaded", func(t *testing.T) {
		c := cluster{t, c.env}
		archive := filepath.Join(t.TempDir(), "image.tar")
		img := images.Image{Ref: "docker.io/topolet/loaded:test", Program: c.env["TESTBED_BIN"] + "/workload", Path: "/loaded"}
		if err := img.Archive(archive); err != nil {
			t.Fatal(err)
		}
		if err := tb.Load(ctx, archive); err != nil {
			t.Fatal(err)
		}
		c.must(ctx, "", "run", "loaded", "--image", img.Ref, "--image-pull-policy=Never", "--restart=Never", "--", "--for=1ms", "--exit-code=0")
		c.must(ctx, "", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/loaded", "--timeout=60s")
	})

	t.Run("up repairs", func(t *testing.T) {
		for _, name := range []string{"kube-scheduler", "kubelet", "etcd"} {
			if err := tb.Kill(ctx, name, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		if s := status(ctx, t, tb); s["etcd"].PID != 0 || s["kubelet"].Healthy {
			t.Errorf("status after the kill: %+v", s)
		}
		if err := tb.Up(ctx); err != nil {
			t.Fatal(err)
		}
		for name, now := range status(ctx, t, tb) {
			if !now.Healthy {
				t.Errorf("%s: %s", name, now.Problem)
			}
		}
	})

	t.Run("containers survive the runtime", func(t *testing.T) {
		c := cluster{t, c.env}
		was := c.must(ctx, "", "get", "pod", "w", "-o", "jsonpath={.status.containerStatuses[0].containerID}")
		if err := tb.Kill(ctx, "containerd", syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := tb.Start(ctx, "containerd"); err != nil {
			t.Fatal(err)
		}
		if err := tb.Restart(ctx, "kubelet"); err != nil {
			t.Fatal(err)
		}
		c.must(ctx, "", "wait", "--for=condition=Ready", "pod/w", "--timeout=60s")
		if now := c.must(ctx, "", "get", "pod", "w", "-o", "jsonpath={.status.containerStatuses[0].containerID}"); now != was {
			t.Errorf("the container is %s, was %s", now, was)
		}
		c.must(ctx, "", "logs", "w")
	})

	t.Run("another name is refused", func(t *testing.T) {
		other, err := testbed.New(testbed.Options{State: state, WithoutTopolet: true, NodeName: "other"})
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Up(ctx); err == nil || !strings.Contains(err.Error(), "testbed down") {
			t.Errorf("error %v, want one that names the remedy", err)
		}
	})

	t.Run("down leaves nothing, also without containerd", func(t *testing.T) {
		if err := tb.Kill(ctx, "containerd", syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := tb.Down(ctx); err != nil {
			t.Fatal(err)
		}
		nothingLeft(t, before)
	})
}

// A feature gate that is switched reaches the running cluster by another up.
func TestFeatureGatesCanChange(t *testing.T) {
	tb, _ := newTestbed(t)
	if err := tb.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := status(t.Context(), t, tb)
	gated, err := testbed.New(testbed.Options{State: state, WithoutTopolet: true, FeatureGates: map[string]bool{"DRAListTypeAttributes": true}, Progress: logWriter{t}})
	if err != nil {
		t.Fatal(err)
	}
	if err := gated.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := status(t.Context(), t, gated)
	for name, changes := range map[string]bool{"etcd": false, "containerd": false, "kube-apiserver": true, "kube-scheduler": true, "kube-controller-manager": true, "kubelet": true} {
		if got := after[name].PID != before[name].PID; got != changes {
			t.Errorf("%s was started again: %v, want %v", name, got, changes)
		}
	}
}

// A gate that no component knows fails with the component's own words.
func TestUnknownFeatureGate(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run as root")
	}
	_, before := newTestbed(t)
	tb, err := testbed.New(testbed.Options{State: state, WithoutTopolet: true, FeatureGates: map[string]bool{"NoSuchGate": true}, Progress: logWriter{t}})
	if err != nil {
		t.Fatal(err)
	}
	err = tb.Up(t.Context())
	if err == nil || !strings.Contains(err.Error(), "NoSuchGate") {
		t.Errorf("error %v, want one that names the gate", err)
	}
	if err := tb.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, before)
}

// Whenever an up is killed, down puts the host back, and the next up works.
func TestDownAfterKilledUp(t *testing.T) {
	program := filepath.Join(t.TempDir(), "testbed")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/testbed")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the command: %v\n%s", err, out)
	}
	for _, at := range []string{"host", "network", "containerd", "images", "controller manager, scheduler and kubelet started"} {
		t.Run(at, func(t *testing.T) {
			tb, before := newTestbed(t)
			if err := upKilledAfter(t, program, at); err != nil {
				t.Fatal(err)
			}
			if err := tb.Down(t.Context()); err != nil {
				t.Fatal(err)
			}
			nothingLeft(t, before)
		})
	}
}

// upKilledAfter runs up in a process of its own and kills that as soon as it
// reports the step as done.
func upKilledAfter(t *testing.T, program, step string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "--state", state, "up", "--without-topolet")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var seen bytes.Buffer
	killed := false
	lines := bufio.NewScanner(io.TeeReader(stderr, &seen))
	for lines.Scan() {
		if strings.Contains(lines.Text(), "] "+step+"  ") {
			if err := cmd.Process.Kill(); err != nil {
				return err
			}
			killed = true
			break
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !killed {
		return fmt.Errorf("the step %q was not seen: %w\n%s", step, err, seen.String())
	}
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		return fmt.Errorf("up ended by itself: %w\n%s", err, seen.String())
	}
	return nil
}

// Shims and containers that lost their runtime and each other are found.
func TestDownAfterKilledShim(t *testing.T) {
	tb, before := newTestbed(t)
	if err := tb.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, tb)
	c.must(t.Context(), podManifest, "apply", "-f", "-")
	c.must(t.Context(), "", "wait", "--for=condition=Ready", "pod/w", "--timeout=60s")
	for _, name := range []string{"kubelet", "containerd"} {
		if err := tb.Kill(t.Context(), name, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	l, err := layout.New(state)
	if err != nil {
		t.Fatal(err)
	}
	all, err := process.Finder{State: l.State, Cgroup: l.Cgroup()}.All()
	if err != nil {
		t.Fatal(err)
	}
	orphans := 0
	for _, p := range all {
		switch {
		case p.Name() == "containerd-shim-runc-v2":
			if err := p.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
		case p.Name() == "workload" || p.Name() == "pause":
			orphans++
		}
	}
	if orphans != 2 {
		t.Errorf("found %d container processes, want 2: %s", orphans, describe(all))
	}
	if err := tb.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, before)
}

func describe(all []process.Process) string {
	var names []string
	for _, p := range all {
		names = append(names, p.Name()+":"+strconv.Itoa(p.PID))
	}
	return strings.Join(names, " ")
}
