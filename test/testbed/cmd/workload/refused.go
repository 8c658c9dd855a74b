package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// refused returns an error unless the kernel refuses to open every device of a list,
// "b:259:0,c:10:196", but for those that have a node in /dev: who may make nodes gets no
// further with them.
func refused(list string) error {
	if list == "" {
		return nil
	}
	own, err := ownNodes()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/", "nodes-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // goes with the container
	tried := 0
	for entry := range strings.SplitSeq(list, ",") {
		var kind rune
		var major, minor int
		if n, err := fmt.Sscanf(entry, "%c:%d:%d", &kind, &major, &minor); err != nil || n != 3 {
			return fmt.Errorf("device %q is not b:MAJOR:MINOR or c:MAJOR:MINOR", entry)
		}
		mode := uint32(syscall.S_IFCHR)
		if kind == 'b' {
			mode = syscall.S_IFBLK
		}
		number := major<<8 | minor&0xff | (minor&^0xff)<<12
		if own[node{mode, uint64(number)}] { //nolint:gosec // small numbers
			continue
		}
		name := filepath.Join(dir, strings.ReplaceAll(entry, ":", "-"))
		if err := syscall.Mknod(name, mode|0o600, number); err != nil {
			return fmt.Errorf("make a node of %s: %w", entry, err)
		}
		f, err := os.Open(name)
		if err == nil {
			return errors.Join(fmt.Errorf("device %s could be opened", entry), f.Close())
		}
		if !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("device %s: %w, want %w", entry, err, syscall.EPERM)
		}
		tried++
	}
	if tried == 0 {
		return fmt.Errorf("all of %s are in /dev", list)
	}
	return nil
}

// node is a device's type and number.
type node struct {
	mode   uint32
	number uint64
}

// ownNodes are the devices with a node in /dev.
func ownNodes() (map[node]bool, error) {
	own := map[node]bool{}
	err := filepath.WalkDir("/dev", func(name string, _ os.DirEntry, err error) error {
		var stat syscall.Stat_t
		if err == nil && syscall.Lstat(name, &stat) == nil {
			own[node{stat.Mode & syscall.S_IFMT, stat.Rdev}] = true
		}
		return nil
	})
	return own, err
}
