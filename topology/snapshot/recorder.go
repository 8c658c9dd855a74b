package snapshot

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
)

// largestFile bounds what is kept of a file. Discovery takes larger ones for absent.
const largestFile = 64 << 10

// recorder is a file system that writes down what is read of another one. What is
// asked for in vain leaves no trace.
type recorder struct {
	root fs.FS
	// files are the regular files that were opened, links those that were read.
	files map[string][]byte
	links map[string]string
	// exist are the names that were found: in a directory that was listed, or
	// because they were asked for.
	exist map[string]bool
}

var _ interface {
	fs.ReadLinkFS
	fs.StatFS
} = (*recorder)(nil)

func newRecorder(root fs.FS) *recorder {
	return &recorder{root: root, files: map[string][]byte{}, links: map[string]string{}, exist: map[string]bool{}}
}

// Open implements [fs.FS].
func (r *recorder) Open(name string) (fs.File, error) {
	// Not a pipe or a device: opening one can wait for ever.
	info, err := fs.Stat(r.root, name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("neither a file nor a directory")}
	}
	f, err := r.root.Open(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		if d, ok := f.(fs.ReadDirFile); ok {
			return &recordedDir{ReadDirFile: d, name: name, exist: r.exist}, nil
		}
		return f, nil
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, largestFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) <= largestFile {
		r.files[name] = content
	}
	return recordedFile{bytes.NewReader(content), info}, nil
}

// Stat implements [fs.StatFS].
func (r *recorder) Stat(name string) (fs.FileInfo, error) {
	return r.found(name)(fs.Stat(r.root, name))
}

// Lstat implements [fs.ReadLinkFS].
func (r *recorder) Lstat(name string) (fs.FileInfo, error) {
	return r.found(name)(fs.Lstat(r.root, name))
}

func (r *recorder) found(name string) func(fs.FileInfo, error) (fs.FileInfo, error) {
	return func(info fs.FileInfo, err error) (fs.FileInfo, error) {
		if err == nil {
			r.exist[name] = true
		}
		return info, err
	}
}

// ReadLink implements [fs.ReadLinkFS].
func (r *recorder) ReadLink(name string) (string, error) {
	target, err := fs.ReadLink(r.root, name)
	if err == nil {
		r.links[name] = target
	}
	return target, err
}

// recordedFile is a file that was read already.
type recordedFile struct {
	*bytes.Reader
	info fs.FileInfo
}

func (f recordedFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f recordedFile) Close() error               { return nil }

// recordedDir notes the names that are listed.
type recordedDir struct {
	fs.ReadDirFile
	name  string
	exist map[string]bool
}

func (d *recordedDir) ReadDir(n int) ([]fs.DirEntry, error) {
	page, err := d.ReadDirFile.ReadDir(n)
	for _, entry := range page {
		d.exist[path.Join(d.name, entry.Name())] = true
	}
	return page, err
}
