package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From include/uapi/linux/vfio.h.
const (
	groupGetStatus  = ';'<<8 | 103
	groupFlagViable = 1
)

type groupStatus struct{ argsz, flags uint32 }

// viable has the kernel say of each IOMMU group of a pattern, of which there must be one,
// that it can be used.
func viable(pattern string) error {
	if pattern == "" {
		return nil
	}
	groups, err := filepath.Glob(pattern)
	if err != nil || len(groups) == 0 {
		return errors.Join(fmt.Errorf("there is no %s", pattern), err)
	}
	for _, name := range groups {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		s := groupStatus{argsz: uint32(unsafe.Sizeof(groupStatus{}))}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), groupGetStatus, uintptr(unsafe.Pointer(&s))) //nolint:gosec // as the kernel wants it
		if err := f.Close(); err != nil {
			return err
		}
		if errno != 0 {
			return fmt.Errorf("ask for the status of group %s: %w", name, errno)
		}
		if s.flags&groupFlagViable == 0 {
			return fmt.Errorf("the group %s cannot be used: flags %#x", name, s.flags)
		}
	}
	return nil
}
