package devicetest

import "testing"

// At returns a host whose CPUs and NUMA nodes are in a folder already, for machines of
// another size than that of [New].
func At(t testing.TB, dir string) *Host {
	t.Helper()
	h := &Host{t: t, Dir: dir}
	h.driver("vfio-pci")
	h.virtual("misc/vfio", "10:196", "vfio/vfio")
	return h
}
