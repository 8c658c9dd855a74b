package topology

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// nonBlocking is a flag to open files with: a named pipe in a snapshot must not
// stop the program.
const nonBlocking = unix.O_NONBLOCK

// openBeneath opens a file below the root in one system call, openat2 of Linux
// 5.6. The answer is not settled where that call is missing or forbidden, where
// a link leads to ".." and beyond, or for any other trouble but absence.
func (r *Root) openBeneath(name string) (fd int, settled bool, err error) {
	if r.dir == nil {
		return 0, false, nil
	}
	from, rest := r.dir, name
	if inside, ok := strings.CutPrefix(name, cpuDir+"/"); ok && r.cpu != nil {
		from, rest = r.cpu, inside
	}
	fd, err = openat2(from, rest, unix.O_RDONLY|nonBlocking)
	if err == nil {
		return fd, true, nil
	}
	return 0, errors.Is(err, fs.ErrNotExist), err
}

func openat2(dir *os.File, name string, flags uint64) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH,
	}
	for {
		fd, err = unix.Openat2(int(dir.Fd()), name, &how)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// link implements boundedReader.
func (r *Root) link(name string) (string, error) {
	if r.dir == nil {
		return r.ReadLink(name)
	}
	fd, err := openat2(r.dir, name, unix.O_PATH|unix.O_NOFOLLOW)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", err
	case err != nil:
		return r.ReadLink(name)
	}
	defer unix.Close(fd) //nolint:errcheck // opened for reading
	buf := make([]byte, 256)
	n, err := unix.Readlinkat(fd, "", buf)
	switch {
	case err != nil:
		return "", err
	case n == len(buf):
		return r.ReadLink(name)
	}
	return string(buf[:n]), nil
}

// readBounded implements boundedReader. It does without an [os.File], whose
// set-up costs as much as the reading of a sysfs file.
func (r *Root) readBounded(name string, buf []byte) (int, error) {
	fd, settled, err := r.openBeneath(name)
	if !settled {
		return r.readSlowly(name, buf)
	}
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd) //nolint:errcheck // opened for reading
	n := 0
	for n < len(buf) {
		more, err := unix.Read(fd, buf[n:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return n, err
		case more <= 0, more < os.Getpagesize() && strings.HasPrefix(name, "sys/"):
			// Sysfs hands out whole pages but for the last one, which spares another call;
			// proc hands out as many whole lines as it likes.
			return n + max(more, 0), nil
		default:
			n += more
		}
	}
	return n, nil
}
