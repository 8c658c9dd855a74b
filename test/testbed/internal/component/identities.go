package component

import (
	"net"

	"github.com/topolet/topolet/test/testbed/internal/pki"
)

// vmHost is the address by which a virtual machine with user-mode networking
// reaches services on this host's loopback; such a machine can be a further
// node.
const vmHost = "10.0.2.2"

// Identities lists the certificates of the cluster.
func (c Cluster) Identities() []pki.Identity {
	loopback := net.IPv4(127, 0, 0, 1)
	node := net.IP(c.NodeIP().AsSlice())
	return []pki.Identity{
		{Name: "etcd", CommonName: "etcd", DNSNames: []string{"localhost"}, IPs: []net.IP{loopback}},
		{Name: "etcd-client", CommonName: "kube-apiserver-etcd-client"},
		{
			Name: "apiserver", CommonName: "kube-apiserver",
			DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			IPs:      []net.IP{loopback, node, net.ParseIP(ServiceIP), net.ParseIP(vmHost)},
		},
		{Name: "apiserver-kubelet", CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}},
		{Name: "admin", CommonName: "testbed-admin", Organization: []string{"system:masters"}},
		{Name: ControllerManager, CommonName: "system:kube-controller-manager", DNSNames: []string{"localhost"}, IPs: []net.IP{loopback}},
		{Name: Scheduler, CommonName: "system:kube-scheduler", DNSNames: []string{"localhost"}, IPs: []net.IP{loopback}},
		{Name: Kubelet, CommonName: "system:node:" + c.NodeName, Organization: []string{"system:nodes"}},
		{Name: "kubelet-server", CommonName: "system:node:" + c.NodeName, Organization: []string{"system:nodes"}, DNSNames: []string{c.NodeName, "localhost"}, IPs: []net.IP{node, loopback}},
	}
}

// Kubeconfigs maps each kubeconfig file's name to the identity that it is for.
func Kubeconfigs() map[string]string {
	return map[string]string{"admin": "admin", ControllerManager: ControllerManager, Scheduler: Scheduler, Kubelet: Kubelet}
}
