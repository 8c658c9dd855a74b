//go:build !linux

package topology

import (
	"errors"
	"io"
)

// openBeneath settles nothing: only Linux has a single call for it.
func (r *Root) openBeneath(string) (fd int, settled bool, err error) { return 0, false, nil }

// readBounded implements boundedReader.
func (r *Root) readBounded(name string, buf []byte) (int, error) {
	f, err := r.root.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := io.ReadFull(f, buf)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
