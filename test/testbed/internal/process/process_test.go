package process

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fake starts a process that carries the marks of a component and is called
// like it.
func fake(t *testing.T, state, component string, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
	cmd.Args[0] = component
	cmd.Env = []string{envState + "=" + state, envComponent + "=" + component, envSpec + "=feed", "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	return cmd
}

func find(t *testing.T, f Finder, component string) (Process, bool) {
	t.Helper()
	// Between fork and exec the process still looks like its parent.
	deadline := time.Now().Add(5 * time.Second)
	for {
		p, ok, err := f.Component(component)
		if err != nil {
			t.Fatal(err)
		}
		if ok || time.Now().After(deadline) {
			return p, ok
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestFindAndKill(t *testing.T) {
	f := Finder{State: t.TempDir()}
	cmd := fake(t, f.State, "etcd", "sleep 60; true")
	p, ok := find(t, f, "etcd")
	if !ok {
		t.Fatal("the component was not found")
	}
	if p.PID != cmd.Process.Pid || p.Spec != "feed" || p.Name() != "etcd" {
		t.Errorf("found %+v, want pid %d", p, cmd.Process.Pid)
	}
	if age := time.Since(p.Since()); age < -time.Second || age > time.Minute {
		t.Errorf("the process seems to be %v old", age)
	}
	if _, ok, _ := (Finder{State: f.State + "x"}).Component("etcd"); ok {
		t.Error("found with another state folder")
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.Alive() {
		t.Error("alive after Kill")
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Errorf("signal to a process that is gone: %v", err)
	}
}

// A component is found at every moment, also while it becomes another program.
func TestFindAcrossExec(t *testing.T) {
	f := Finder{State: t.TempDir()}
	script := filepath.Join(t.TempDir(), "etcd")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec "+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := fake(t, f.State, "etcd", "exec "+script)
	// Between fork and exec the process still looks like its parent.
	const limit = 5 * time.Second
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		if _, ok := f.read(cmd.Process.Pid); ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for the process to bear its marks", limit)
		}
	}
	const looks = 1000
	for i := range looks {
		if p, ok := f.read(cmd.Process.Pid); !ok || p.Component != "etcd" || len(p.Args) == 0 {
			t.Fatalf("look %d of %d found %+v, %v", i, looks, p, ok)
		}
	}
}

// The children of a component inherit its mark but are not the component.
func TestPickIgnoresChildren(t *testing.T) {
	all := []Process{
		{PID: 7, Component: "containerd", Args: []string{"/b/containerd-shim-runc-v2", "-id", "x"}},
		{PID: 5, Component: "containerd", Args: []string{"/b/containerd", "--config", "c"}},
		{PID: 9, Args: []string{"/workload"}},
	}
	if p, ok := Pick(all, "containerd"); !ok || p.PID != 5 {
		t.Errorf("picked %+v, %v", p, ok)
	}
	if _, ok := Pick(all, "etcd"); ok {
		t.Error("picked what does not run")
	}
	starting := []Process{{PID: 3, Component: "etcd", Args: []string{"/b/launch", "-cgroup", "/x"}}}
	if p, ok := Pick(starting, "etcd"); !ok || p.PID != 3 {
		t.Error("a component that is about to start was not picked")
	}
}

// A pid that now belongs to another process is never signalled.
func TestSignalSparesReusedPIDs(t *testing.T) {
	f := Finder{State: t.TempDir()}
	fake(t, f.State, "etcd", "sleep 60; true")
	p, ok := find(t, f, "etcd")
	if !ok {
		t.Fatal("not found")
	}
	other := p
	other.Start--
	if other.Alive() {
		t.Error("another life of the pid counts as alive")
	}
	if err := other.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if !p.Alive() {
		t.Error("the wrong process was killed")
	}
}

func TestStopIsFirmInTheEnd(t *testing.T) {
	f := Finder{State: t.TempDir()}
	fake(t, f.State, "kubelet", "trap '' TERM; touch "+f.State+"/ready; while true; do sleep 0.1; done")
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(f.State, "ready")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the process did not start")
		}
	}
	p, ok := find(t, f, "kubelet")
	if !ok {
		t.Fatal("not found")
	}
	if err := p.Stop(t.Context(), 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if p.Alive() {
		t.Error("alive after Stop")
	}
	if _, err := f.KillAll(t.Context(), 5*time.Second); err != nil {
		t.Error(err)
	}
}

// KillAll has to win against processes that start others.
func TestKillAll(t *testing.T) {
	f := Finder{State: t.TempDir()}
	fake(t, f.State, "containerd", "while true; do sleep 0.01 & sleep 60 & wait $!; done")
	fake(t, f.State, "kubelet", "sleep 60; true")
	find(t, f, "kubelet")
	find(t, f, "containerd")
	killed, err := f.KillAll(t.Context(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if killed < 2 {
		t.Errorf("ended %d processes, want at least 2", killed)
	}
	if left, _ := f.All(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if killed, err := f.KillAll(context.Background(), time.Second); err != nil || killed != 0 {
		t.Errorf("with nothing there: %d, %v", killed, err)
	}
}

func TestSpecHash(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	s := Spec{Name: "etcd", Path: write("etcd", ""), Args: []string{"--a"}, Inputs: []string{write("config", "1")}}
	hash := func(s Spec) string {
		h, err := s.Hash()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	first := hash(s)
	if hash(s) != first {
		t.Error("the hash of one specification differs from call to call")
	}
	changed := s
	changed.Args = []string{"--b"}
	if hash(changed) == first {
		t.Error("other arguments have the same hash")
	}
	write("config", "2")
	if hash(s) == first {
		t.Error("another configuration has the same hash")
	}
	s.Inputs = []string{filepath.Join(dir, "absent")}
	if _, err := s.Hash(); err == nil || !strings.Contains(err.Error(), "etcd") {
		t.Errorf("absent input: error %v, want one that names the component", err)
	}
}
