// Package layout names everything that one testbed owns on its host. All of
// it follows from the path of the state folder, so that a testbed can be found
// and removed when nothing is known but that path.
package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
)

// DefaultState is the state folder when none is named. Its short path leaves
// room for the sockets below it.
const DefaultState = "/var/lib/topolet-testbed"

// maxSocketPath is what a unix socket's address holds, less the final zero.
const maxSocketPath = 107

// longestSocket is the longest path that a socket below the state folder is
// expected to have: the registration of a DRA driver that names its sockets
// after the pod that it runs in.
const longestSocket = "/kubelet/plugins_registry/topolet.dev-00000000-0000-0000-0000-000000000000-reg.sock"

// Layout is the set of names of one testbed.
type Layout struct {
	// State is the absolute, clean path of the state folder.
	State string
}

// New checks that state is usable as a state folder and returns its layout.
// It touches nothing.
func New(state string) (Layout, error) {
	if !filepath.IsAbs(state) {
		return Layout{}, fmt.Errorf("state folder %q: give an absolute path, for example %s", state, DefaultState)
	}
	state = filepath.Clean(state)
	if strings.ContainsAny(state, " \t\n\"':,\\") {
		return Layout{}, fmt.Errorf("state folder %q: the path goes into mount and runtime configuration; use one without spaces, quotes, colons and commas", state)
	}
	if room := maxSocketPath - len(longestSocket); len(state) > room {
		return Layout{}, fmt.Errorf("state folder %q: the path has %d characters and sockets below it would be longer than the kernel allows; use one of at most %d, for example %s", state, len(state), room, DefaultState)
	}
	if strings.Count(state, "/") < 2 {
		return Layout{}, fmt.Errorf("state folder %q: it is deleted as a whole in the end; use one at least two levels deep, for example %s", state, DefaultState)
	}
	return Layout{State: state}, nil
}

func (l Layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.State}, parts...)...)
}

// suffix tells several testbeds of one host apart; the default one has none.
func (l Layout) suffix() string {
	if l.State == DefaultState {
		return ""
	}
	sum := sha256.Sum256([]byte(l.State))
	return "-" + hex.EncodeToString(sum[:3])
}

// Cgroup is the root of the testbed's cgroups in every hierarchy; the
// kubelet's kubepods is right below it.
func (l Layout) Cgroup() string { return "/topolet-testbed" + l.suffix() }

// SystemCgroup holds the daemons and the containers' shims.
func (l Layout) SystemCgroup() string { return l.Cgroup() + "/system" }

// Bridge is the network interface that the pods are connected to.
func (l Layout) Bridge() string { return "topolet0" + l.suffix() }

// Record is the file with the options and ports of the testbed. It also marks
// the folder as a testbed's.
func (l Layout) Record() string { return l.path("testbed.json") }

// Host is the file with the kernel settings to put back in the end.
func (l Layout) Host() string { return l.path("host.json") }

// Lock is the file that serialises the commands which change the testbed.
func (l Layout) Lock() string { return l.path("lock") }

// Bin has one link per program.
func (l Layout) Bin() string { return l.path("bin") }

// Program is the path of one program.
func (l Layout) Program(name string) string { return l.path("bin", name) }

// Logs has one NAME.log per component.
func (l Layout) Logs() string { return l.path("logs") }

// PodLogs is where the kubelet keeps the containers' output.
func (l Layout) PodLogs() string { return l.path("pods") }

// PKI is the folder of certificates and keys.
func (l Layout) PKI() string { return l.path("pki") }

// Kubeconfig is a kubeconfig file: "admin" for people and tests, otherwise
// the name of the component that uses it.
func (l Layout) Kubeconfig(name string) string { return l.path("kubeconfig", name) }

// Config is a component's configuration file.
func (l Layout) Config(name string) string { return l.path("config", name) }

// Etcd is etcd's data folder.
func (l Layout) Etcd() string { return l.path("etcd") }

// ContainerdRoot holds images and snapshots.
func (l Layout) ContainerdRoot() string { return l.path("containerd") }

// ContainerdState holds what lives only as long as the containers.
func (l Layout) ContainerdState() string { return l.path("run", "c") }

// ContainerdSocket is containerd's own API and the CRI.
func (l Layout) ContainerdSocket() string { return l.path("run", "containerd.sock") }

// NRISocket is where NRI plugins connect.
func (l Layout) NRISocket() string { return l.path("run", "nri.sock") }

// NRIPlugins is for plugins that the runtime starts itself.
func (l Layout) NRIPlugins() string { return l.path("nri", "plugins") }

// NRIConfig is for the configuration of plugins that the runtime starts.
func (l Layout) NRIConfig() string { return l.path("nri", "conf.d") }

// CDI is the folder of Container Device Interface specifications.
func (l Layout) CDI() string { return l.path("cdi") }

// CNIConfig is the folder of the network configuration.
func (l Layout) CNIConfig() string { return l.path("cni", "net.d") }

// CNIData is where host-local notes which addresses are taken.
func (l Layout) CNIData() string { return l.path("cni", "networks") }

// KubeletRoot is the kubelet's --root-dir: plugins, plugins_registry, pods and
// pod-resources are below it.
func (l Layout) KubeletRoot() string { return l.path("kubelet") }

// PodResourcesSocket is the kubelet's API of who has which device.
func (l Layout) PodResourcesSocket() string {
	return l.path("kubelet", "pod-resources", "kubelet.sock")
}

// Images is the folder of image archives.
func (l Layout) Images() string { return l.path("images") }

// NUMA is a file of the virtual machine.
func (l Layout) NUMA(name string) string { return l.path("numa", name) }

// Topolet is for what topolet keeps.
func (l Layout) Topolet() string { return l.path("topolet") }

// Private is a folder of the testbed that a component sees at one of the paths
// which are fixed in its source.
type Private struct{ Source, Target string }

// KubeletPrivate are the fixed paths of the kubelet: the device plugin sockets
// and the links to container logs.
func (l Layout) KubeletPrivate() []Private {
	return []Private{
		{l.path("private", "kubelet"), "/var/lib/kubelet"},
		{l.path("private", "container-logs"), "/var/log/containers"},
	}
}

// ContainerdPrivate are the fixed paths of containerd, its shims and CNI: the
// shims' sockets and the results of network set-up.
func (l Layout) ContainerdPrivate() []Private {
	return []Private{
		{l.path("private", "containerd"), "/run/containerd"},
		{l.path("private", "cni"), "/var/lib/cni"},
	}
}

// Folders are all folders that have to exist before a component starts.
func (l Layout) Folders() []string {
	dirs := []string{
		l.Bin(), l.Logs(), l.PodLogs(), l.PKI(), l.path("kubeconfig"), l.path("config"), l.Etcd(),
		l.ContainerdRoot(), l.ContainerdState(), l.NRIPlugins(), l.NRIConfig(), l.CDI(),
		l.CNIConfig(), l.CNIData(), l.KubeletRoot(), l.Images(),
	}
	for _, p := range append(l.KubeletPrivate(), l.ContainerdPrivate()...) {
		dirs = append(dirs, p.Source)
	}
	return dirs
}
