package topologytest

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"path"
)

// Untar reads a machine's tree from a gzipped tar archive.
func Untar(r io.Reader) (*Tree, error) {
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	tree := NewTree()
	archive := tar.NewReader(unzipped)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return tree, nil
		}
		if err != nil {
			return nil, err
		}
		name := path.Clean("/" + header.Name)[1:]
		switch {
		case name == "":
		case header.Typeflag == tar.TypeDir:
			tree.Dir(name)
		case header.Typeflag == tar.TypeSymlink:
			tree.Link(name, header.Linkname)
		case header.Typeflag == tar.TypeReg:
			content, err := io.ReadAll(archive)
			if err != nil {
				return nil, err
			}
			tree.File(name, string(content))
		}
	}
}
