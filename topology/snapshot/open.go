package snapshot

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/topolet/topolet/topology"
)

// Root is a machine's file system that was opened.
type Root interface {
	fs.FS
	Close() error
}

// Open opens what a user calls a root: a folder, of which "/" is this machine, or
// an archive, which is read into memory as a whole.
func Open(path string) (Root, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("opening the machine's file system: %w", err)
	}
	if info.IsDir() {
		return topology.OpenRoot(path)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is neither a folder nor an archive", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the archive: %w", err)
	}
	defer f.Close()
	tree, err := Read(f)
	if err != nil {
		return nil, err
	}
	return inMemory{tree}, nil
}

// inMemory is a tree with nothing to close.
type inMemory struct{ *Tree }

func (inMemory) Close() error { return nil }
