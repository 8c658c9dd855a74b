package main

import (
	"fmt"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
)

// machine returns the CPUs of this machine, or an error if topolet could give
// none of them away: better known before a cluster is built than after.
func machine() (topology.CPUSet, error) {
	root, err := topology.OpenRoot("/")
	if err != nil {
		return topology.CPUSet{}, err
	}
	defer root.Close()
	m, err := topology.Discover(root)
	if err != nil {
		return topology.CPUSet{}, fmt.Errorf("read this machine's CPUs: %w", err)
	}
	return m.Online, claimable(m)
}

// claimable fails for a machine that has no CPU to claim.
func claimable(m *topology.Machine) error {
	reserved := allocator.DefaultReserved(m)
	for _, d := range allocator.Domains(m, reserved) {
		if !d.CPUs.IsEmpty() {
			return nil
		}
	}
	return fmt.Errorf("this machine has %s, and topolet leaves the first core (%s) to the system: no core remains to be claimed; use a machine with two cores or more",
		cpus(m.Online), cpus(reserved))
}
