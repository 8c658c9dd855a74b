package snapshot

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Tree is a file system in memory: directories, regular files and symbolic
// links, which is all that a sysfs has, and all that a snapshot has. Unlike [testing/fstest.MapFS] it stays
// fast with the tens of thousands of files of a large machine.
//
// Links are followed as below a root of their own: ".." ends at the top, and an
// absolute target starts there. A Tree may be read from many goroutines, but not
// changed meanwhile.
type Tree struct {
	top *entry
	// dirs counts the directories that were ever made: names in an archive can
	// ask for many more of them than there are names.
	dirs int
}

var _ interface {
	fs.ReadLinkFS
	fs.StatFS
} = (*Tree)(nil)

// entry is a directory where children is not nil, a link where target is not "",
// and else a regular file.
type entry struct {
	children map[string]*entry
	target   string
	content  []byte
}

func newDir() *entry { return &entry{children: map[string]*entry{}} }

// NewTree returns an empty tree.
func NewTree() *Tree { return &Tree{top: newDir()} }

// File sets a file's content, and makes the directories that lead to it. What
// was in the way is replaced.
func (t *Tree) File(name, content string) *Tree {
	t.put(name, &entry{content: []byte(content)})
	return t
}

// Link sets a symbolic link.
func (t *Tree) Link(name, target string) *Tree {
	t.put(name, &entry{target: target})
	return t
}

// Dir makes a directory, unless there is one.
func (t *Tree) Dir(name string) *Tree {
	t.dir(name)
	return t
}

// Remove takes away a file, or a directory with everything in it.
func (t *Tree) Remove(name string) *Tree {
	if parent, err := t.find(path.Dir(path.Clean(name)), true, new(int)); err == nil && parent.children != nil {
		delete(parent.children, path.Base(name))
	}
	return t
}

// Files lists the names of the regular files and links.
func (t *Tree) Files() []string {
	var names []string
	var walk func(dir string, e *entry)
	walk = func(dir string, e *entry) {
		for _, name := range e.sorted() {
			child := e.children[name]
			if child.children != nil {
				walk(path.Join(dir, name), child)
			} else {
				names = append(names, path.Join(dir, name))
			}
		}
	}
	walk("", t.top)
	return names
}

// Write puts the tree on disk below dir, which may exist. The links of a tree
// that lead out of dir would lead there on disk as well.
func (t *Tree) Write(dir string) error {
	return t.top.write(dir)
}

func (e *entry) write(name string) error {
	switch {
	case e.children != nil:
		if err := os.MkdirAll(name, 0o755); err != nil { //nolint:gosec // G301: as readable as a sysfs
			return err
		}
		for _, child := range e.sorted() {
			if err := e.children[child].write(filepath.Join(name, child)); err != nil {
				return err
			}
		}
		return nil
	case e.target != "":
		return os.Symlink(e.target, name)
	default:
		return os.WriteFile(name, e.content, 0o644) //nolint:gosec // G306: as readable as a sysfs
	}
}

func (t *Tree) put(name string, e *entry) {
	name = path.Clean(name)
	t.dir(path.Dir(name)).children[path.Base(name)] = e
}

func (t *Tree) dir(name string) *entry {
	at := t.top
	if name = path.Clean(name); name == "." {
		return at
	}
	for part := range strings.SplitSeq(name, "/") {
		next := at.children[part]
		if next == nil || next.children == nil {
			next = newDir()
			at.children[part] = next
			t.dirs++
		}
		at = next
	}
	return at
}

// maxLinks is the kernel's bound on the links in one path (MAXSYMLINKS).
const maxLinks = 40

var errTooManyLinks = errors.New("too many levels of symbolic links")

// find resolves the name; links counts those that were followed on the way.
func (t *Tree) find(name string, follow bool, links *int) (*entry, error) {
	trail := []*entry{t.top}
	var walk func(name string, follow bool) error
	walk = func(name string, follow bool) error {
		parts := strings.Split(name, "/")
		for i, part := range parts {
			switch part {
			case "", ".":
				continue
			case "..":
				if len(trail) > 1 {
					trail = trail[:len(trail)-1]
				}
				continue
			}
			next := trail[len(trail)-1].children[part]
			if next == nil {
				return fs.ErrNotExist
			}
			if next.target == "" || (i == len(parts)-1 && !follow) {
				trail = append(trail, next)
				continue
			}
			if *links++; *links > maxLinks {
				return errTooManyLinks
			}
			if path.IsAbs(next.target) {
				trail = trail[:1]
			}
			if err := walk(next.target, true); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(name, follow); err != nil {
		return nil, err
	}
	return trail[len(trail)-1], nil
}

func (t *Tree) lookup(op, name string, follow bool) (*entry, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	e, err := t.find(name, follow, new(int))
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return e, nil
}

// Open implements [fs.FS].
func (t *Tree) Open(name string) (fs.File, error) {
	e, err := t.lookup("open", name, true)
	if err != nil {
		return nil, err
	}
	f := openEntry{info: info{path.Base(name), e}}
	if e.children == nil {
		f.Reader.Reset(e.content)
		return &openFile{f}, nil
	}
	return &openDir{openEntry: f, names: e.sorted()}, nil
}

// Stat implements [fs.StatFS].
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	e, err := t.lookup("stat", name, true)
	if err != nil {
		return nil, err
	}
	return info{path.Base(name), e}, nil
}

// Lstat implements [fs.ReadLinkFS].
func (t *Tree) Lstat(name string) (fs.FileInfo, error) {
	e, err := t.lookup("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return info{path.Base(name), e}, nil
}

// ReadLink implements [fs.ReadLinkFS].
func (t *Tree) ReadLink(name string) (string, error) {
	e, err := t.lookup("readlink", name, false)
	if err != nil {
		return "", err
	}
	if e.target == "" {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return e.target, nil
}

func (e *entry) sorted() []string {
	names := make([]string, 0, len(e.children))
	for name := range e.children {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// info is the [fs.FileInfo] of an entry.
type info struct {
	name  string
	entry *entry
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return int64(len(i.entry.content)) }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.entry.children != nil }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	switch {
	case i.entry.children != nil:
		return fs.ModeDir | 0o555
	case i.entry.target != "":
		return fs.ModeSymlink | 0o777
	}
	return 0o444
}

type openEntry struct {
	info   info
	Reader bytes.Reader
}

func (f *openEntry) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openEntry) Close() error               { return nil }

type openFile struct{ openEntry }

func (f *openFile) Read(p []byte) (int, error) { return f.Reader.Read(p) }

type openDir struct {
	openEntry
	names []string
}

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: errors.New("is a directory")}
}

// ReadDir implements [fs.ReadDirFile].
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.names) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.names) {
		n = len(d.names)
	}
	page := make([]fs.DirEntry, n)
	for i, name := range d.names[:n] {
		page[i] = fs.FileInfoToDirEntry(info{name, d.info.entry.children[name]})
	}
	d.names = d.names[n:]
	return page, nil
}
