//go:build !linux

package fpgaprogram

import "errors"

// Linux is not here.
type Linux struct{}

// Open implements [Kernel].
func (Linux) Open(string) (Node, error) { return nil, errors.ErrUnsupported }
