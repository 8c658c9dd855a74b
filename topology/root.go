package topology

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Root is a directory of the host that [Discover] reads in place of "/". Links
// are followed only inside it: a snapshot from elsewhere cannot make the
// program read files of this host.
//
// [os.Root] resolves every name, with a system call or more for each part of the
// path. Where the kernel can do the same in a single call, [Discover] has that
// tried first (see openBeneath), and what is not settled by it is left to [os.Root].
type Root struct {
	root *os.Root
	// dir is the root directory, and cpu the one below it that nine of ten files
	// are in: the kernel need not walk to it again for each of them. Either may
	// be nil.
	dir, cpu *os.File
}

var _ interface {
	fs.ReadLinkFS
	fs.ReadFileFS
	fs.StatFS
	boundedReader
} = (*Root)(nil)

// OpenRoot opens a directory; "/" is the machine itself.
func OpenRoot(dir string) (*Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the machine's file system: %w", err)
	}
	r := &Root{root: root}
	// Without these two files everything works, only slower.
	r.dir, _ = root.Open(".")
	r.cpu, _ = root.Open(cpuDir)
	return r, nil
}

// Close ends the use of the directory.
func (r *Root) Close() error {
	errs := []error{r.root.Close()}
	for _, f := range []*os.File{r.dir, r.cpu} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Open implements [fs.FS].
func (r *Root) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return r.root.Open(name)
}

// smallFile is longer than most files of the kernel.
const smallFile = 1 << 10

// ReadFile implements [fs.ReadFileFS]. A small file takes three system calls, however
// deep it lies.
func (r *Root) ReadFile(name string) ([]byte, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	buf := make([]byte, smallFile)
	n, err := r.readBounded(name, buf)
	switch {
	case err != nil:
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	case n == len(buf):
		return r.root.ReadFile(name)
	}
	return buf[:n], nil
}

// open opens a file the quick way, if there is one.
func (r *Root) open(name string) (*os.File, error) {
	fd, settled, err := r.openBeneath(name)
	if !settled {
		return r.root.OpenFile(name, os.O_RDONLY|nonBlocking, 0)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readSlowly is readBounded by way of [os.Root].
func (r *Root) readSlowly(name string, buf []byte) (int, error) {
	f, err := r.root.OpenFile(name, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	return readFull(f, buf)
}

// readFull reads until the end of the file or until buf is full.
func readFull(f io.Reader, buf []byte) (int, error) {
	n, err := io.ReadFull(f, buf)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// namesBounded implements boundedReader.
func (r *Root) namesBounded(name string, most int) ([]string, error) {
	f, err := r.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	names, err := f.Readdirnames(most)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return names, nil
}

// Stat implements [fs.StatFS].
func (r *Root) Stat(name string) (fs.FileInfo, error) { return r.root.Stat(name) }

// Lstat implements [fs.ReadLinkFS].
func (r *Root) Lstat(name string) (fs.FileInfo, error) { return r.root.Lstat(name) }

// ReadLink implements [fs.ReadLinkFS].
func (r *Root) ReadLink(name string) (string, error) { return r.root.Readlink(name) }
