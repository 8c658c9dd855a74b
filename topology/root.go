package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Root is a directory of the host that [Discover] reads in place of "/". Links
// are followed only inside it: a snapshot from elsewhere cannot make the
// program read files of this host.
//
// Every name is resolved by [os.Root], one system call and more for each part
// of the path. Where the kernel can do the same in a single call, that is tried
// first (see openBeneath), and [os.Root] answers what is not settled by it.
type Root struct {
	root *os.Root
	// dir is the root directory, and cpu the one below it that nine of ten files
	// are in: the kernel need not walk to it again for each of them. Either may
	// be nil.
	dir, cpu *os.File
}

var _ interface {
	fs.ReadLinkFS
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
	fd, settled, err := r.openBeneath(name)
	if !settled {
		return r.root.Open(name)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil //nolint:gosec // not negative
}

// Stat implements [fs.StatFS].
func (r *Root) Stat(name string) (fs.FileInfo, error) { return r.root.Stat(name) }

// Lstat implements [fs.ReadLinkFS].
func (r *Root) Lstat(name string) (fs.FileInfo, error) { return r.root.Lstat(name) }

// ReadLink implements [fs.ReadLinkFS].
func (r *Root) ReadLink(name string) (string, error) { return r.root.Readlink(name) }
