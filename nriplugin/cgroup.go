package nriplugin

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/topolet/topolet/topology"
)

// cgroups reads containers' cpusets from the kernel.
type cgroups struct {
	// root holds sys/fs/cgroup.
	root fs.FS
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
	const mount = "sys/fs/cgroup"
	if _, err := fs.Stat(c.root, mount+"/cgroup.controllers"); err == nil {
		return []string{path.Join(mount, rel, "cpuset.cpus.effective")}
	}
	return []string{
		path.Join(mount, "cpuset", rel, "cpuset.effective_cpus"),
		path.Join(mount, "cpuset", rel, "cpuset.cpus"),
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
	slice, isSlice := strings.CutSuffix(parts[0], ".slice")
	if !isSlice || strings.Contains(name, "/") {
		return "", fmt.Errorf("cgroup %q: want slice:prefix:name", name)
	}
	var rel string
	for i, r := range slice {
		if r == '-' && i > 0 {
			rel = path.Join(rel, slice[:i]+".slice")
		}
	}
	scope := parts[2] + ".scope"
	if parts[1] != "" {
		scope = parts[1] + "-" + scope
	}
	return path.Join(rel, slice+".slice", scope), nil
}
