package draplugin

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/expect"
)

// newDisk mounts a small file system of its own, and unmounts it when the test ends.
func newDisk(t *testing.T) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root, and only root can mount a disk")
	}
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no disk can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all space of a disk and returns what frees it.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	page := bytes.Repeat([]byte{1}, 4096)
	for err == nil {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) || f.Close() != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
}

func readOnly(t *testing.T, dir string) (writable func()) {
	t.Helper()
	remount := func(flags uintptr) {
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	return func() { remount(0) }
}

func TestADiskThatCannotBeWrittenFailsClaimsAndNothingElse(t *testing.T) {
	for name, test := range map[string]struct {
		breaks func(*testing.T, string) func()
		said   []string
	}{
		"full":      {fill, []string{"no space left on device", "free some space on the disk of folder"}},
		"read-only": {readOnly, []string{"read-only file system", "make folder", "writable"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, twoNodes)
			disk := newDisk(t)
			r.store.Path = filepath.Join(disk, "checkpoint.json")
			r.mustPrepare(t, allocated("a", cpus("numa-0", "2")))
			pool, files := r.ledger.Pool(), r.disk(t)

			mend := test.breaks(t, disk)
			for range 2 {
				err := r.prepare(t, allocated("b", cpus("numa-1", "4"))).Err
				expect.Error(t, err, append(test.said, disk)...)
				var save *allocator.SaveError
				if !errors.As(err, &save) || save.Path != r.store.Path {
					t.Errorf("the error is %v", err)
				}
				expect.Error(t, r.unprepare(t, "a"), test.said...)
			}
			if diff := cmp.Diff(files, r.disk(t)); diff != "" {
				t.Errorf("files (-before +after):\n%s", diff)
			}
			if got := r.ledger.Pool(); !got.Equals(pool) || len(r.ledger.Grants()) != 1 {
				t.Errorf("the shared pool is %s, it was %s; grants: %+v", got, pool, r.ledger.Grants())
			}
			if entries, err := os.ReadDir(disk); err != nil || len(entries) > 2 {
				t.Errorf("beside the checkpoint and what fills the disk there is %v, %v", entries, err)
			}
			// What is prepared already needs no disk: its pod may start again.
			r.mustPrepare(t, allocated("a", cpus("numa-0", "2")))

			mend()
			r.mustPrepare(t, allocated("b", cpus("numa-1", "4")))
			if err := r.unprepare(t, "a"); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff([]string{"checkpoint.json", specName("b")}, slices.Sorted(maps.Keys(r.disk(t)))); diff != "" {
				t.Errorf("files afterwards (-want +got):\n%s", diff)
			}
			entries, err := os.ReadDir(disk)
			if err != nil || len(entries) != 1 {
				t.Errorf("the state folder holds %v, %v", entries, err)
			}
		})
	}
}

// The checkpoint could be written and the CDI spec cannot: the claim fails, and holds
// its CPUs until it is prepared again or released.
func TestACDIFolderThatIsFullFailsClaims(t *testing.T) {
	r := newRig(t, twoNodes)
	disk := newDisk(t)
	r.cdiDir = disk
	r.start(t)
	mend := fill(t, disk)
	claim := allocated("a", cpus("numa-0", "2"))
	expect.Error(t, r.prepare(t, claim).Err, "no space left on device", "free some space on the disk of folder "+disk)
	if err := r.unprepare(t, "a"); err != nil {
		t.Error(err)
	}
	if got := r.ledger.Grants(); len(got) != 0 {
		t.Errorf("still held: %+v", got)
	}
	expect.Error(t, r.prepare(t, claim).Err, "no space left on device")
	mend()
	r.wantResolved(t, r.mustPrepare(t, claim))
}
