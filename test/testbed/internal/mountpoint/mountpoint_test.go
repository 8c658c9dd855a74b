package mountpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestWhatIsMadeIsRemoved(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "lib", "kubelet")
	for range 2 {
		if err := Make(dir); err != nil {
			t.Fatal(err)
		}
	}
	if !exists(dir) {
		t.Fatal("not made")
	}
	for range 2 {
		if err := Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if exists(filepath.Join(root, "lib")) {
		t.Error("a folder is left")
	}
	if !exists(root) {
		t.Error("a folder that was there before is gone")
	}
}

// Many make the same folders, and all are killed at any moment.
func TestWhoIsKilledWhileMakingLeavesNothingForGood(t *testing.T) {
	if root := os.Getenv("MAKE_MOUNT_POINTS_IN"); root != "" {
		for i := range 1000 {
			if err := Make(filepath.Join(root, strconv.Itoa(i), "kubelet")); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	root := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	makers := make([]*exec.Cmd, 4)
	for i := range makers {
		makers[i] = exec.Command(self, "-test.run=^"+t.Name()+"$")
		makers[i].Env = append(os.Environ(), "MAKE_MOUNT_POINTS_IN="+root)
		if err := makers[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for !exists(filepath.Join(root, "20")) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	for _, m := range makers {
		if err := m.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = m.Wait() // killed
	}
	if !exists(filepath.Join(root, "20")) {
		t.Fatal("nobody made 20 mount points in 30 s")
	}
	for i := range 1000 {
		if err := Remove(filepath.Join(root, strconv.Itoa(i), "kubelet")); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestFoldersOfOthersStay(t *testing.T) {
	root := t.TempDir()
	before, used := filepath.Join(root, "before"), filepath.Join(root, "used")
	if err := os.Mkdir(before, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{before, used} {
		if err := Make(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(used, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{before, used} {
		if err := Remove(dir); err != nil {
			t.Fatal(err)
		}
		if !exists(dir) {
			t.Errorf("%s was removed", dir)
		}
	}
}

func TestInUse(t *testing.T) {
	for dir, want := range map[string]bool{"/proc": true, t.TempDir(): false} {
		if got, err := InUse(dir); err != nil || got != want {
			t.Errorf("InUse(%s) = %v, %v", dir, got, err)
		}
	}
}

func TestRemovingWaitsForMounting(t *testing.T) {
	release, err := Lock(false)
	if err != nil {
		t.Fatal(err)
	}
	shared, err := Lock(false)
	if err != nil {
		t.Fatal(err)
	}
	shared()
	got := make(chan struct{})
	go func() {
		if exclusive, err := Lock(true); err == nil {
			exclusive()
		}
		close(got)
	}()
	select {
	case <-got:
		t.Error("the exclusive lock did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	release()
	<-got
}
