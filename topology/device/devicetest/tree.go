package devicetest

import (
	"io/fs"
	"os"
	"strings"
)

// Tree returns the files on the host with their content, and the links with "-> " and
// their targets, by path.
func (h *Host) Tree() map[string]string {
	h.t.Helper()
	root, err := os.OpenRoot(h.Dir)
	if err != nil {
		h.t.Fatal(err)
	}
	defer root.Close()
	tree := map[string]string{}
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if entry.Type() == fs.ModeSymlink {
			target, err := root.Readlink(name)
			tree["/"+name] = "-> " + target
			return err
		}
		content, err := root.ReadFile(name)
		tree["/"+name] = strings.TrimSuffix(string(content), "\n")
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return tree
}
