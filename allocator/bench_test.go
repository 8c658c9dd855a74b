package allocator

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func BenchmarkChoose(b *testing.B) {
	for _, size := range []int{64, 256, 512, 1024} {
		// One NUMA node, so that the whole machine is searched; L3 groups of 8 cores.
		m := topologytest.New(topologytest.Spec{L3PerNUMA: size / 16, CoresPerL3: 8, Threads: 2})
		d := Domains(m, topology.CPUSet{})[0]
		for name, free := range map[string]topology.CPUSet{"empty": m.Online, "fragmented": fragmented(m)} {
			for _, n := range []int{8, 32} {
				b.Run(fmt.Sprintf("cpus=%d/%s/n=%d", size, name, n), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if _, err := d.Choose(free, n); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}

// fragmented leaves about half of the cores free, without any order.
func fragmented(m *topology.Machine) topology.CPUSet {
	rng := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // a seed makes it repeatable
	var ids []int
	for i, core := range m.Cores {
		if i == 0 || rng.IntN(9) < 5 {
			ids = append(ids, core.CPUs.List()...)
		}
	}
	return topology.NewCPUSet(ids...)
}

// BenchmarkGrant grants and releases one claim beside 60 others on 512 CPUs.
func BenchmarkGrant(b *testing.B) {
	for name, store := range map[string]Store{
		"memory": &memory{},
		"disk":   FileStore{Path: filepath.Join(b.TempDir(), "checkpoint.json")},
	} {
		b.Run(name, func(b *testing.B) {
			l := busyLedger(b, store, 60, 0)
			b.ReportAllocs()
			for b.Loop() {
				grant(b, l, claim("x", "pod"), cpus(8, "numa-3"))
				if err := l.Release("x"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkUpdates computes what 500 shared containers need after nothing, and
// after a grant, has changed.
func BenchmarkUpdates(b *testing.B) {
	b.Run("unchanged", func(b *testing.B) {
		l := busyLedger(b, &memory{}, 20, 500)
		l.Updates()
		b.ReportAllocs()
		for b.Loop() {
			if got := l.Updates(); len(got) != 0 {
				b.Fatal(len(got))
			}
		}
	})
	b.Run("changed", func(b *testing.B) {
		l := busyLedger(b, &memory{}, 20, 500)
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			if l.Release("x") != nil {
				b.Fatal("release")
			}
			l.Updates()
			grant(b, l, claim("x", "pod"), cpus(8, "numa-3"))
			b.StartTimer()
			if got := l.Updates(); len(got) != 500 {
				b.Fatal(len(got))
			}
		}
	})
}

func busyLedger(b *testing.B, store Store, claims, containers int) *Ledger {
	b.Helper()
	m := topologytest.New(topologytest.Spec{Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 8, CoresPerL3: 8, Threads: 2})
	l, err := NewLedger(m, Policy{ReservedCPUs: DefaultReserved(m)}, store, nil)
	if err != nil {
		b.Fatal(err)
	}
	for i := range claims {
		grant(b, l, claim(fmt.Sprintf("claim-%d", i), "pod"), cpus(4, fmt.Sprintf("numa-%d", i%3)))
	}
	for i := range containers {
		create(b, l, shared(fmt.Sprintf("container-%d", i)))
	}
	return l
}
