package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	cadvisor "github.com/google/cadvisor/lib/model"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// leastCores is what a machine must have for claims to be put together well or badly.
const leastCores = 4

// machine is one machine, and what both sides give away of it.
type machine struct {
	name    string
	model   *topology.Machine
	domains []*allocator.Domain
}

func newMachine(name string, m *topology.Machine) machine {
	return machine{name: name, model: m, domains: allocator.Domains(m, allocator.DefaultReserved(m))}
}

// readMachines returns the collection of real machines, where there is one, the
// captured ones, and a made-up one.
func readMachines(w io.Writer) ([]machine, error) {
	var machines []machine
	archives := topologytest.RealMachines()
	if len(archives) == 0 {
		fmt.Fprintln(w, "the real machines are left out: shared/fixtures/topology is in no directory above this one, or is empty")
	}
	for _, archive := range archives {
		name := strings.TrimSuffix(filepath.Base(archive), ".tar.gz")
		m, err := readArchive(archive)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", archive, err)
		}
		machines = append(machines, newMachine(name, m))
	}
	for _, name := range topologytest.CapturedMachines() {
		m, err := topology.Discover(topologytest.Captured(name))
		if err != nil {
			return nil, fmt.Errorf("captured machine %s: %w", name, err)
		}
		machines = append(machines, newMachine("captured-"+name, m))
	}
	return append(machines, newMachine("made-up-512", large(1))), nil
}

// large makes up a server of today, larger than what is in the collection: two
// sockets of 128 cores, 8 to an L3, divided into so many NUMA nodes each.
func large(nodesPerSocket int) *topology.Machine {
	return topologytest.New(topologytest.Spec{
		Sockets: 2, NUMAPerSocket: nodesPerSocket, L3PerNUMA: 16 / nodesPerSocket, CoresPerL3: 8, Threads: 2,
	})
}

func readArchive(name string) (*topology.Machine, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	tree, err := topologytest.Untar(f)
	if err != nil {
		return nil, err
	}
	return topology.Discover(tree)
}

// claimable are the CPUs that claims can get.
func (m machine) claimable() topology.CPUSet {
	var all topology.CPUSet
	for _, d := range m.domains {
		all = all.Union(d.CPUs)
	}
	return all
}

func (m machine) offer() offer {
	o := offer{cpus: m.claimable().Size()}
	for _, d := range m.domains {
		o.domain = max(o.domain, d.CPUs.Size())
		o.threads = d.ThreadsPerCore
	}
	return o
}

// unfit tells why the machine cannot be compared; "" if it can. The kubelet has
// one number of threads for all cores and knows no core types, so it would be
// judged by what it was never told.
func (m machine) unfit() string {
	cores := 0
	for _, d := range m.domains {
		cores += d.CPUs.Size() / d.ThreadsPerCore
	}
	info := machineInfo(m.model)
	unseen := m.claimable()
	for _, node := range info.Topology {
		for _, core := range node.Cores {
			unseen = unseen.Difference(topology.NewCPUSet(core.Threads...))
		}
	}
	switch {
	case cores < leastCores:
		return fmt.Sprintf("%d cores can be claimed, fewer than %d", cores, leastCores)
	case slices.ContainsFunc(m.model.CPUs, func(c topology.CPU) bool { return c.CoreType != topology.Standard }):
		return "it has several types of cores, which the kubelet does not tell apart"
	case slices.ContainsFunc(m.model.Cores, func(g topology.Group) bool { return g.CPUs.Size() != m.domains[0].ThreadsPerCore }):
		return "its cores have different numbers of threads, for which the kubelet has one number"
	case !unseen.IsEmpty():
		return fmt.Sprintf("the kubelet does not see CPUs %s, as no socket or no core is told of them", unseen)
	case len(info.Topology) > maxNUMANodes:
		return fmt.Sprintf("%d NUMA nodes, and the kubelet's topology manager supports %d", len(info.Topology), maxNUMANodes)
	case slices.ContainsFunc(info.Topology, func(n cadvisor.Node) bool { return n.Id > highestNUMANode }):
		return fmt.Sprintf("it has a NUMA node with a number above %d, at which the kubelet crashes", highestNUMANode)
	}
	return ""
}
