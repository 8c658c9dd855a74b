package main

import (
	cadvisor "github.com/google/cadvisor/lib/model"

	"github.com/topolet/topolet/topology"
)

// machineInfo tells the kubelet of a machine as cAdvisor would, which reads only
// the machine that it runs on. Where they differ, it is in the kubelet's favour:
// each cache and each socket has a number of its own here, and on real machines
// the kernel's may repeat or be missing.
func machineInfo(m *topology.Machine) *cadvisor.MachineInfo {
	info := &cadvisor.MachineInfo{NumSockets: len(m.Sockets)}
	if len(m.NUMANodes) == 0 {
		// A kernel without NUMA: cAdvisor puts the sockets in the nodes' place.
		for i, socket := range m.Sockets {
			info.Topology = append(info.Topology, cadvisor.Node{Id: i, Cores: coresOf(m, socket.CPUs)})
		}
	}
	for _, n := range m.NUMANodes {
		node := cadvisor.Node{Id: n.ID, Cores: coresOf(m, n.CPUs)}
		for _, d := range n.Distances {
			node.Distances = append(node.Distances, uint64(d)) //nolint:gosec // distances are 10 to 255
		}
		info.Topology = append(info.Topology, node)
	}
	for _, node := range info.Topology {
		addL3Groups(m, node.Cores)
		for _, core := range node.Cores {
			info.NumCores += len(core.Threads) // cAdvisor's name for the number of CPUs
		}
		info.NumPhysicalCores += len(node.Cores)
	}
	return info
}

// coresOf are the cores of a NUMA node. cAdvisor passes over CPUs that do not
// tell their core or their socket.
func coresOf(m *topology.Machine, cpus topology.CPUSet) []cadvisor.Core {
	var cores []cadvisor.Core
	at := map[int]int{}
	for id := range cpus.All() {
		cpu, ok := m.CPU(id)
		if !ok || cpu.Core == topology.None || cpu.Socket == topology.None {
			continue
		}
		i, ok := at[cpu.Core]
		if !ok {
			i = len(cores)
			at[cpu.Core] = i
			cores = append(cores, cadvisor.Core{Id: cpu.Core, SocketID: cpu.Socket})
		}
		cores[i].Threads = append(cores[i].Threads, id)
	}
	return cores
}

// addL3Groups tells each core of a node its L3. cAdvisor does so only where the L3
// is not simply that of the whole node. A core without one counts to the kubelet
// as being in a group with the number of its socket, so those numbers are avoided.
func addL3Groups(m *topology.Machine, cores []cadvisor.Core) {
	for i, core := range cores {
		cpu, _ := m.CPU(core.Threads[0])
		if cpu.L3 == topology.None || m.L3Groups[cpu.L3].CPUs.Size() == len(cores)*len(core.Threads) {
			continue
		}
		cores[i].UncoreCaches = []cadvisor.Cache{{
			Id: len(m.Sockets) + cpu.L3, Level: 3, Type: "Unified", Size: m.L3Groups[cpu.L3].CacheBytes,
		}}
	}
}
