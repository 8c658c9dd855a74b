package topology

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxFile bounds what is read of a file. The longest that a kernel prints is
	// the list of every second CPU of MaxCPUs, 48 KiB; a longer file is no
	// kernel's, and is taken for absent rather than for its first part.
	maxFile = 64 << 10
	// maxEntries bounds what is read of a directory.
	maxEntries = 4 * MaxCPUs
)

// sysfs reads small files below a root. None of its methods fails: a file that
// cannot be read or understood is absent, which every caller must handle anyway.
type sysfs struct {
	root fs.FS
	// quick is root, where that can read a whole file in one call.
	quick boundedReader
	buf   []byte
	// populated are the CPUs that have a directory; the others are not looked into.
	populated CPUSet
}

// boundedReader is an ability of a root: to read without the detour of an
// [fs.File]. A machine of 512 CPUs has some ten thousand files.
type boundedReader interface {
	// readBounded reads the file into buf until its end or until buf is full.
	readBounded(name string, buf []byte) (int, error)
	// namesBounded lists a directory, or so much of it.
	namesBounded(name string, most int) ([]string, error)
	// link reads a symbolic link.
	link(name string) (string, error)
}

func newSysfs(root fs.FS) *sysfs {
	quick, _ := root.(boundedReader)
	return &sysfs{root: root, quick: quick, buf: make([]byte, maxFile+1)}
}

// read returns the content of the file without surrounding white space, or the
// NUL that some kernels end a CPU list with. It is valid until
// the next read.
func (s *sysfs) read(name string) ([]byte, bool) {
	n, err := s.fill(name)
	if err != nil || n > maxFile {
		return nil, false
	}
	return bytes.Trim(s.buf[:n], " \t\n\x00"), true
}

func (s *sysfs) fill(name string) (int, error) {
	if s.quick != nil {
		return s.quick.readBounded(name, s.buf)
	}
	f, err := s.root.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return readFull(f, s.buf)
}

// integer reads a file that holds one number.
func (s *sysfs) integer(name string) (int, bool) {
	text, ok := s.read(name)
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseInt(string(text), 10, 64)
	return int(v), err == nil
}

// unsigned reads a file that holds one number of 64 bits.
func (s *sysfs) unsigned(name string) (uint64, bool) {
	text, ok := s.read(name)
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseUint(string(text), 10, 64)
	return v, err == nil
}

// cpus reads a file that holds a CPU list; the empty list is present.
func (s *sysfs) cpus(name string) (CPUSet, bool) {
	return s.cpuSet(setFile{name: name, parse: list})
}

func (s *sysfs) cpuSet(f setFile) (CPUSet, bool) {
	text, ok := s.read(f.name)
	if !ok {
		return CPUSet{}, false
	}
	set, err := f.parse.of(string(text))
	return set, err == nil
}

// entries lists the names in a directory, in no order. The error is for the one
// caller that has to explain an empty machine.
func (s *sysfs) entries(dir string) ([]string, error) {
	if s.quick != nil {
		return s.quick.namesBounded(dir, maxEntries)
	}
	f, err := s.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: dir, Err: errors.New("not a directory")}
	}
	var names []string
	for len(names) < maxEntries {
		page, err := d.ReadDir(1024)
		for _, e := range page {
			names = append(names, e.Name())
		}
		if err != nil || len(page) == 0 {
			break
		}
	}
	return names, nil
}

// link returns where a symbolic link leads, be it nowhere.
func (s *sysfs) link(name string) (string, bool) {
	if s.quick != nil {
		target, err := s.quick.link(name)
		return target, err == nil
	}
	target, err := fs.ReadLink(s.root, name)
	return target, err == nil
}

// isDir reports whether the name, or what it links to, is a directory.
func (s *sysfs) isDir(name string) bool {
	info, err := fs.Stat(s.root, name)
	return err == nil && info.IsDir()
}

// exists reports whether there is such an entry, be it a link that leads nowhere.
func (s *sysfs) exists(name string) bool {
	_, err := fs.Lstat(s.root, name)
	return err == nil
}

// numbered picks the names "prefixN" and returns each N, ascending. Names that
// the kernel would write otherwise, such as cpu007, are not meant.
func numbered(names []string, prefix string) []int {
	var ids []int
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		id, err := strconv.ParseUint(digits, 10, 31)
		if err != nil || strconv.FormatUint(id, 10) != digits {
			continue
		}
		ids = append(ids, int(id))
	}
	slices.Sort(ids)
	return ids
}

// setFile is a file that holds a set of CPUs.
type setFile struct {
	name  string
	parse setFormat
}

// setFormat is one of the two ways in which the kernel prints CPUs.
type setFormat int

const (
	list setFormat = iota // ParseCPUSet
	mask                  // ParseCPUMask
	setFormats
)

func (f setFormat) of(text string) (CPUSet, error) {
	if f == mask {
		return ParseCPUMask(text)
	}
	return ParseCPUSet(text)
}
