package snapshot

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// The bounds of an archive. They hold the snapshots of machines with thousands
// of CPUs; a small file that unpacks to more is not meant well.
const (
	maxEntries = 1 << 18
	// maxName is the kernel's bound on a path (PATH_MAX).
	maxName = 4096
	// maxBytes bounds the names and contents together.
	maxBytes = 64 << 20
	// maxStream bounds all that is unpacked, padding and headers included.
	maxStream = maxBytes + maxEntries<<10
)

// ArchiveError says why an archive cannot be used, and what to do.
type ArchiveError struct {
	// Entry is the name of the entry with the problem, or "" for the whole.
	Entry  string
	Reason string
}

func (e *ArchiveError) Error() string {
	at := ""
	if e.Entry != "" {
		at = fmt.Sprintf("entry %.120q ", e.Entry)
	}
	return "archive: " + at + e.Reason + ": make the archive with topolet snapshot, or unpack it and give the folder"
}

// Archive writes the tree as a gzipped tar archive. Equal trees make equal bytes:
// entries are sorted, and times and owners are those of nobody.
func (t *Tree) Archive(w io.Writer) error {
	zipped := gzip.NewWriter(w)
	archive := tar.NewWriter(zipped)
	size := tally{}
	if err := t.top.archive(archive, "", &size); err != nil {
		return err
	}
	return errors.Join(archive.Close(), zipped.Close())
}

func (e *entry) archive(w *tar.Writer, name string, size *tally) error {
	if err := size.add(name, e.target, int64(len(e.content))); err != nil {
		return err
	}
	header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(e.content)), ModTime: time.Unix(0, 0)}
	switch {
	case e.children != nil:
		header.Name, header.Typeflag, header.Mode = name+"/", tar.TypeDir, 0o755
	case e.target != "":
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, e.target, 0o777
	default:
		header.Typeflag = tar.TypeReg
	}
	if name != "" {
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		if _, err := w.Write(e.content); err != nil {
			return err
		}
	}
	for _, child := range e.sorted() {
		if err := e.children[child].archive(w, path.Join(name, child), size); err != nil {
			return err
		}
	}
	return nil
}

// Read reads a tree from a gzipped tar archive, be it one of [Tree.Archive] or a
// copy of a machine's sys that somebody packed. Nothing is unpacked to a disk.
// What is wrong with an archive is an [*ArchiveError].
func Read(r io.Reader) (*Tree, error) {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return nil, &ArchiveError{Reason: fmt.Sprintf("is no gzipped tar file (%v)", err)}
	}
	tree := NewTree()
	archive := tar.NewReader(&limited{unzipped, maxStream})
	size := tally{}
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return tree, nil
		}
		if err == nil {
			err = size.add(header.Name, header.Linkname, header.Size)
		}
		if err == nil {
			err = tree.take(header, archive)
		}
		if err == nil && tree.dirs > maxEntries {
			err = &ArchiveError{Reason: fmt.Sprintf("has more than %d folders", maxEntries)}
		}
		if known, ok := errors.AsType[*ArchiveError](err); ok {
			return nil, known
		}
		if err != nil {
			return nil, &ArchiveError{Reason: fmt.Sprintf("is damaged (%v)", err)}
		}
	}
}

// take puts one entry into the tree.
func (t *Tree) take(header *tar.Header, content io.Reader) error {
	name := path.Clean(header.Name)
	if path.IsAbs(name) || leaves(name) {
		return &ArchiveError{header.Name, "is outside the archive's own folder"}
	}
	switch header.Typeflag {
	case tar.TypeXGlobalHeader:
	case tar.TypeDir:
		t.Dir(name)
	case tar.TypeSymlink:
		to := path.Join(path.Dir(name), header.Linkname) //nolint:gosec // G305: this is the check
		if path.IsAbs(header.Linkname) || leaves(to) {
			return &ArchiveError{header.Name, fmt.Sprintf("is a link to %.120q, outside the archive", header.Linkname)}
		}
		if name != "." {
			t.Link(name, header.Linkname)
		}
	case tar.TypeReg:
		text, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		if name != "." {
			t.File(name, string(text))
		}
	default:
		return &ArchiveError{header.Name, "is neither a file, a directory nor a symbolic link"}
	}
	return nil
}

// leaves reports whether a clean path leads above where it starts.
func leaves(name string) bool { return name == ".." || strings.HasPrefix(name, "../") }

// tally counts what is in an archive.
type tally struct {
	entries int
	bytes   int64
}

func (t *tally) add(name, target string, size int64) error {
	if len(name) > maxName || len(target) > maxName {
		return &ArchiveError{name, fmt.Sprintf("has a name or target longer than %d bytes", maxName)}
	}
	t.entries++
	if t.entries > maxEntries {
		return &ArchiveError{Reason: fmt.Sprintf("has more than %d entries", maxEntries)}
	}
	if t.bytes += int64(len(name) + len(target)); size < 0 || size > maxBytes-t.bytes {
		return &ArchiveError{name, fmt.Sprintf("takes the archive beyond %d MiB", maxBytes>>20)}
	}
	t.bytes += size
	return nil
}

// limited ends the reading of what unpacks without end.
type limited struct {
	io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, &ArchiveError{Reason: fmt.Sprintf("unpacks to more than %d MiB", maxStream>>20)}
	}
	n, err := l.Reader.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}
