package allocator

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheckpointRoundTrip(t *testing.T) {
	store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint.json")}
	if grants, err := store.Load(); err != nil || grants != nil {
		t.Fatalf("without a file: %v, %v", grants, err)
	}
	l := newLedger(t, store)
	grant(t, l, claim("x", "pod", "other"), []Request{
		{Name: "a", Domain: "numa-0", Share: "s-1", Count: 2, SharedPool: true},
		{Name: "b", Domain: "numa-1", Share: "s-2", Count: 1, LocalMemory: true, IdleSiblings: true},
	})
	grant(t, l, claim("y"), cpus(1, "numa-1"))
	loaded, err := store.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(l.Grants(), loaded, compareSets); diff != "" {
		t.Errorf("-held +loaded:\n%s", diff)
	}
	if err := l.Release("x"); err != nil {
		t.Fatal(err)
	}
	if loaded, err = store.Load(); err != nil || len(loaded) != 1 || loaded[0].UID != "y" {
		t.Errorf("after a release: %+v, %v", loaded, err)
	}
	if names := list(t, filepath.Dir(store.Path)); len(names) != 1 {
		t.Errorf("the folder holds %v", names)
	}
}

func TestCheckpointsThatCannotBeUsed(t *testing.T) {
	for name, test := range map[string]struct{ content, want string }{
		"empty file":       {"", "not JSON"},
		"cut off":          {`{"version":1,"grants":[`, "not JSON"},
		"no version":       {`{"grants":[]}`, "field version is missing"},
		"a future version": {`{"version":2,"claims":{}}`, "field version is 2, this topolet reads version 1"},
		"an unknown field": {`{"version":1,"grants":[],"extra":1}`, `unknown field "extra"`},
		"no list":          {`{"version":1,"grants":{}}`, "cannot unmarshal object"},
	} {
		t.Run(name, func(t *testing.T) {
			store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint.json")}
			if err := os.WriteFile(store.Path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := store.Load()
			var unusable *CheckpointError
			if !errors.As(err, &unusable) || !strings.Contains(err.Error(), test.want) || unusable.Path != store.Path {
				t.Fatalf("error %v, want one that says %q", err, test.want)
			}
			aside, err := store.SetAside()
			if err != nil {
				t.Fatal(err)
			}
			kept, err := os.ReadFile(aside)
			if err != nil || string(kept) != test.content {
				t.Errorf("kept %q, %v", kept, err)
			}
			if grants, err := store.Load(); grants != nil || err != nil {
				t.Errorf("afterwards: %v, %v", grants, err)
			}
		})
	}
}

func TestAFailedSaveLeavesTheOldCheckpoint(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Log("root ignores the folder's mode; the missing folder below is tested all the same")
	}
	dir := filepath.Join(t.TempDir(), "gone")
	l := newLedger(t, FileStore{Path: filepath.Join(dir, "checkpoint.json")})
	if _, err := l.Grant(claim("x"), cpus(1, "numa-0")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("granted without a folder to store it in: %v", err)
	}
	if got := l.Grants(); len(got) != 0 {
		t.Errorf("still held: %+v", got)
	}
}

// What a crash leaves cannot be tried out here. That the disk is asked at the right
// moments can.
func TestTheNewCheckpointIsOnTheDiskBeforeItReplacesTheOldOneAndItsNameAfterwards(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	content := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for _, test := range []struct {
		name   string
		broken int // the call that fails, from 1 on
		asked  []string
		left   string
	}{
		{"a disk in order", 0, []string{"file new, checkpoint old", "folder, checkpoint new"}, "new"},
		{"a disk that does not take the file", 1, []string{"file new, checkpoint old"}, "old"},
		{"a disk that does not take the name", 2, []string{"file new, checkpoint old", "folder, checkpoint new"}, "new"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			errDisk := errors.New("input/output error")
			var asked []string
			err := replaceFile(path, []byte("new"), func(f *os.File) error {
				what := "folder"
				if f.Name() != dir {
					what = "file " + content(f.Name())
				}
				asked = append(asked, what+", checkpoint "+content(path))
				if len(asked) == test.broken {
					return errDisk
				}
				return nil
			})
			var want error
			if test.broken > 0 {
				want = errDisk
			}
			if !errors.Is(err, want) {
				t.Errorf("the error is %v, want %v", err, want)
			}
			if diff := cmp.Diff(test.asked, asked); diff != "" {
				t.Errorf("asked of the disk (-want +got):\n%s", diff)
			}
			if got := content(path); got != test.left {
				t.Errorf("the checkpoint is %q, want %q", got, test.left)
			}
			if names := list(t, dir); len(names) != 1 {
				t.Errorf("the folder holds %v", names)
			}
		})
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
