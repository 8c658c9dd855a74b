// Package component renders what each daemon of the cluster is started with:
// its arguments and its configuration files. It only computes; writing and
// starting is for its callers.
package component

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/test/testbed/internal/layout"
	"github.com/topolet/topolet/test/testbed/internal/process"
)

// The components, in the order in which they are started. Each name is also
// the name of the program.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	Containerd        = "containerd"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kubelet           = "kubelet"
)

// Names lists the components in the order in which they are started.
func Names() []string {
	return []string{Etcd, APIServer, Containerd, ControllerManager, Scheduler, Kubelet}
}

// The network of services. Nothing forwards to it; it has to exist for the API
// server, whose own service gets the first address.
const (
	ServiceCIDR = "10.96.0.0/16"
	ServiceIP   = "10.96.0.1"
	clusterDNS  = "10.96.0.10"
)

// Ports are the TCP ports of the components, all on loopback but the
// kubelet's, which is on the node's own address.
type Ports struct {
	APIServer         int `json:"apiServer"`
	EtcdClient        int `json:"etcdClient"`
	EtcdPeer          int `json:"etcdPeer"`
	ControllerManager int `json:"controllerManager"`
	Scheduler         int `json:"scheduler"`
	Kubelet           int `json:"kubelet"`
	KubeletHealth     int `json:"kubeletHealth"`
}

// DefaultPorts are used where they are free.
func DefaultPorts() Ports {
	return Ports{APIServer: 6443, EtcdClient: 2379, EtcdPeer: 2380, ControllerManager: 10257, Scheduler: 10259, Kubelet: 10250, KubeletHealth: 10248}
}

// Each calls f with every port, which f may change.
func (p *Ports) Each(f func(name string, port *int)) {
	f("API server", &p.APIServer)
	f("etcd", &p.EtcdClient)
	f("etcd peer", &p.EtcdPeer)
	f("controller manager", &p.ControllerManager)
	f("scheduler", &p.Scheduler)
	f("kubelet", &p.Kubelet)
	f("kubelet health", &p.KubeletHealth)
}

// Cluster is everything that the rendering depends on.
type Cluster struct {
	Layout   layout.Layout
	NodeName string
	Ports    Ports
	PodCIDR  netip.Prefix
	// Address is the node's address where it is not the bridge's.
	Address      netip.Addr
	FeatureGates map[string]bool
	// RuntimeConfig switches API groups and versions, as in the API server's
	// flag of this name.
	RuntimeConfig string
	// PauseImage is the image of pod sandboxes.
	PauseImage string
	// CanRaiseOOMPriority tells whether this host lets root lower an
	// oom_score_adj (CAP_SYS_RESOURCE).
	CanRaiseOOMPriority bool
}

// BridgeIP is the bridge's address, the first of the pod network.
func (c Cluster) BridgeIP() netip.Addr { return c.PodCIDR.Masked().Addr().Next() }

// NodeIP is the node's address. The bridge's, as it is by default, belongs to
// this host alone, and exists without any other network.
func (c Cluster) NodeIP() netip.Addr {
	if c.Address.IsValid() {
		return c.Address
	}
	return c.BridgeIP()
}

// URL is the API server's address.
func (c Cluster) URL() string { return "https://127.0.0.1:" + strconv.Itoa(c.Ports.APIServer) }

func (c Cluster) gates() []string {
	if len(c.FeatureGates) == 0 {
		return nil
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(c.FeatureGates)) {
		list = append(list, fmt.Sprintf("%s=%t", name, c.FeatureGates[name]))
	}
	return []string{"--feature-gates=" + strings.Join(list, ",")}
}

func (c Cluster) crt(name string) string { return c.Layout.PKI() + "/" + name + ".crt" }
func (c Cluster) key(name string) string { return c.Layout.PKI() + "/" + name + ".key" }

// File is a configuration file of a component.
type File struct {
	Path    string
	Content string
}

// Files renders every configuration file.
func (c Cluster) Files() ([]File, error) {
	kubelet, err := c.kubeletConfig()
	if err != nil {
		return nil, err
	}
	network, err := c.networkConfig()
	if err != nil {
		return nil, err
	}
	return []File{
		{c.Layout.Config("containerd.toml"), c.containerdConfig()},
		{c.Layout.Config("kubelet.yaml"), kubelet},
		{c.Layout.CNIConfig() + "/10-topolet.conflist", network},
	}, nil
}

// Spec renders how one component is started.
func (c Cluster) Spec(name string) (process.Spec, error) {
	s := process.Spec{Name: name, Path: c.Layout.Program(name)}
	switch name {
	case Etcd:
		s.Args, s.Inputs = c.etcdArgs(), []string{c.crt("etcd")}
	case APIServer:
		s.Args, s.Inputs = c.apiServerArgs(), []string{c.crt("ca"), c.crt("apiserver")}
	case ControllerManager:
		s.Args, s.Inputs = c.controllerManagerArgs(), []string{c.Layout.Kubeconfig(name)}
	case Scheduler:
		s.Args, s.Inputs = c.schedulerArgs(), []string{c.Layout.Kubeconfig(name)}
	case Containerd:
		config := c.Layout.Config("containerd.toml")
		s.Args, s.Inputs = []string{"--config", config}, []string{config}
		s.Binds = binds(c.Layout.ContainerdPrivate())
	case Kubelet:
		s.Args, s.Inputs = c.kubeletArgs(), []string{c.Layout.Config("kubelet.yaml"), c.Layout.Kubeconfig(name), c.crt("kubelet")}
		s.Binds = binds(c.Layout.KubeletPrivate())
	default:
		return process.Spec{}, fmt.Errorf("there is no component %q; they are %s", name, strings.Join(Names(), ", "))
	}
	return s, nil
}

func binds(private []layout.Private) []string {
	var list []string
	for _, p := range private {
		list = append(list, p.Source+":"+p.Target)
	}
	return list
}
