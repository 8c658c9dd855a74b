// Package rootfs makes what the machine boots from: an initrd and the image of
// its root file system.
//
// Both are given as a list of entries, each a path in the machine and where
// its content comes from. What the list says is also the image's key: with the
// same key, a machine that runs need not be started again.
package rootfs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
)

// Entry is a file, folder or link of the machine.
type Entry struct {
	// Path is absolute, in the machine.
	Path string
	// Source is the file on this host whose content it has.
	Source string
	// Content is the content when there is no Source.
	Content []byte
	// Link is the target of a symbolic link.
	Link string
	// Mode is the permissions; zero means 0755 for a folder or a Source,
	// and 0644 otherwise.
	Mode os.FileMode
	// Dir makes it a folder.
	Dir bool
}

func (e Entry) mode() os.FileMode {
	switch {
	case e.Mode != 0:
		return e.Mode
	case e.Dir || e.Source != "":
		return 0o755
	}
	return 0o644
}

func (e Entry) unixMode() uint32 {
	const file, dir, link = 0o100000, 0o040000, 0o120000
	switch {
	case e.Dir:
		return dir | uint32(e.mode())
	case e.Link != "":
		return link | 0o777
	}
	return file | uint32(e.mode())
}

func (e Entry) data() ([]byte, error) {
	switch {
	case e.Link != "":
		return []byte(e.Link), nil
	case e.Source != "":
		return os.ReadFile(e.Source)
	}
	return e.Content, nil
}

// parents are the folders above the entries that are not entries themselves,
// upper ones first.
func parents(entries []Entry) []Entry {
	seen := map[string]bool{"/": true}
	for _, e := range entries {
		seen[e.Path] = true
	}
	var dirs []Entry
	for _, e := range entries {
		for d := path.Dir(e.Path); !seen[d]; d = path.Dir(d) {
			seen[d] = true
			dirs = append(dirs, Entry{Path: d, Dir: true})
		}
	}
	slices.SortFunc(dirs, func(a, b Entry) int { return len(a.Path) - len(b.Path) })
	return dirs
}

// Key identifies what the entries say, content included, and whatever else
// decides about the image.
func Key(entries []Entry, more ...string) (string, error) {
	h := sha256.New()
	for _, e := range entries {
		fmt.Fprintf(h, "%q %o %q %d\n", e.Path, e.unixMode(), e.Link, len(e.Content))
		h.Write(e.Content)
		if e.Source == "" {
			continue
		}
		if err := hashFile(h, e.Source); err != nil {
			return "", fmt.Errorf("read what the machine gets: %w", err)
		}
	}
	fmt.Fprintf(h, "%q", more)
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

func hashFile(w io.Writer, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(w, f)
	fmt.Fprintf(w, " %d\n", n)
	return err
}
