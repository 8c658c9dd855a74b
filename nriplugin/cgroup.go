package nriplugin

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/topolet/topolet/topology"
)

// cgroups reads containers' cpusets from the kernel.
type cgroups struct {
	// root holds sys/fs/cgroup.
	root fs.FS
	// unified tells cgroup v2; a host does not change it while it runs.
	unified func() bool
}

const cgroupMount = "sys/fs/cgroup"

func newCgroups(root fs.FS) cgroups {
	return cgroups{root: root, unified: sync.OnceValue(func() bool {
		_, err := fs.Stat(root, cgroupMount+"/cgroup.controllers")
		return err == nil
	})}
}

// effective returns the CPUs on which the kernel lets the cgroup's tasks run.
// The name is the runtime's cgroups path. A cgroup that does not exist (any
// more) is fs.ErrNotExist.
func (c cgroups) effective(name string) (topology.CPUSet, error) {
	rel, err := cgroupPath(name)
	if err != nil {
		return topology.CPUSet{}, err
	}
	var lastErr error
	for _, file := range c.candidates(rel) {
		data, err := fs.ReadFile(c.root, file)
		if errors.Is(err, fs.ErrNotExist) {
			lastErr = err
			continue
		}
		if err != nil {
			return topology.CPUSet{}, fmt.Errorf("read the CPUs of cgroup %s: %w", name, err)
		}
		cpus, err := topology.ParseCPUSet(string(data))
		if err != nil {
			return topology.CPUSet{}, fmt.Errorf("%s: %w", file, err)
		}
		return cpus, nil
	}
	return topology.CPUSet{}, fmt.Errorf("read the CPUs of cgroup %s: %w", name, lastErr)
}

// candidates lists the files that hold the effective CPUs: of cgroup v2
// (Documentation/admin-guide/cgroup-v2.rst, Cpuset), or of the cpuset hierarchy
// of cgroup v1 (Documentation/admin-guide/cgroup-v1/cpusets.rst), whose older
// kernels have the plain file only.
func (c cgroups) candidates(rel string) []string {
	if c.unified() {
		return []string{path.Join(cgroupMount, rel, "cpuset.cpus.effective")}
	}
	return []string{
		path.Join(cgroupMount, "cpuset", rel, "cpuset.effective_cpus"),
		path.Join(cgroupMount, "cpuset", rel, "cpuset.cpus"),
	}
}

// cgroupPath turns the runtime's cgroups path into a path below the cgroup
// mount. The cgroupfs driver's is one already; the systemd driver's is
// "slice:prefix:name", for a scope in a slice whose parents are spelled out in
// its name (systemd.slice(5)).
func cgroupPath(name string) (string, error) {
	if name == "" {
		return "", errors.New("the runtime does not tell the container's cgroup")
	}
	parts := strings.Split(name, ":")
	if len(parts) != 3 {
		rel := strings.TrimPrefix(path.Clean("/"+name), "/")
		if rel == "" {
			return "", fmt.Errorf("cgroup %q is the root", name)
		}
		return rel, nil
	}
	slice, prefix, scope := parts[0], parts[1], parts[2]+".scope"
	dir, err := slicePath(slice)
	if err != nil || parts[2] == "" || strings.Contains(name, "/") {
		return "", fmt.Errorf("cgroup %q: want slice:prefix:name", name)
	}
	if prefix != "" {
		scope = prefix + "-" + scope
	}
	return path.Join(dir, scope), nil
}

// slicePath spells out the parents of a slice: a-b.slice is in a.slice, and
// -.slice is the root.
func slicePath(slice string) (string, error) {
	name, isSlice := strings.CutSuffix(slice, ".slice")
	if name == "-" && isSlice {
		return "", nil
	}
	var dir, parent string
	for part := range strings.SplitSeq(name, "-") {
		if part == "" || !isSlice {
			return "", fmt.Errorf("%q is not the name of a slice", slice)
		}
		parent += part
		dir = path.Join(dir, parent+".slice")
		parent += "-"
	}
	return dir, nil
}
