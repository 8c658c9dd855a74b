package inuse

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// mounts are block devices that have a file system or swap space which is in use.
type mounts struct {
	// numbers are "259:2".
	numbers map[string]bool
	// names are as in sysfs, "nvme0n1p2", and swaps too.
	names, swaps map[string]bool
}

var numberPair = regexp.MustCompile(`^\d+:\d+$`)

// Disk tells how the host uses a disk or one of its partitions: "nvme0n1p2 is mounted";
// empty if it does not. The disk is given by its directory.
func (w *Hardware) Disk(dir string) (string, error) {
	dir = strings.TrimSuffix(dir, "/")
	m, err := w.mounts()
	if err != nil {
		return "", fmt.Errorf("what is mounted is not known: %w", err)
	}
	devices := []string{dir}
	for _, prefix := range []string{base(dir), base(dir) + "p"} { // sda1, nvme0n1p1
		for _, partition := range w.h.Child(dir, prefix) {
			devices = append(devices, dir+"/"+partition)
		}
	}
	for _, dir := range devices {
		name := base(dir)
		numbers, _ := w.h.Read(dir + "/dev")
		holders := w.h.Entries(dir + "/holders")
		switch {
		case !numberPair.MatchString(numbers):
			return "", fmt.Errorf("%s/dev is %q, not the numbers of a block device", dir, numbers)
		case m.numbers[numbers], m.names[name]:
			return name + " is mounted", nil
		case m.swaps[name]:
			return name + " is swap space", nil
		case len(holders) > 0:
			return name + " is a part of " + holders[0], nil
		}
	}
	return "", nil
}

func (w *Hardware) readMounts() (mounts, error) {
	m := mounts{numbers: map[string]bool{}, names: map[string]bool{}, swaps: map[string]bool{}}
	if err := w.lines("", m.mount, "proc/1/mountinfo", "proc/self/mountinfo"); err != nil {
		return m, err
	}
	if len(m.numbers) == 0 {
		return m, errors.New("there is not a single mount")
	}
	w.mountedElsewhere(m)
	// Without the file the kernel cannot swap: it shows its mounts, so proc is there.
	if err := w.lines("Filename", m.swap, "proc/swaps"); !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	return m, nil
}

// mount reads a line of mountinfo (proc_pid_mountinfo(5)):
//
//	29 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
//
// Btrfs has numbers of its own there, so the source counts as well.
func (m mounts) mount(line string) bool {
	front, back, ok := strings.Cut(line, " - ")
	fields := strings.Fields(front)
	if !ok || len(fields) < 6 || !numberPair.MatchString(fields[2]) {
		return false
	}
	m.numbers[fields[2]] = true
	if fields = strings.Fields(back); len(fields) > 1 {
		if name, isNode := strings.CutPrefix(fields[1], "/dev/"); isNode {
			m.names[sysfsName(name)] = true
		}
	}
	return true
}

// swap reads a line of swaps (proc_swaps(5)). Swap files are on mounted file systems.
//
//	/dev/nvme0n1p3                          partition	8388604		0		-2
func (m mounts) swap(line string) bool {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return false
	}
	if name, isNode := strings.CutPrefix(fields[0], "/dev/"); isNode {
		m.swaps[sysfsName(name)] = true
	}
	return true
}

// mountedElsewhere adds what is mounted where neither the first process nor this one
// sees it, in a container: some file systems list their devices below sys/fs. Btrfs lists
// there all of those that a file system is made of.
func (w *Hardware) mountedElsewhere(m mounts) {
	dirs := []string{"sys/fs/ext4", "sys/fs/xfs", "sys/fs/f2fs"}
	for _, id := range w.h.Entries("sys/fs/btrfs") {
		dirs = append(dirs, "sys/fs/btrfs/"+id+"/devices")
	}
	for _, dir := range dirs {
		for _, name := range w.h.Entries(dir) {
			m.names[name] = true
		}
	}
}

// sysfsName is how sysfs has the name of a node in a folder of /dev.
func sysfsName(node string) string { return strings.ReplaceAll(node, "/", "!") }
