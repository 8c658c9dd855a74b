package topology_test

import (
	"os"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// BenchmarkDiscover reads whole machines: a large one from memory and from disk,
// and the one it runs on.
func BenchmarkDiscover(b *testing.B) {
	large := topologytest.Spec{Sockets: 2, NUMAPerSocket: 4, L3PerNUMA: 4, CoresPerL3: 8, Threads: 2, DiesPerSocket: 1}

	b.Run("512 CPUs in memory", func(b *testing.B) {
		tree := topologytest.FS(large)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := topology.Discover(tree); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("512 CPUs on disk", func(b *testing.B) {
		dir := b.TempDir()
		if err := topologytest.Write(dir, large); err != nil {
			b.Fatal(err)
		}
		benchmarkRoot(b, dir)
	})
	b.Run("this host", func(b *testing.B) {
		if _, err := os.Stat("/sys/devices/system/cpu"); err != nil {
			b.Skip("no sysfs here")
		}
		benchmarkRoot(b, "/")
	})
}

// benchmarkRoot includes opening the root, as a caller does once for each discovery.
func benchmarkRoot(b *testing.B, dir string) {
	b.ReportAllocs()
	for b.Loop() {
		root, err := topology.OpenRoot(dir)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := topology.Discover(root); err != nil {
			b.Fatal(err)
		}
		if err := root.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
