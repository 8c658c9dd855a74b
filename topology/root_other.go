//go:build !linux

package topology

// nonBlocking is no flag here: what is read is a copy of a Linux machine.
const nonBlocking = 0

// openBeneath settles nothing: only Linux has a single call for it.
func (r *Root) openBeneath(string) (fd int, settled bool, err error) { return 0, false, nil }

// readBounded implements boundedReader.
func (r *Root) readBounded(name string, buf []byte) (int, error) { return r.readSlowly(name, buf) }

// link implements boundedReader.
func (r *Root) link(name string) (string, error) { return r.ReadLink(name) }
