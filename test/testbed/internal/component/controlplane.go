package component

import "fmt"

func (c Cluster) etcdArgs() []string {
	client := fmt.Sprintf("https://127.0.0.1:%d", c.Ports.EtcdClient)
	peer := fmt.Sprintf("https://127.0.0.1:%d", c.Ports.EtcdPeer)
	return []string{
		"--name=testbed",
		"--data-dir=" + c.Layout.Etcd(),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=testbed=" + peer,
		"--cert-file=" + c.crt("etcd"), "--key-file=" + c.key("etcd"),
		"--trusted-ca-file=" + c.crt("ca"), "--client-cert-auth",
		"--peer-cert-file=" + c.crt("etcd"), "--peer-key-file=" + c.key("etcd"),
		"--peer-trusted-ca-file=" + c.crt("ca"), "--peer-client-cert-auth",
		// The data need not survive a power loss, only a killed process.
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

func (c Cluster) apiServerArgs() []string {
	return append([]string{
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.Ports.APIServer),
		// A loopback address is refused here, and no endpoint is published for
		// it: what runs in a pod network cannot reach the API server.
		"--advertise-address=" + c.NodeIP().String(),
		"--endpoint-reconciler-type=none",
		fmt.Sprintf("--etcd-servers=https://127.0.0.1:%d", c.Ports.EtcdClient),
		"--etcd-cafile=" + c.crt("ca"),
		"--etcd-certfile=" + c.crt("etcd-client"), "--etcd-keyfile=" + c.key("etcd-client"),
		"--tls-cert-file=" + c.crt("apiserver"), "--tls-private-key-file=" + c.key("apiserver"),
		"--client-ca-file=" + c.crt("ca"),
		"--kubelet-certificate-authority=" + c.crt("ca"),
		"--kubelet-client-certificate=" + c.crt("apiserver-kubelet"),
		"--kubelet-client-key=" + c.key("apiserver-kubelet"),
		// The node's name is in no name service.
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.Layout.PKI() + "/service-account.pub",
		"--service-account-signing-key-file=" + c.key("service-account"),
		"--service-cluster-ip-range=" + ServiceCIDR,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--profiling=false",
	}, append(c.gates(), c.runtimeConfig()...)...)
}

func (c Cluster) runtimeConfig() []string {
	if c.RuntimeConfig == "" {
		return nil
	}
	return []string{"--runtime-config=" + c.RuntimeConfig}
}

func (c Cluster) controllerManagerArgs() []string {
	args := c.controllerArgs(ControllerManager, c.Ports.ControllerManager)
	return append(args,
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+c.key("service-account"),
		"--root-ca-file="+c.crt("ca"),
		"--cluster-signing-cert-file="+c.crt("ca"), "--cluster-signing-key-file="+c.key("ca"),
	)
}

func (c Cluster) schedulerArgs() []string {
	return c.controllerArgs(Scheduler, c.Ports.Scheduler)
}

// controllerArgs is what the controller manager and the scheduler have in
// common.
func (c Cluster) controllerArgs(name string, port int) []string {
	kubeconfig := c.Layout.Kubeconfig(name)
	return append([]string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--client-ca-file=" + c.crt("ca"),
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + c.crt(name), "--tls-private-key-file=" + c.key(name),
		// There is one of each; waiting for a lease only makes a restart slow.
		"--leader-elect=false",
		"--profiling=false",
	}, c.gates()...)
}
