// Command launch becomes another program after it has put itself where that
// program belongs: in the testbed's cgroup and, with -bind, in a mount
// namespace where folders whose paths are fixed in the program's source
// (/var/lib/kubelet, /run/containerd) are folders of the testbed.
//
// It exists because both have to be true before the program's first
// instruction: a process moved to a cgroup after its start may already have
// children elsewhere.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/topolet/topolet/test/testbed/internal/cgroup"
	"github.com/topolet/topolet/test/testbed/internal/mountpoint"
)

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// A mount namespace belongs to a thread: what enters it, mounts in it and
// becomes the program has to be one and the same.
func init() { runtime.LockOSThread() }

func main() {
	var binds list
	group := flag.String("cgroup", "", "cgroup `path` to enter in every hierarchy")
	share := flag.String("share", "", "mount `point` whose mounts stay visible outside although -bind is used")
	flag.Var(&binds, "bind", "`SOURCE:TARGET` to bind mount in a mount namespace of its own; may be repeated")
	flag.Parse()
	if err := run(*group, *share, binds, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "launch:", err)
		os.Exit(1)
	}
}

func run(group, share string, binds, args []string) error {
	if len(args) == 0 {
		return errors.New("name the program to become, with its full path, after the flags")
	}
	if group != "" {
		hs, err := cgroup.Hierarchies()
		if err != nil {
			return err
		}
		if err := cgroup.Enter(hs, group, os.Getpid()); err != nil {
			return err
		}
	}
	if len(binds) > 0 {
		if err := privateMounts(share, binds); err != nil {
			return err
		}
	}
	if err := syscall.Exec(args[0], args, os.Environ()); err != nil {
		return fmt.Errorf("become %s: %w", args[0], err)
	}
	return nil
}

// privateMounts enters a new mount namespace and binds there. Mounts below
// share keep travelling both ways, because the kubelet's volumes have to
// reach the runtime; all others only travel in.
func privateMounts(share string, binds []string) error {
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace (needs root): %w", err)
	}
	points, err := sharedMounts(share)
	if err != nil {
		return err
	}
	for _, p := range points {
		// A mount that another one hides cannot be reached by its path, and
		// need not be.
		if err := syscall.Mount("", p, "", syscall.MS_SLAVE, ""); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("keep mounts at %s to this namespace: %w", p, err)
		}
	}
	// Held until this process becomes another program.
	if _, err := mountpoint.Lock(false); err != nil {
		return err
	}
	for _, b := range binds {
		source, target, ok := strings.Cut(b, ":")
		if !ok {
			return fmt.Errorf("-bind %q: write SOURCE:TARGET", b)
		}
		if err := mountpoint.Make(target); err != nil {
			return err
		}
		if err := syscall.Mount(source, target, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s at %s: %w", source, target, err)
		}
		if err := syscall.Mount("", target, "", syscall.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("keep %s private: %w", target, err)
		}
	}
	return nil
}

// sharedMounts lists the mount points that share their mounts with other
// namespaces, except those at or below keep.
func sharedMounts(keep string) ([]string, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var points []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) < 7 {
			continue
		}
		point := unescape(fields[4])
		if keep != "" && (point == keep || strings.HasPrefix(point, keep+"/")) {
			continue
		}
		for _, tag := range fields[6:] {
			if tag == "-" {
				break
			}
			if strings.HasPrefix(tag, "shared:") {
				points = append(points, point)
			}
		}
	}
	return points, s.Err()
}

// unescape undoes the octal form in which the kernel writes white space.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
