package nriplugin

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/containerd/nri/pkg/api"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

const crowd = 500

// crowded is a plugin on a machine of 128 CPUs with many shared containers,
// whose cgroups are files in a real folder, read as the daemon does, and a claim of 16 CPUs.
func crowded(b *testing.B, kernelKeeps bool) (*Plugin, *fakeRuntime, []*api.PodSandbox, []*api.Container) {
	b.Helper()
	r := &fakeRuntime{t: b, root: b.TempDir(), all: "0-127", pods: map[string]*api.PodSandbox{}}
	r.write("sys/fs/cgroup/cgroup.controllers", "cpuset")
	m := topologytest.New(topologytest.Spec{Sockets: 2, CoresPerL3: 32, Threads: 2})
	ledger, err := allocator.NewLedger(m, allocator.Policy{ReservedCPUs: topology.NewCPUSet(0, 64), KernelKeeps: kernelKeeps}, discard{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	host, err := topology.OpenRoot(r.root)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { host.Close() }) //nolint:errcheck // only read
	p := New("", ledger, host, &books{}, noKernel)
	var ctrs []*api.Container
	for i := range crowd {
		c := r.newContainer("c" + strconv.Itoa(i))
		c.State = api.ContainerState_CONTAINER_RUNNING
		r.writeCgroup(c)
		ctrs = append(ctrs, c.Container)
	}
	var pods []*api.PodSandbox
	for _, pod := range r.pods {
		pods = append(pods, pod)
	}
	if _, err := p.Synchronize(b.Context(), pods, ctrs); err != nil {
		b.Fatal(err)
	}
	grant(b, ledger, allocator.Request{Name: "cpus", Domain: "numa-1", Count: 16}, "claim", "x")
	return p, r, pods, ctrs
}

func newcomer(name string, devices ...string) (*api.PodSandbox, *api.Container) {
	r := &fakeRuntime{pods: map[string]*api.PodSandbox{}}
	c := r.newContainer(name, devices...)
	return c.pod, c.Container
}

func BenchmarkCreateContainer(b *testing.B) {
	for name, devices := range map[string][]string{"shared": nil, "exclusive": {device("claim")}} {
		b.Run(fmt.Sprintf("%s/containers=%d", name, crowd), func(b *testing.B) {
			p, _, _, ctrs := crowded(b, false)
			pod, ctr := newcomer("x", devices...)
			want := 0
			if devices != nil {
				want = crowd
			}
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				// Every time the others have to be told.
				b.StopTimer()
				p.ledger.Updates()
				for _, c := range ctrs[:want] {
					p.ledger.Untold(allocator.ContainerID(c.Id))
				}
				b.StartTimer()
				_, updates, err := p.CreateContainer(b.Context(), pod, ctr)
				if err != nil || len(updates) != want {
					b.Fatal(len(updates), err)
				}
			}
		})
	}
}

// In the kernel's tier nobody else has to be told.
func BenchmarkCreateContainerKernel(b *testing.B) {
	for name, devices := range map[string][]string{"shared": nil, "exclusive": {device("claim")}} {
		b.Run(fmt.Sprintf("%s/containers=%d", name, crowd), func(b *testing.B) {
			p, _, _, _ := crowded(b, true)
			p.ledger.Updates()
			pod, ctr := newcomer("x", devices...)
			b.ReportAllocs()
			for b.Loop() {
				_, updates, err := p.CreateContainer(b.Context(), pod, ctr)
				if err != nil || len(updates) != 0 {
					b.Fatal(len(updates), err)
				}
			}
		})
	}
}

func BenchmarkSynchronize(b *testing.B) {
	b.Run(fmt.Sprintf("containers=%d", crowd), func(b *testing.B) {
		p, _, pods, ctrs := crowded(b, false)
		b.ReportAllocs()
		for b.Loop() {
			updates, err := p.Synchronize(b.Context(), pods, ctrs)
			if err != nil || len(updates) != crowd {
				b.Fatal(len(updates), err)
			}
		}
	})
}

func BenchmarkStartContainer(b *testing.B) {
	for name, devices := range map[string][]string{"shared": nil, "exclusive": {device("claim")}} {
		b.Run(fmt.Sprintf("%s/containers=%d", name, crowd), func(b *testing.B) {
			p, r, _, ctrs := crowded(b, false)
			pod, ctr := newcomer("x", devices...)
			adjust, updates, err := p.CreateContainer(b.Context(), pod, ctr)
			if err != nil {
				b.Fatal(err)
			}
			// The runtime heeds it.
			cpus := map[string]string{ctr.Id: adjust.Linux.Resources.Cpu.Cpus}
			for _, u := range updates {
				cpus[u.ContainerId] = u.Linux.Resources.Cpu.Cpus
			}
			for _, c := range append(slices.Clip(ctrs), ctr) {
				if set, told := cpus[c.Id]; told {
					c.Linux.Resources.Cpu.Cpus = set
				} else if devices == nil {
					c.Linux.Resources.Cpu.Cpus = p.ledger.Pool().String()
				}
				r.writeCgroup(&fakeContainer{Container: c, pod: &api.PodSandbox{Uid: "pod-" + c.Name}})
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := p.StartContainer(b.Context(), pod, ctr); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
