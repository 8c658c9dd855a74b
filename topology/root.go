package topology

import (
	"fmt"
	"io/fs"
	"os"
)

// Root is a directory of the host that [Discover] reads in place of "/". Links
// are followed only inside it: a snapshot from elsewhere cannot make the
// program read files of this host.
type Root struct {
	root *os.Root
	fs.ReadLinkFS
}

// OpenRoot opens a directory; "/" is the machine itself.
func OpenRoot(dir string) (*Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the root of the machine's file system: %w", err)
	}
	return &Root{root: root, ReadLinkFS: root.FS().(fs.ReadLinkFS)}, nil
}

// Close ends the use of the directory.
func (r *Root) Close() error { return r.root.Close() }
