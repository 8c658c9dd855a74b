package devicetest

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Faults are what may be wrong with a file of the host.
var Faults = map[string]func(h *Host, file string){
	"garbled": func(h *Host, file string) { h.File(file, "\x00garbage\xff\n") },
	"empty":   func(h *Host, file string) { h.File(file, "") },
	"missing": func(h *Host, file string) { h.Remove(file) },
}

// Contents returns the files below directories, of which each must have one, with what
// [Host.File] needs to put them back.
func (h *Host) Contents(dirs ...string) map[string]string {
	h.t.Helper()
	all := map[string]string{}
	for _, dir := range dirs {
		found := map[string]string{}
		root := os.DirFS(filepath.Join(h.Dir, dir))
		err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			content, err := fs.ReadFile(root, name)
			found[path.Join(dir, name)] = strings.TrimSuffix(string(content), "\n")
			return err
		})
		if err != nil || len(found) == 0 {
			h.t.Fatalf("%d files in %s: %v", len(found), dir, err)
		}
		maps.Copy(all, found)
	}
	return all
}
