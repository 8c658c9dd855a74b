package topology_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func openRoot(t *testing.T, dir string) *topology.Root {
	t.Helper()
	root, err := topology.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	return root
}

func TestRootIsAFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := topologytest.Write(dir, topologytest.Spec{}); err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(openRoot(t, dir), cpuDir+"online", cpuDir+"cpu0/topology/core_id"); err != nil {
		t.Fatal(err)
	}
}

func TestRootShowsTheSameMachineAsTheTreeInMemory(t *testing.T) {
	for name, spec := range map[string]topologytest.Spec{
		"a server":        {Sockets: 2, NUMAPerSocket: 2, CoresPerL3: 4, Threads: 2, Offline: "5"},
		"a hybrid part":   {CoresPerL3: 2, Threads: 2, EfficiencyCoresPerL3: 4, CoresPerCluster: 2},
		"PCIe devices":    twoSockets(),
		"sparse and bare": {NUMAIDs: []int{70}, MemoryOnly: []int{3}, NoL3: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := topologytest.Write(dir, spec); err != nil {
				t.Fatal(err)
			}
			root := openRoot(t, dir)
			for way, root := range map[string]*topology.Root{"quickly": root, "slowly": root.WithoutShortcuts()} {
				m, err := topology.Discover(root)
				if err != nil {
					t.Fatal(way, err)
				}
				checkInvariants(t, m)
				if diff := cmp.Diff(pictureOf(topologytest.New(spec)), pictureOf(m)); diff != "" {
					t.Errorf("read %s (-memory +disk):\n%s", way, diff)
				}
			}
		})
	}
}

func TestRootDoesNotLeadOutside(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("0-1023\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tree := topologytest.FS(four).
		Link(cpuDir+"isolated", secret).
		Link(cpuDir+"present", "../../../../../../../../../../../.."+secret).
		Link("sys/devices/system/node/node5", outside).
		Link("sys/devices/inside", "system/cpu/online").
		Link(cpuDir+"nohz_full", "../../inside")
	if err := tree.Write(dir); err != nil {
		t.Fatal(err)
	}
	root := openRoot(t, dir)
	for _, name := range []string{
		cpuDir + "isolated", cpuDir + "present", "sys/devices/system/node/node5", "sys/devices/system/node/node5/secret",
	} {
		if _, err := root.Open(name); err == nil {
			t.Errorf("%s leads outside", name)
		}
		if _, err := root.ReadFile(name); err == nil {
			t.Errorf("%s can be read outside", name)
		}
		if _, err := root.Stat(name); err == nil {
			t.Errorf("%s can be looked at outside", name)
		}
	}
	for way, root := range map[string]*topology.Root{"quickly": root, "slowly": root.WithoutShortcuts()} {
		m, err := topology.Discover(root)
		if err != nil {
			t.Fatal(way, err)
		}
		got, want := pictureOf(m), picture{"online": "0-3", "offline": "", "isolated": "", "nohz_full": "0-3"}
		for line := range want {
			if got[line] != want[line] {
				t.Errorf("read %s: %s: got %q, want %q", way, line, got[line], want[line])
			}
		}
	}
}

func TestFilesAreReadToTheirEnd(t *testing.T) {
	dir := t.TempDir()
	// As long as pages, and a byte more or less: sysfs hands out page by page.
	sizes := []int{2, 1023, 1024, 1025, os.Getpagesize() - 1, os.Getpagesize(), os.Getpagesize() + 1, 3*os.Getpagesize() + 7}
	for _, size := range sizes {
		files := topologytest.FS(topologytest.Spec{CoresPerL3: 8})
		files.File(cpuDir+"isolated", "0-6"+strings.Repeat(",5", size/2)+",7\n") // CPU 7 is at the end
		root := filepath.Join(dir, fmt.Sprint(size))
		if err := files.File("sys/end", strings.Repeat("x", size)).Write(root); err != nil {
			t.Fatal(err)
		}
		r := openRoot(t, root)
		if got, err := r.ReadAll("sys/end"); err != nil || len(got) != size {
			t.Errorf("of %d bytes, %d were read: %v", size, len(got), err)
		}
		if got, err := fs.ReadFile(r, "sys/end"); err != nil || len(got) != size {
			t.Errorf("of %d bytes, ReadFile read %d: %v", size, len(got), err)
		}
		m, err := topology.Discover(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Isolated.String(); got != "0-7" {
			t.Errorf("isolated: got %s", got)
		}
	}
}

func TestRootRefusesWhatIsNoPath(t *testing.T) {
	root := openRoot(t, t.TempDir())
	for _, name := range []string{"", "/etc/passwd", "../x", "sys/../../x", "a//b"} {
		if _, err := root.Open(name); err == nil {
			t.Errorf("%q was opened", name)
		}
		if _, err := root.ReadFile(name); err == nil {
			t.Errorf("%q was read", name)
		}
	}
}

func TestOpenRootNamesTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	_, err := topology.OpenRoot(dir)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}

func TestThisHostIsAMachine(t *testing.T) {
	if _, err := os.Stat("/sys/devices/system/cpu"); err != nil {
		t.Skip("no sysfs here")
	}
	m, err := topology.Discover(openRoot(t, "/"))
	if err != nil {
		t.Fatal(err)
	}
	checkInvariants(t, m)
}
