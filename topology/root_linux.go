package topology

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

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
	fd, err = openat2(from, rest)
	if err == nil {
		return fd, true, nil
	}
	return 0, errors.Is(err, fs.ErrNotExist), err
}

func openat2(dir *os.File, name string) (fd int, err error) {
	how := unix.OpenHow{
		// Non-blocking, for a named pipe in a snapshot must not stop the program.
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH,
	}
	for {
		fd, err = unix.Openat2(int(dir.Fd()), name, &how) //nolint:gosec // a file descriptor
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// readBounded implements boundedReader. It does without an [os.File], whose
// set-up costs as much as the reading of a sysfs file.
func (r *Root) readBounded(name string, buf []byte) (int, error) {
	fd, settled, err := r.openBeneath(name)
	if !settled {
		f, err := r.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		return readFull(f.Read, buf)
	}
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd) //nolint:errcheck // opened for reading
	return readFull(func(p []byte) (int, error) { return unix.Read(fd, p) }, buf)
}

// readFull reads to the end of the file or of buf.
func readFull(read func([]byte) (int, error), buf []byte) (n int, err error) {
	for n < len(buf) {
		more, err := read(buf[n:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, io.EOF) || err == nil && more <= 0:
			return n, nil
		case err != nil:
			return n, err
		}
		n += more
	}
	return n, nil
}
