package sysfs

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Writer changes settings of the kernel.
type Writer interface {
	// Write writes data to a file in one piece. The name is that of [topology.Files]: below
	// the root, without a leading slash. The context is looked at before; the write itself
	// takes as long as the kernel does. The error has the kernel's number in it.
	Write(ctx context.Context, name, data string) error
}

// OSWriter writes to the files of PCI functions, of the parts of accelerators (DSA and IAA)
// and of the drivers of both, and to no others.
type OSWriter struct{ sys *os.Root }

// OpenWriter returns the writer of a host by its root folder; "/" is this one. Links are
// followed only inside its sysfs.
func OpenWriter(root string) (*OSWriter, error) {
	sys, err := os.OpenRoot(filepath.Join(root, "sys"))
	if err != nil {
		return nil, fmt.Errorf("opening the machine's sysfs: %w", err)
	}
	return &OSWriter{sys}, nil
}

// places are below sys.
var places = []string{"bus/pci/", "bus/dsa/", "devices/"}

// Close ends the use of the folder.
func (w *OSWriter) Close() error { return w.sys.Close() }

// Write implements [Writer].
func (w *OSWriter) Write(ctx context.Context, name, data string) error {
	inside, ok := strings.CutPrefix(name, "sys/")
	if !ok || !fs.ValidPath(name) || !slices.ContainsFunc(places, func(dir string) bool { return strings.HasPrefix(inside, dir) }) {
		return &fs.PathError{Op: "write", Path: name, Err: fs.ErrInvalid}
	}
	if err := ctx.Err(); err != nil {
		return &fs.PathError{Op: "write", Path: name, Err: err}
	}
	f, err := w.sys.OpenFile(inside, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	err = writeOnce(f, data)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

// writeOnce makes one system call: what os.File writes again after an interruption, or
// because something is left, the kernel would take for another request.
func writeOnce(f *os.File, data string) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		n, failed = syscall.Write(int(fd), []byte(data))
		return true
	})
	switch {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case n < len(data):
		return fmt.Errorf("the kernel took %d of %d bytes", n, len(data))
	}
	return nil
}
