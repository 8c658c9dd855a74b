package topologytest

import (
	"io"

	"github.com/topolet/topolet/topology/snapshot"
)

// Tree is the file system that a machine is made of. It may be changed before
// use: a file removed, garbled or added.
type Tree = snapshot.Tree

// NewTree returns an empty tree.
func NewTree() *Tree { return snapshot.NewTree() }

// Untar reads a machine's tree from a gzipped tar archive.
func Untar(r io.Reader) (*Tree, error) { return snapshot.Read(r) }
