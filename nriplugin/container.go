package nriplugin

import (
	"errors"

	"github.com/containerd/nri/pkg/api"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
)

// containerOf turns the runtime's description of a container into the ledger's.
// On an error the container names something under this driver's name that is
// not a claim; it is returned all the same, naming a claim that cannot exist.
func containerOf(pod *api.PodSandbox, ctr *api.Container) (allocator.Container, error) {
	c := allocator.Container{
		ID:           allocator.ContainerID(ctr.GetId()),
		Name:         ctr.GetName(),
		Pod:          allocator.PodUID(pod.GetUid()),
		PodNamespace: pod.GetNamespace(),
		PodName:      pod.GetName(),
		Cgroup:       ctr.GetLinux().GetCgroupsPath(),
		Started:      ctr.GetState() != api.ContainerState_CONTAINER_CREATED,
	}
	var errs error
	for _, device := range ctr.GetCDIDevices() {
		ref, ours, err := allocator.ParseRef(device.GetName())
		if err != nil {
			errs = errors.Join(errs, err)
			ref, ours = allocator.Ref{Claim: allocator.ClaimUID(device.GetName())}, true
		}
		if ours {
			c.Claims = append(c.Claims, ref)
		}
	}
	return c, errs
}

// configured are the CPUs in the container's runtime configuration; empty means
// all.
func configured(ctr *api.Container) topology.CPUSet {
	cpus, err := topology.ParseCPUSet(ctr.GetLinux().GetResources().GetCpu().GetCpus())
	if err != nil {
		// The runtime validated it; and the cgroup is the better witness.
		return topology.CPUSet{}
	}
	return cpus
}
