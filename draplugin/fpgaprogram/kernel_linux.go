package fpgaprogram

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Linux is the kernel of this machine.
type Linux struct{}

// Open implements [Kernel].
func (Linux) Open(path string) (Node, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var stat unix.Stat_t
	err = unix.Fstat(fd, &stat)
	if err == nil && stat.Mode&unix.S_IFMT != unix.S_IFCHR {
		err = syscall.ENOTTY
	}
	if err != nil {
		unix.Close(fd) //nolint:errcheck // nothing was written
		return nil, err
	}
	return linuxNode{fd: fd, device: stat.Rdev}, nil
}

type linuxNode struct {
	fd     int
	device uint64
}

func (n linuxNode) Numbers() (major, minor int64) {
	return int64(unix.Major(n.device)), int64(unix.Minor(n.device))
}

func (n linuxNode) Ioctl(request uint, argument unsafe.Pointer) (int, error) {
	for {
		answer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), uintptr(request), uintptr(argument))
		if errno == 0 {
			return int(answer), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

func (n linuxNode) Close() error { return unix.Close(n.fd) }
