package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkChoice serves and releases one claim on a machine of 512 CPUs: for
// topolet that is the domain and the choice in it, for the kubelet the admission
// by its topology and CPU managers. The sides are the last part of the names:
// benchstat -col /side compares them.
func BenchmarkChoice(b *testing.B) {
	for _, nodes := range []int{2, 8} {
		m := newMachine("512 CPUs", large(nodes/2))
		for _, state := range []string{"empty", "fragmented"} {
			for _, cpus := range []int{8, 32} {
				name := fmt.Sprintf("nodes=%d/machine=%s/cpus=%d", nodes, state, cpus)
				others, sizes := 0, []int{cpus}
				if state == "fragmented" {
					others = m.offer().cpus / 2
					for range others {
						sizes = append(sizes, 2)
					}
				}
				b.Run(name+"/side=topolet", func(b *testing.B) {
					benchmark(b, newTopolet(m.domains, sizes), others)
				})
				b.Run(name+"/side=kubelet", func(b *testing.B) {
					k, err := newKubelet(m, singleNUMANode, sizes)
					if err != nil {
						b.Fatal(err)
					}
					benchmark(b, k, others)
				})
			}
		}
	}
}

// benchmark measures the claim 0 after the others, of one core each, have filled
// the machine and about half of them have gone again.
func benchmark(b *testing.B, s server, others int) {
	b.Helper()
	for claim := 1; claim <= others; claim++ {
		if cpus, err := s.serve(claim); err != nil || cpus.IsEmpty() {
			b.Fatalf("claim %d got %s, %v", claim, cpus, err)
		}
	}
	rng := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // a seed makes it repeatable
	for claim := 1; claim <= others; claim++ {
		if rng.IntN(2) == 0 {
			continue
		}
		if err := s.release(claim); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if cpus, err := s.serve(0); err != nil || cpus.IsEmpty() {
			b.Fatalf("got %s, %v", cpus, err)
		}
		if err := s.release(0); err != nil {
			b.Fatal(err)
		}
	}
}
