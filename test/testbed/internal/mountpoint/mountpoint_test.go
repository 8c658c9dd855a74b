package mountpoint

import (
	"os"
	"path/filepath"
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
