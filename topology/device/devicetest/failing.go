package devicetest

import (
	"io/fs"
	"strings"

	"github.com/topolet/topolet/topology/device"
)

// OpenFailing is Open of a host on which reading the files whose names end so fails with an
// error, as drivers answer while a device is being reset.
func (h *Host) OpenFailing(suffix string, err error) *device.Host {
	h.t.Helper()
	root, machine := h.discover()
	return device.NewHost(failing{root, suffix, err}, machine)
}

// failing shows nothing of the root's own ways to read a file in one call.
type failing struct {
	fs.ReadLinkFS
	suffix string
	err    error
}

// Open implements [fs.FS].
func (f failing) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, f.suffix) {
		return nil, &fs.PathError{Op: "read", Path: name, Err: f.err}
	}
	return f.ReadLinkFS.Open(name)
}
