// Package cgroup makes, enters and removes the one cgroup subtree that a
// testbed lives in, on hosts with cgroup v1, v2 or both at once.
//
// The same path is used in every mounted hierarchy. Everything a testbed
// starts (its daemons and the containers of its pods) is somewhere below that
// path, so membership answers "which processes are ours?" even after every
// other trace of the testbed is gone.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Hierarchy is one mounted cgroup tree.
type Hierarchy struct {
	// Mount is where its root is mounted.
	Mount string
	// V2 tells the unified hierarchy from the per-controller ones of v1.
	V2 bool
	// Options are the super block's options; on v1 they name the controllers.
	Options []string
}

func (h Hierarchy) has(controller string) bool { return slices.Contains(h.Options, controller) }

// Hierarchies lists the cgroup trees mounted on this host. It fails when
// there is none.
func Hierarchies() ([]Hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list the cgroup hierarchies: %w", err)
	}
	defer f.Close()
	hs, err := parse(f)
	if err != nil {
		return nil, fmt.Errorf("list the cgroup hierarchies: %w", err)
	}
	if len(hs) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted: mount cgroup2 (or the v1 controllers) under /sys/fs/cgroup")
	}
	return hs, nil
}

func parse(mountinfo io.Reader) ([]Hierarchy, error) {
	var hs []Hierarchy
	seen := map[string]bool{}
	s := bufio.NewScanner(mountinfo)
	for s.Scan() {
		head, tail, ok := strings.Cut(s.Text(), " - ")
		fields, rest := strings.Fields(head), strings.Fields(tail)
		if !ok || len(fields) < 5 || len(rest) < 3 {
			continue
		}
		if kind := rest[0]; kind == "cgroup" || kind == "cgroup2" {
			h := Hierarchy{Mount: fields[4], V2: kind == "cgroup2", Options: strings.Split(rest[2], ",")}
			// A bind mount shows a tree a second time.
			if id := fields[2]; !seen[id] {
				seen[id] = true
				hs = append(hs, h)
			}
		}
	}
	return hs, s.Err()
}

// Ensure creates the cgroup at path in every hierarchy, ready to have
// children of its own: on v1 the cpuset files are filled from the parent,
// on v2 the controllers are switched on down to the cgroup itself when inner
// is true. A v2 cgroup with controllers switched on for its children can hold
// no process, so a cgroup that is to be entered is made with inner false.
func Ensure(hs []Hierarchy, path string, inner bool) error {
	for _, h := range hs {
		dir := h.Mount
		parts := strings.Split(strings.Trim(path, "/"), "/")
		for i, part := range parts {
			if h.V2 {
				enableControllers(dir)
			}
			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("create the cgroup %s (run as root, with a writable cgroup mount): %w", dir, err)
			}
			if h.has("cpuset") {
				if err := inheritCPUSet(parent, dir); err != nil {
					return err
				}
			}
			if h.V2 && inner && i == len(parts)-1 {
				enableControllers(dir)
			}
		}
	}
	return nil
}

// enableControllers switches on for dir's children whatever dir offers. A
// controller that the host keeps elsewhere (v1, in hybrid mode) is refused
// one by one, which is no error.
func enableControllers(dir string) {
	offered, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	for c := range strings.FieldsSeq(string(offered)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// inheritCPUSet fills the two files without which a v1 cpuset cgroup accepts
// no process.
func inheritCPUSet(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("prepare the cpuset cgroup: %w", err)
		}
		if strings.TrimSpace(string(have)) != "" {
			continue
		}
		value, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return fmt.Errorf("prepare the cpuset cgroup: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), value, 0); err != nil {
			return fmt.Errorf("prepare the cpuset cgroup: %w", err)
		}
	}
	return nil
}

// Enter moves the process pid into the cgroup at path in every hierarchy.
func Enter(hs []Hierarchy, path string, pid int) error {
	for _, h := range hs {
		file := filepath.Join(h.Mount, path, "cgroup.procs")
		if err := os.WriteFile(file, []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("enter the cgroup: %w", err)
		}
	}
	return nil
}

// Contains tells whether a process whose /proc/PID/cgroup reads so is in the
// cgroup at path, or below it, in any hierarchy.
func Contains(procCgroup, path string) bool {
	for line := range strings.Lines(procCgroup) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && (parts[2] == path || strings.HasPrefix(parts[2], path+"/")) {
			return true
		}
	}
	return false
}

// Remaining lists the folders of the cgroup at path that exist, leaves first.
func Remaining(hs []Hierarchy, path string) []string {
	var dirs []string
	for _, h := range hs {
		var mine []string
		_ = filepath.WalkDir(filepath.Join(h.Mount, path), func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				mine = append(mine, p)
			}
			return nil
		})
		slices.Reverse(mine)
		dirs = append(dirs, mine...)
	}
	return dirs
}

// Remove deletes the cgroup at path and all below it in every hierarchy. The
// processes must be dead; the kernel may need a moment to notice, for which
// Remove waits up to limit.
func Remove(hs []Hierarchy, path string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		dirs := Remaining(hs, path)
		if len(dirs) == 0 {
			return nil
		}
		var last error
		for _, dir := range dirs {
			dissolvePartition(dir)
			// A cgroup's own files go with it, so this is rmdir, not RemoveAll.
			if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				last = fmt.Errorf("rmdir %s: %w", dir, err)
			}
		}
		if last == nil {
			continue
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove the cgroup %s within %v: %w", path, limit, last)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// dissolvePartition makes a cpuset partition an ordinary member first: on some
// kernels the CPUs of a partition that is merely deleted stay lost to the host.
func dissolvePartition(dir string) {
	file := filepath.Join(dir, "cpuset.cpus.partition")
	state, err := os.ReadFile(file)
	if err == nil && !strings.HasPrefix(string(state), "member") {
		_ = os.WriteFile(file, []byte("member"), 0)
	}
}
