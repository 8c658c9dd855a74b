// Package host changes what a testbed changes on its host outside of the state
// folder (mounts, the bridge, a few kernel settings) and puts it all back.
package host

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mounts lists the mount points at and below dir, deepest last, as often as
// each is mounted upon.
func Mounts(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list the mounts: %w", err)
	}
	defer f.Close()
	return mountsBelow(f, dir)
}

func mountsBelow(mountinfo io.Reader, dir string) ([]string, error) {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	s := bufio.NewScanner(mountinfo)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) < 5 {
			continue
		}
		if p := unescape.Replace(fields[4]); p == dir || strings.HasPrefix(p, dir+"/") {
			points = append(points, p)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("list the mounts: %w", err)
	}
	return points, nil
}

// ShareMounts makes mounts below dir visible in every mount namespace of the
// testbed, whatever the host does with its other mounts.
func ShareMounts(dir string) error {
	points, err := Mounts(dir)
	if err != nil {
		return err
	}
	mounted := false
	for _, p := range points {
		mounted = mounted || p == dir
	}
	if !mounted {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s on itself (needs root): %w", dir, err)
		}
	}
	// Private first: the host's peer group, if there is one, is not joined.
	for _, flag := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if mounted {
			break
		}
		if err := unix.Mount("", dir, "", flag, ""); err != nil {
			return fmt.Errorf("share the mounts of %s: %w", dir, err)
		}
	}
	return nil
}

// UnmountAll removes every mount at and below dir and returns how many there
// were.
func UnmountAll(dir string) (int, error) {
	count := 0
	for {
		points, err := Mounts(dir)
		if err != nil || len(points) == 0 {
			return count, err
		}
		progress := false
		var last error
		for _, point := range slices.Backward(points) {
			err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			if err == nil {
				progress = true
				count++
			} else if !errors.Is(err, unix.EINVAL) {
				last = fmt.Errorf("unmount %s: %w", point, err)
			}
		}
		if !progress {
			if last == nil {
				last = fmt.Errorf("mounts below %s remain and cannot be removed: %v", dir, points)
			}
			return count, last
		}
	}
}
