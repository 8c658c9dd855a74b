package partition

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/topolet/topolet/topology"
)

// Tree is the host's cgroup v2 hierarchy. It has one lock, so of its methods one
// works at a time. What it remembers is only where to tidy up.
type Tree struct {
	files files

	mu sync.Mutex
	// roots are the kubelets' trees. All in them is tidied.
	roots map[string]bool
	// prepared are cgroups that were to pass CPUs down.
	prepared map[string]bool
}

// Open finds out whether the hierarchy whose mount is at this folder can have
// partitions; if not, the error is an *UnsupportedError. It changes nothing.
func Open(mount string) (*Tree, error) {
	root, err := os.OpenRoot(mount)
	if err != nil {
		return nil, fmt.Errorf("open the cgroup hierarchy: %w", err)
	}
	t := newTree(mounted{root})
	reason, remedy, err := t.unsupported()
	if err == nil && reason != "" {
		err = &UnsupportedError{mount, reason, remedy}
	}
	if err == nil {
		err = writable(root, mount)
	}
	if err != nil {
		_ = root.Close()
		return nil, err
	}
	return t, nil
}

func newTree(f files) *Tree {
	return &Tree{files: f, roots: map[string]bool{}, prepared: map[string]bool{}}
}

func (t *Tree) unsupported() (reason, remedy string, err error) {
	for _, file := range []struct{ name, without, remedy string }{
		{"cgroup.controllers", "the kernel has no cpuset controller in it", "build the kernel with CONFIG_CPUSETS, and mount cpuset in no cgroup v1 hierarchy"},
		{"cgroup.subtree_control", "the root does not pass the cpuset controller on", `write "+cpuset" to cgroup.subtree_control, as the kubelet does when it starts`},
	} {
		text, err := t.files.read(top, file.name)
		if errors.Is(err, fs.ErrNotExist) {
			return "it is no cgroup v2 hierarchy", "boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all, and name the folder of the cgroup2 mount", nil
		}
		if err != nil {
			return "", "", fmt.Errorf("cgroup %s: %s: %w", top, file.name, err)
		}
		if !slices.Contains(strings.Fields(text), "cpuset") {
			return file.without, file.remedy, nil
		}
	}
	children, err := t.files.children(top)
	if err != nil {
		return "", "", fmt.Errorf("cgroup %s: %w", top, err)
	}
	for _, c := range children {
		if _, err = t.files.read(c, grantedFile); !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
		// A cgroup that is removed meanwhile says nothing, nor does a threaded one.
		if _, err = t.files.read(c, stateFile); err == nil {
			return "the kernel has no remote partitions", "use Linux 6.7 or later", nil
		}
	}
	return "the root has no cgroup with a cpuset in it that could tell whether the kernel has remote partitions", "start the kubelet before", nil
}

// writable opens a file for writing: a mount that is read-only shows then.
func writable(root *os.Root, mount string) error {
	f, err := root.OpenFile("cgroup.subtree_control", os.O_WRONLY, 0)
	if err != nil {
		return &UnsupportedError{mount, "it cannot be written to: " + err.Error(), "mount the host's hierarchy into the container without readOnly, and run as root"}
	}
	return f.Close()
}

// Roots tells the tree where the kubelet keeps its pods: the trees that KubeletRoot
// finds in these cgroups of pods or containers are tidied as a whole from now on.
func (t *Tree) Roots(cgroups ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range cgroups {
		if root := KubeletRoot(c); root != "" && fs.ValidPath(root) {
			t.roots[root] = true
		}
	}
}

// Check returns nil while the partition holds: also while some of its CPUs are
// offline. It returns a *BrokenError when it does not, and fs.ErrNotExist when the
// cgroup is gone. A broken one is to be mended with Activate or ended with Deactivate
// before its cgroup is removed: see LostError.
func (t *Tree) Check(p Partition) error {
	if err := p.validate(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.check(p)
}

func (t *Tree) check(p Partition) error {
	state, err := t.text(p.Cgroup, stateFile)
	if err != nil {
		return err
	}
	if state != string(p.Kind) {
		return &BrokenError{p, state}
	}
	granted, err := t.set(p.Cgroup, grantedFile)
	if err != nil {
		return err
	}
	effective, err := t.set(p.Cgroup, effectiveFile)
	if err != nil {
		return err
	}
	if !granted.Equals(p.CPUs) || effective.IsEmpty() || !effective.IsSubsetOf(p.CPUs) {
		return &BrokenError{p, fmt.Sprintf("%s with CPUs %s, of which it uses %s", state, granted, effective)}
	}
	// The partition outlives the emptying of a cgroup above it, but at its end the
	// kernel does not give its CPUs back: seen on 6.12.
	for _, dir := range ancestors(p.Cgroup) {
		passed, err := t.set(dir, exclusiveFile)
		if err != nil {
			return err
		}
		if !p.CPUs.IsSubsetOf(passed) {
			return &BrokenError{p, fmt.Sprintf("%s with CPUs %s, of which cgroup %s passes %q down", state, granted, dir, passed)}
		}
	}
	return nil
}

// partitions are the CPUs of the partitions that are in force in the cgroup, by
// their cgroups. A partition in a partition is part of it.
func (t *Tree) partitions(cgroup string) (map[string]topology.CPUSet, error) {
	found := map[string]topology.CPUSet{}
	err := t.walk(cgroup, grantedFile, func(c string, cpus topology.CPUSet) (descend bool, err error) {
		state, err := t.text(c, stateFile)
		if err != nil || !isPartition(state) {
			return true, err
		}
		found[c] = cpus
		return false, nil
	})
	return found, err
}

// walk visits the cgroups in this one, from the top, whose file with a CPU list is
// not empty: below others there is none in which it matters. What is removed
// meanwhile is left out.
func (t *Tree) walk(cgroup, file string, visit func(cgroup string, cpus topology.CPUSet) (descend bool, err error)) error {
	children, err := t.files.children(cgroup)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &SettingError{Cgroup: cgroup, File: "its cgroups", Err: err}
	}
	for _, c := range children {
		if strings.Count(c, "/") >= maxDepth {
			return &SettingError{Cgroup: c, File: "depth", Err: fmt.Errorf("more than %d cgroups below the root", maxDepth)}
		}
		cpus, err := t.set(c, file)
		descend := false
		if err == nil && !cpus.IsEmpty() {
			descend, err = visit(c, cpus)
		}
		if err == nil && descend {
			err = t.walk(c, file, visit)
		}
		if err != nil && !absent(err) {
			return err
		}
	}
	return nil
}

// held are the CPUs of those of the partitions that are in the cgroup.
func held(found map[string]topology.CPUSet, cgroup string) topology.CPUSet {
	var cpus topology.CPUSet
	for c, has := range found {
		if below(c, cgroup) {
			cpus = cpus.Union(has)
		}
	}
	return cpus
}

// Tidy takes the CPUs from the cgroups above the partitions that no partition in
// them needs: call it after a container ended. What it looks at are the kubelet's
// trees and the cgroups above them and above the live partitions. A partition that
// is in force is left alone, also when it is not among the live ones.
//
// A partition that the kernel calls invalid while it keeps its CPUs from everyone is
// ended: these go back to the host. If the cgroup is gone already, the error is a
// *LostError.
func (t *Tree) Tidy(ctx context.Context, live []Partition) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range live {
		if err := p.validate(); err != nil {
			return err
		}
		t.remember(p.Cgroup)
	}
	return t.tidy(live)
}

// remember keeps where to tidy up after a partition of this cgroup.
func (t *Tree) remember(cgroup string) {
	if root := KubeletRoot(cgroup); root != "" {
		t.roots[root] = true
		return
	}
	for _, dir := range append(ancestors(cgroup), cgroup) {
		t.prepared[dir] = true
	}
}
