package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const mountinfo = `25 1 0:24 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
30 25 0:29 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
31 25 0:30 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
32 25 0:31 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
33 25 0:31 / /mnt/again rw,relatime shared:9 - cgroup2 cgroup2 rw
`

func TestParse(t *testing.T) {
	hs, err := parse(strings.NewReader(mountinfo))
	if err != nil {
		t.Fatal(err)
	}
	if len(hs) != 3 {
		t.Fatalf("found %d hierarchies, want 3 (the bind mount is not another): %+v", len(hs), hs)
	}
	if hs[0].Mount != "/sys/fs/cgroup/cpuset" || hs[0].V2 || !hs[0].has("cpuset") || hs[0].has("cpu") {
		t.Errorf("cpuset hierarchy: %+v", hs[0])
	}
	if hs[2].Mount != "/sys/fs/cgroup/unified" || !hs[2].V2 {
		t.Errorf("unified hierarchy: %+v", hs[2])
	}
}

func TestContains(t *testing.T) {
	const of = "9:name=systemd:/\n3:cpuset:/topolet-testbed/kubepods/pod1/c\n0::/user.slice\n"
	for path, want := range map[string]bool{
		"/topolet-testbed":          true,
		"/topolet-testbed/kubepods": true,
		"/topolet":                  false,
		"/topolet-testbed-abcdef":   false,
		"/user.slice":               true,
	} {
		if got := Contains(of, path); got != want {
			t.Errorf("Contains(%q) = %v, want %v", path, got, want)
		}
	}
}

func TestRemoveTakesLeavesFirst(t *testing.T) {
	hs := []Hierarchy{{Mount: t.TempDir()}, {Mount: t.TempDir(), V2: true}}
	for _, h := range hs {
		if err := os.MkdirAll(filepath.Join(h.Mount, "tb/kubepods/pod1/c1"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(Remaining(hs, "/tb")); n != 8 {
		t.Errorf("found %d folders, want 8", n)
	}
	if err := Remove(hs, "/tb", time.Second); err != nil {
		t.Fatal(err)
	}
	if left := Remaining(hs, "/tb"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := Remove(hs, "/tb", time.Second); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
}

func TestRemoveSaysWhatIsStuck(t *testing.T) {
	h := Hierarchy{Mount: t.TempDir()}
	busy := filepath.Join(h.Mount, "tb", "busy")
	if err := os.MkdirAll(busy, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(busy, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := Remove([]Hierarchy{h}, "/tb", 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "tb") {
		t.Errorf("error %v, want one that names the cgroup", err)
	}
}
