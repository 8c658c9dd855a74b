package topology

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Files reads the small files of a machine, those of its devices' drivers above all,
// with the care of [Discover]: what is missing, oversized or garbled is absent. It is
// not safe for concurrent use.
type Files struct{ sysfs *sysfs }

// NewFiles returns the files below a root, as [Discover] takes it.
func NewFiles(root fs.FS) Files { return Files{newSysfs(root)} }

// Read returns the content of a file without surrounding white space.
func (f Files) Read(name string) (string, bool) {
	text, ok := f.sysfs.read(name)
	return string(text), ok
}

// ReadError is Read with the kernel's reason: drivers of devices that are being reset
// answer with ENODEV or EIO.
func (f Files) ReadError(name string) (string, error) {
	if _, err := f.sysfs.fill(name); err != nil {
		return "", err
	}
	text, ok := f.Read(name)
	if !ok {
		return "", &fs.PathError{Op: "read", Path: name, Err: fs.ErrInvalid}
	}
	return text, nil
}

// maxLong bounds what is read of a file that grows with what the host does.
const maxLong = 8 << 20

// ReadLong is ReadError for files of proc such as mountinfo, which may have thousands of
// lines. One that is longer than any sensible host's is an error.
func (f Files) ReadLong(name string) (string, error) {
	file, err := f.sysfs.root.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(file, maxLong+1))
	if err == nil && len(text) > maxLong {
		err = &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is longer than %d bytes", maxLong)}
	}
	return strings.TrimSpace(string(text)), err
}

// Int reads a file that holds one decimal number.
func (f Files) Int(name string) (int64, bool) {
	v, ok := f.sysfs.integer(name)
	return int64(v), ok
}

// Uint reads a file that holds one decimal number of 64 bits.
func (f Files) Uint(name string) (uint64, bool) { return f.sysfs.unsigned(name) }

// Link returns where a symbolic link leads, be it nowhere.
func (f Files) Link(name string) (string, bool) { return f.sysfs.link(name) }

// Entries lists the names in a directory in ascending order; none if there is no such
// directory.
func (f Files) Entries(dir string) []string {
	names, _ := f.sysfs.entries(dir)
	slices.Sort(names)
	return names
}

// Exists reports whether there is such an entry, be it a link that leads nowhere.
func (f Files) Exists(name string) bool { return f.sysfs.exists(name) }
