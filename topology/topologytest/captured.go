package topologytest

import (
	"embed"
	"io/fs"
	"path"
	"strings"
)

// captured holds what `topolet snapshot` took of the testbed's emulated machines,
// a file for each of their layouts.
//
//go:embed captured/*.tar.gz
var captured embed.FS

// CapturedMachines returns the names of machines that a kernel ran on: what a
// [Spec] makes up, their kernel wrote.
func CapturedMachines() []string {
	files, err := fs.Glob(captured, "captured/*.tar.gz")
	if err != nil {
		panic(err) // of a pattern that is wrong
	}
	for i, file := range files {
		files[i] = strings.TrimSuffix(path.Base(file), ".tar.gz")
	}
	return files
}

// Captured returns the tree of one of [CapturedMachines].
func Captured(name string) *Tree {
	f, err := captured.Open("captured/" + name + ".tar.gz")
	if err != nil {
		panic(err) // of a name that is not one of theirs
	}
	tree, err := Untar(f)
	if err != nil {
		panic(err) // the snapshots are part of the program
	}
	return tree
}
