package component

import (
	"net"

	"github.com/topolet/topolet/test/testbed/internal/pki"
)

// Identities lists the certificates of the cluster, its node's included.
func (c Cluster) Identities() []pki.Identity {
	loopback := net.IPv4(127, 0, 0, 1)
	node := net.IP(c.NodeIP().AsSlice())
	return append([]pki.Identity{
		{Name: "etcd", CommonName: "etcd", DNSNames: []string{"localhost"}, IPs: []net.IP{loopback}},
		{Name: "etcd-client", CommonName: "kube-apiserver-etcd-client"},
		{
			Name: "apiserver", CommonName: "kube-apiserver",
			DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			IPs:      []net.IP{loopback, node, net.ParseIP(ServiceIP)},
		},
		{Name: "apiserver-kubelet", CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}},
		{Name: "admin", CommonName: "testbed-admin", Organization: []string{"system:masters"}},
		{Name: ControllerManager, CommonName: "system:kube-controller-manager", DNSNames: []string{"localhost"}, IPs: []net.IP{loopback}},
		{Name: Scheduler, CommonName: "system:kube-scheduler", DNSNames: []string{"localhost"}, IPs: []net.IP{loopback}},
	}, c.NodeIdentities()...)
}

// NodeIdentities lists the certificates that the node itself has.
func (c Cluster) NodeIdentities() []pki.Identity {
	user, group := "system:node:"+c.NodeName, []string{"system:nodes"}
	return []pki.Identity{
		{Name: Kubelet, CommonName: user, Organization: group},
		{
			Name: "kubelet-server", CommonName: user, Organization: group,
			DNSNames: []string{c.NodeName, "localhost"}, IPs: []net.IP{c.NodeIP().AsSlice(), net.IPv4(127, 0, 0, 1)},
		},
	}
}

// Kubeconfigs maps each kubeconfig file's name to the identity that it is for.
func Kubeconfigs() map[string]string {
	return map[string]string{"admin": "admin", ControllerManager: ControllerManager, Scheduler: Scheduler, Kubelet: Kubelet}
}
