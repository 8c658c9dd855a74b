package partition

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/topology"
)

// paper is a hierarchy of plain files. It follows the kernel just as far as one
// container's partition goes; what the kernel really does, kernel_test.go asks it.
type paper struct {
	mounted
	*testing.T
	log []string
	// failAt is the number of the write that fails, from 1.
	failAt int
	// reason is why the kernel calls each partition invalid.
	reason string
}

func onPaper(t *testing.T, cgroups ...string) (*paper, *Tree) {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	p := &paper{mounted: mounted{root}, T: t}
	p.put(top, effectiveFile, "0-15")
	for _, c := range cgroups {
		for _, dir := range append(ancestors(c), c) {
			if err := root.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for file, content := range map[string]string{cpusFile: "", effectiveFile: "0-15", exclusiveFile: "", grantedFile: "", stateFile: member} {
				p.put(dir, file, content)
			}
		}
	}
	return p, newTree(p)
}

func (p *paper) put(cgroup, file, content string) {
	p.Helper()
	if err := p.root.WriteFile(path.Join(cgroup, file), []byte(content+"\n"), 0o600); err != nil {
		p.Fatal(err)
	}
}

func (p *paper) get(cgroup, file string) topology.CPUSet {
	p.Helper()
	text, err := p.read(cgroup, file)
	if err != nil {
		p.Fatal(err)
	}
	cpus, err := topology.ParseCPUSet(text)
	if err != nil {
		p.Fatal(err)
	}
	return cpus
}

func (*paper) online() (topology.CPUSet, error) { return topology.ParseCPUSet("0-15") }

func (p *paper) write(cgroup, file, value string) error {
	p.log = append(p.log, fmt.Sprintf("%s %s %q", path.Base(cgroup), file, value))
	if len(p.log) == p.failAt {
		return unix.EIO
	}
	if err := p.mounted.write(cgroup, file, value); err != nil {
		return err
	}
	state, err := p.read(cgroup, stateFile)
	if err != nil {
		return err
	}
	switch {
	case file == exclusiveFile, file == stateFile && isPartition(value):
		had := p.get(cgroup, grantedFile)
		p.put(cgroup, grantedFile, p.get(cgroup, exclusiveFile).String())
		if !isPartition(state) {
			return nil
		}
		if p.reason != "" {
			p.put(cgroup, stateFile, state+" invalid ("+p.reason+")")
			return nil
		}
		if file == stateFile {
			had = topology.CPUSet{}
		}
		p.put(cgroup, effectiveFile, p.get(cgroup, grantedFile).String())
		p.put(top, effectiveFile, p.get(top, effectiveFile).Union(had).Difference(p.get(cgroup, grantedFile)).String())
	case file == stateFile:
		p.put(top, effectiveFile, p.get(top, effectiveFile).Union(p.get(cgroup, grantedFile)).String())
		p.put(cgroup, effectiveFile, "0-15")
	}
	return nil
}

// all is the content of all files.
func (p *paper) all() map[string]string {
	p.Helper()
	found := map[string]string{}
	err := fs.WalkDir(p.root.FS(), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := p.root.ReadFile(file)
		found[file] = string(data)
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
	return found
}

func set(t *testing.T, list string) topology.CPUSet {
	t.Helper()
	cpus, err := topology.ParseCPUSet(list)
	if err != nil {
		t.Fatal(err)
	}
	return cpus
}

const ctr = "kubepods/burstable/pod1/ctr"

func TestOrderOfWrites(t *testing.T) {
	p, tree := onPaper(t, ctr)
	do := func(list string) {
		t.Helper()
		p.log = nil
		if err := tree.Activate(t.Context(), Partition{ctr, set(t, list), Root}, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, lines ...string) {
		t.Helper()
		if diff := cmp.Diff(lines, p.log); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	do("4-5")
	want("activation from the top",
		`kubepods cpuset.cpus.exclusive "4-5"`, `burstable cpuset.cpus.exclusive "4-5"`, `pod1 cpuset.cpus.exclusive "4-5"`,
		`ctr cpuset.cpus "4-5"`, `ctr cpuset.cpus.exclusive "4-5"`, `ctr cpuset.cpus.partition "root"`)
	do("4-5")
	want("nothing for what is in force")
	do("4-7")
	want("growth from the top",
		`kubepods cpuset.cpus.exclusive "4-7"`, `burstable cpuset.cpus.exclusive "4-7"`, `pod1 cpuset.cpus.exclusive "4-7"`,
		`ctr cpuset.cpus "4-7"`, `ctr cpuset.cpus.exclusive "4-7"`)
	do("6")
	want("shrinking from the bottom",
		`ctr cpuset.cpus "6"`, `ctr cpuset.cpus.exclusive "6"`,
		`pod1 cpuset.cpus.exclusive "6"`, `burstable cpuset.cpus.exclusive "6"`, `kubepods cpuset.cpus.exclusive "6"`)
	p.log = nil
	if err := tree.Deactivate(t.Context(), Partition{ctr, set(t, "6"), Root}, nil); err != nil {
		t.Fatal(err)
	}
	want("the end from the bottom",
		`ctr cpuset.cpus.partition "member"`, `ctr cpuset.cpus.exclusive ""`,
		`pod1 cpuset.cpus.exclusive ""`, `burstable cpuset.cpus.exclusive ""`, `kubepods cpuset.cpus.exclusive ""`)
}

func TestFailedActivationLeavesAllAsItWas(t *testing.T) {
	for _, before := range []string{"", "4-5", "6-9"} {
		p, tree := onPaper(t, ctr)
		p.put(ctr, cpusFile, "4-7")
		if before != "" {
			if err := tree.Activate(t.Context(), Partition{ctr, set(t, before), Root}, nil); err != nil {
				t.Fatal(err)
			}
		}
		old := p.all()
		fails := func(what string) {
			t.Helper()
			err := tree.Activate(t.Context(), Partition{ctr, set(t, "5-8"), Isolated}, nil)
			if err == nil || !strings.Contains(err.Error(), ctr[:8]) {
				t.Errorf("%s: the error is %v, want one that names the cgroup", what, err)
			}
			if diff := cmp.Diff(old, p.all()); diff != "" {
				t.Errorf("with CPUs %q before, %s (-before +after):\n%s", before, what, diff)
			}
		}
		for n := 1; n <= 6; n++ {
			p.log, p.failAt = nil, n
			fails(fmt.Sprintf("write %d fails", n))
		}
		if before != "" {
			continue // what is refused is the same as what would be put back
		}
		p.failAt, p.reason = 0, "Cpu list in cpuset.cpus not exclusive"
		err := tree.Activate(t.Context(), Partition{ctr, set(t, "5-8"), Isolated}, nil)
		if broken, ok := errors.AsType[*BrokenError](err); !ok || broken.State != "isolated invalid (Cpu list in cpuset.cpus not exclusive)" {
			t.Errorf("the error is %v, want the kernel's reason", err)
		}
		if p.get("kubepods", exclusiveFile).Size() != 0 || p.get(ctr, exclusiveFile).Size() != 0 || p.get(ctr, cpusFile).String() != "4-7" {
			t.Errorf("not put back: %v", p.all())
		}
	}
}

func TestLostCPUs(t *testing.T) {
	p, tree := onPaper(t, ctr, "kubepods/pod2/ctr")
	for _, dir := range ancestors(ctr) {
		p.put(dir, exclusiveFile, "4-7")
		p.put(dir, grantedFile, "4-7")
	}
	p.put(top, effectiveFile, "0-3,6-15")
	tree.Roots(ctr)
	for range 2 {
		err := tree.Tidy(t.Context(), nil)
		if lost, ok := errors.AsType[*LostError](err); !ok || lost.CPUs.String() != "4-5" {
			t.Errorf("the error is %v, want that 4-5 are lost", err)
		}
	}
	for _, dir := range ancestors(ctr) {
		if got := p.get(dir, exclusiveFile).String(); got != "4-5" {
			t.Errorf("%s is left with %q, want the lost 4-5", dir, got)
		}
	}
	p.log = nil
	err := tree.Activate(t.Context(), Partition{"kubepods/pod2/ctr", set(t, "8-9"), Root}, nil)
	if _, ok := errors.AsType[*LostError](err); !ok || len(p.log) > 0 {
		t.Errorf("after CPUs were lost a partition is made: %v, %v", err, p.log)
	}
	err = newTree(p).Activate(t.Context(), Partition{"kubepods/pod2/ctr", set(t, "8-9"), Root}, nil)
	if _, ok := errors.AsType[*LostError](err); !ok || len(p.log) > 0 {
		t.Errorf("after CPUs were lost and a restart a partition is made: %v, %v", err, p.log)
	}
}

func TestPartitionsThatCannotBe(t *testing.T) {
	p, tree := onPaper(t, ctr)
	cpus := set(t, "4-7")
	for name, tc := range map[string]struct {
		p    Partition
		live []Partition
	}{
		"a path that leads out":        {Partition{"../ctr", cpus, Root}, nil},
		"an absolute path":             {Partition{"/kubepods", cpus, Root}, nil},
		"the root":                     {Partition{".", cpus, Root}, nil},
		"no CPUs":                      {Partition{ctr, topology.CPUSet{}, Root}, nil},
		"another kind":                 {Partition{ctr, cpus, "member"}, nil},
		"CPUs of a live one":           {Partition{ctr, cpus, Root}, []Partition{{"kubepods/pod2/ctr", set(t, "7-8"), Root}}},
		"the cgroup above a live one":  {Partition{"kubepods/burstable", cpus, Root}, []Partition{{ctr, set(t, "8"), Root}}},
		"a cgroup that does not exist": {Partition{"kubepods/pod3/ctr", cpus, Root}, nil},
	} {
		if err := tree.Activate(t.Context(), tc.p, tc.live); err == nil || len(p.log) > 0 {
			t.Errorf("%s: error %v after %q", name, err, p.log)
		}
	}
}

func TestFilesThatAreNotTheKernels(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for name, spoil := range map[string]func(p *paper, file string) error{
		"a range without end": func(p *paper, file string) error { p.put(ctr, file, "0-4294967295"); return nil },
		"garbage":             func(p *paper, file string) error { p.put(ctr, file, "\x00 none"); return nil },
		"without end":         func(p *paper, file string) error { p.put(ctr, file, strings.Repeat("1,", maxFile)); return nil },
		"a link that leads out": func(p *paper, file string) error {
			return errors.Join(p.root.Remove(path.Join(ctr, file)), p.root.Symlink(outside, path.Join(ctr, file)))
		},
	} {
		for _, file := range []string{cpusFile, exclusiveFile, stateFile} {
			p, tree := onPaper(t, ctr)
			if err := os.WriteFile(outside, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := spoil(p, file); err != nil {
				t.Fatal(err)
			}
			err := tree.Activate(t.Context(), Partition{ctr, set(t, "4-7"), Root}, nil)
			left, _ := os.ReadFile(outside)
			if file != stateFile && err == nil || len(left) > 0 {
				t.Errorf("%s as %s: error %v, and outside is %q", name, file, err, left)
			}
		}
	}
}

func TestOpen(t *testing.T) {
	good := map[string]string{
		"cgroup.controllers": "cpuset cpu", "cgroup.subtree_control": "cpuset",
		"kubepods/" + stateFile: member, "kubepods/" + grantedFile: "",
	}
	for _, tc := range []struct{ name, file, content, reason string }{
		{"all is there", "", "", ""},
		{"no cgroup v2", "cgroup.controllers", "gone", "no cgroup v2"},
		{"cpuset is in a v1 hierarchy", "cgroup.controllers", "cpu memory", "no cpuset controller"},
		{"cpuset is not passed on", "cgroup.subtree_control", "cpu", "does not pass"},
		{"an older kernel", "kubepods/" + grantedFile, "gone", "no remote partitions"},
		{"nothing to tell", "kubepods", "gone", "start the kubelet"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for file, content := range good {
				if file == tc.file {
					content = tc.content
				}
				if content == "gone" || tc.content == "gone" && strings.HasPrefix(file, tc.file+"/") {
					continue
				}
				file = filepath.Join(dir, file)
				if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Open(dir)
			unsupported, ok := errors.AsType[*UnsupportedError](err)
			if tc.reason == "" && err != nil || tc.reason != "" && (!ok || !strings.Contains(unsupported.Error(), tc.reason) || unsupported.Remedy == "") {
				t.Errorf("the error is %v, want %q", err, tc.reason)
			}
		})
	}
}

func TestKubeletRoot(t *testing.T) {
	for cgroup, want := range map[string]string{
		"kubepods/burstable/pod1/ctr": "kubepods",
		"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-1.scope": "kubepods.slice",
		"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/cri-1.scope":      "kubelet.slice/kubelet-kubepods.slice",
		"testbed/kubepods/pod1/kubepods": "testbed/kubepods",
		"system.slice/mykubepods.scope":  "",
	} {
		if got := KubeletRoot(cgroup); got != want {
			t.Errorf("the kubelet's tree of %s is %q, want %q", cgroup, got, want)
		}
	}
}
