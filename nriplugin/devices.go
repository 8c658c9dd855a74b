package nriplugin

import (
	"fmt"
	"slices"

	"github.com/containerd/nri/pkg/api"

	"github.com/topolet/topolet/allocator"
)

// getsDevices returns an error unless the container is about to be created with the
// device nodes of its claims, under these numbers. The runtime puts them there, by the
// claims' CDI specs, before it asks its plugins.
func getsDevices(c allocator.Container, placement allocator.Placement, ctr *api.Container) error {
	for _, n := range placement.Nodes {
		given := slices.IndexFunc(ctr.GetLinux().GetDevices(), func(d *api.LinuxDevice) bool { return d.GetPath() == n.Path })
		if given < 0 {
			return fmt.Errorf("container %s of pod %s/%s does not get %s, which its claim has: "+
				"switch CDI on in the container runtime, and let it read the folder of --cdi-dir", c.Name, c.PodNamespace, c.PodName, n.Path)
		}
		if d := ctr.GetLinux().GetDevices()[given]; d.GetType() != n.Kind() || d.GetMajor() != n.Major || d.GetMinor() != n.Minor {
			return fmt.Errorf("container %s of pod %s/%s would get another device under the name %s, %s %d:%d, than its claim has, %s %d:%d: "+
				"somebody else gives the container devices, or the claim's CDI spec is from before the last boot; the kubelet tries again",
				c.Name, c.PodNamespace, c.PodName, n.Path, d.GetType(), d.GetMajor(), d.GetMinor(), n.Kind(), n.Major, n.Minor)
		}
	}
	return nil
}
