package action

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/layout"
	"github.com/topolet/topolet/test/testbed/internal/process"
	"github.com/topolet/topolet/test/testbed/internal/progress"
)

// halfUp is what an `up` that was killed half way leaves: folders, a record,
// mount points and a component or two.
func halfUp(t *testing.T, components ...string) *Context {
	t.Helper()
	l := layout.Layout{State: filepath.Join(t.TempDir(), "tb")}
	for _, dir := range l.Folders() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(l.Record(), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range components {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60")
		cmd.Args[0] = name
		cmd.Env = append(process.MarkEnv(l.State), "TOPOLET_TESTBED_COMPONENT="+name)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { _ = cmd.Wait() }()
	}
	return &Context{Layout: l, Log: progress.New(&bytes.Buffer{})}
}

func TestDownAfterHalfAnUp(t *testing.T) {
	c := halfUp(t, "etcd", "containerd")
	time.Sleep(50 * time.Millisecond)
	// Twice: what is gone is no error.
	for range 2 {
		if err := c.RunAll(t.Context(), Down()); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := c.Finder().All(); err != nil || len(left) > 0 {
		t.Errorf("processes left: %v, %v", left, err)
	}
	if _, err := os.Stat(c.Layout.State); err == nil {
		t.Error("the state folder is left")
	}
}

func TestDownFindsProcessesWithoutTheStateFolder(t *testing.T) {
	c := halfUp(t, "kubelet")
	if err := os.RemoveAll(c.Layout.State); err != nil {
		t.Fatal(err)
	}
	if err := c.RunAll(t.Context(), Down()); err != nil {
		t.Fatal(err)
	}
	if left, err := c.Finder().All(); err != nil || len(left) > 0 {
		t.Errorf("processes left: %v, %v", left, err)
	}
}

func TestDownSparesFoldersOfOthers(t *testing.T) {
	state := t.TempDir()
	precious := filepath.Join(state, "precious")
	if err := os.WriteFile(precious, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c := &Context{Layout: layout.Layout{State: state}, Log: progress.New(&bytes.Buffer{})}
	err := c.RunAll(t.Context(), Down())
	if err == nil || !strings.Contains(err.Error(), "precious") {
		t.Errorf("error %v, want one that names what is there", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error("somebody else's file was deleted")
	}
}

func TestUntilSaysWhatItWaitedFor(t *testing.T) {
	c := halfUp(t, "etcd")
	defer func() { _ = c.RunAll(t.Context(), Down()) }()
	if err := os.WriteFile(filepath.Join(c.Layout.Logs(), "etcd.log"), []byte("first\nthe last word\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	never := func(context.Context) error { return errors.New("not yet") }
	err := c.Until(t.Context(), "etcd", "etcd to be healthy", time.Second, never)
	for _, want := range []string{"waited 1s for etcd to be healthy", "not yet", "the last word"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, err := c.Finder().KillAll(t.Context(), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	err = c.Until(t.Context(), "etcd", "etcd to be healthy", time.Minute, never)
	if err == nil || !strings.Contains(err.Error(), "ended while waiting") || time.Since(begin) > 10*time.Second {
		t.Errorf("a component that ended: %v after %v", err, time.Since(begin))
	}
}

func TestUntilKnowsAComponentWhoseMarksCannotBeRead(t *testing.T) {
	c := halfUp(t, "etcd")
	defer func() { _ = c.RunAll(t.Context(), Down()) }()
	p, runs, err := c.Finder().Component("etcd")
	if err != nil || !runs {
		t.Fatalf("etcd runs: %t, %v", runs, err)
	}
	stranger := &Context{Layout: layout.Layout{State: t.TempDir()}} // these marks are of another testbed
	never := func(context.Context) error { return errors.New("not yet") }
	wait := func() error {
		return stranger.Until(t.Context(), "etcd", "etcd to be healthy", 2*time.Second, never)
	}
	if err := wait(); err == nil || !strings.Contains(err.Error(), "ended while waiting") {
		t.Errorf("a component of which nothing is known: %v", err)
	}
	stranger.remember("etcd", p)
	if err := wait(); err == nil || !strings.Contains(err.Error(), "waited 2s") {
		t.Errorf("a component that is known to live: %v", err)
	}
}

func TestHasImage(t *testing.T) {
	const list = `REF TYPE DIGEST SIZE PLATFORMS LABELS
docker.io/x/a:1 application/vnd sha256:1 1.0 MiB linux/amd64 io.cri-containerd.image=managed,testbed.topolet.dev/content=sha256:abc
docker.io/x/b:1 application/vnd sha256:2 1.0 MiB linux/amd64 -
`
	if !hasImage(list, "docker.io/x/a:1", "sha256:abc") {
		t.Error("an image that is there was not found")
	}
	if hasImage(list, "docker.io/x/a:1", "sha256:other") || hasImage(list, "docker.io/x/b:1", "sha256:abc") || hasImage(list, "docker.io/x/a", "sha256:abc") {
		t.Error("an image was found that is not there")
	}
}
