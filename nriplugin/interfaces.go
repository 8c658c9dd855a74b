package nriplugin

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/containerd/nri/pkg/api"

	"github.com/topolet/topolet/allocator"
)

// giveInterfaces has the runtime move the network interfaces of a container's claims into
// its network namespace (OCI runtime specification, linux.netDevices). Those that are not
// the host's at present were moved with an earlier container of the pod: a namespace
// belongs to all of a pod's containers, and outlives each of them. When it ends the kernel
// returns them to the host.
func (p *Plugin) giveInterfaces(adjust *api.ContainerAdjustment, pod *api.PodSandbox, c allocator.Container, interfaces []string) error {
	if len(interfaces) == 0 {
		return nil
	}
	own := false
	for _, n := range pod.GetLinux().GetNamespaces() {
		own = own || n.GetType() == "network"
	}
	if !own {
		return fmt.Errorf("container %s of pod %s/%s cannot get network interfaces %v: the pod uses the host's network: leave out hostNetwork",
			c.Name, c.PodNamespace, c.PodName, interfaces)
	}
	for _, name := range interfaces {
		here, err := p.isHosts(name)
		if err != nil {
			return err
		}
		if here {
			adjust.AddLinuxNetDevice(name, &api.LinuxNetDevice{Name: name})
		}
	}
	return nil
}

// hasInterfaces returns an error if interfaces of the container's claims are still the
// host's: runtimes that are too old to move them say nothing.
func (p *Plugin) hasInterfaces(entry allocator.Entry) error {
	for _, name := range p.ledger.Interfaces(entry.ID) {
		here, err := p.isHosts(name)
		if err != nil {
			return err
		}
		if here {
			return notStarted(entry, fmt.Sprintf("the runtime has not moved network interface %s into its pod: "+
				"it takes a runtime whose NRI knows network devices, and runc 1.4 or newer", name))
		}
	}
	return nil
}

// isHosts reports whether an interface is in the network namespace of the host.
func (p *Plugin) isHosts(name string) (bool, error) {
	_, err := fs.Stat(p.host, "sys/class/net/"+name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("network interface %s: %w", name, err)
	}
	return true, nil
}
