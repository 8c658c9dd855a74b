package component

import (
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"
)

func (c Cluster) containerdConfig() string {
	l := c.Layout
	return fmt.Sprintf(`# Read by containerd.
version = 3
root = %q
state = %q
disabled_plugins = [
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = %q

[ttrpc]
  address = %q

[plugins."io.containerd.internal.v1.opt"]
  path = %q

# The images need not survive a power loss, only a killed process.
[plugins."io.containerd.metadata.v1.bolt"]
  no_sync = true

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q

[plugins."io.containerd.cri.v1.runtime"]
  # Nothing of the testbed may stay loaded in the kernel.
  disable_apparmor = true
  # Without the capability every container would fail to start.
  restrict_oom_score_adj = %t
  netns_mounts_under_state_dir = true
  cdi_spec_dirs = [%q]

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [%q]
  conf_dir = %q

[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = %q

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = %q
  SystemdCgroup = false

[plugins."io.containerd.nri.v1.nri"]
  disable = false
  socket_path = %q
  plugin_path = %q
  plugin_config_path = %q

# Requires no plugin of every pod, but honours the pod annotation by which one
# pod requires some.
[plugins."io.containerd.nri.v1.nri".default_validator]
  enable = true
`,
		l.ContainerdRoot(), l.ContainerdState(),
		l.ContainerdSocket(), l.ContainerdSocket()+".ttrpc",
		l.ContainerdRoot()+"/opt",
		c.PauseImage,
		!c.CanRaiseOOMPriority,
		l.CDI(), l.Bin(), l.CNIConfig(),
		l.Program("containerd-shim-runc-v2"), l.Program("runc"),
		l.NRISocket(), l.NRIPlugins(), l.NRIConfig())
}

func (c Cluster) kubeletArgs() []string {
	return []string{
		"--config=" + c.Layout.Config("kubelet.yaml"),
		"--kubeconfig=" + c.Layout.Kubeconfig(Kubelet),
		"--root-dir=" + c.Layout.KubeletRoot(),
		"--cert-dir=" + c.Layout.PKI(),
		"--hostname-override=" + c.NodeName,
		"--node-ip=" + c.NodeIP().String(),
	}
}

func (c Cluster) kubeletConfig() (string, error) {
	endpoint := "unix://" + c.Layout.ContainerdSocket()
	config := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"address":    c.NodeIP().String(),
		"port":       c.Ports.Kubelet,
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": c.crt("ca")},
		},
		"authorization":            map[string]any{"mode": "Webhook"},
		"tlsCertFile":              c.crt("kubelet-server"),
		"tlsPrivateKeyFile":        c.key("kubelet-server"),
		"healthzBindAddress":       "127.0.0.1",
		"healthzPort":              c.Ports.KubeletHealth,
		"containerRuntimeEndpoint": endpoint,
		"imageServiceEndpoint":     endpoint,
		"cgroupDriver":             "cgroupfs",
		"cgroupRoot":               c.Layout.Cgroup(),
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"podLogsDir":               c.Layout.PodLogs(),
		"volumePluginDir":          c.Layout.KubeletRoot() + "/volume-plugins",
		// The first renewal fails while the node is being registered; the next
		// comes after a quarter of this.
		"nodeLeaseDurationSeconds": 8,
		// Nothing answers there, but without an address every pod gets a
		// warning event.
		"clusterDNS":    []string{clusterDNS},
		"clusterDomain": "cluster.local",
		"resolvConf":    "",
		// The images cannot be pulled again, and a nearly full disk is the
		// host's concern.
		"imageGCHighThresholdPercent": 100,
		"evictionHard": map[string]string{
			"memory.available": "50Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
			"imagefs.available": "0%", "imagefs.inodesFree": "0%",
		},
		"oomScoreAdj":                  0,
		"enableControllerAttachDetach": true,
		"serverTLSBootstrap":           false,
		"rotateCertificates":           false,
	}
	if len(c.FeatureGates) > 0 {
		config["featureGates"] = c.FeatureGates
	}
	out, err := yaml.Marshal(config)
	if err != nil {
		return "", fmt.Errorf("render the kubelet's configuration: %w", err)
	}
	return string(out), nil
}

// networkConfig connects ordinary pods to the bridge. The host neither
// forwards nor masquerades for them.
func (c Cluster) networkConfig() (string, error) {
	config := map[string]any{
		"cniVersion": "1.0.0",
		"name":       "topolet-testbed",
		"plugins": []any{
			map[string]any{
				"type":      "bridge",
				"bridge":    c.Layout.Bridge(),
				"isGateway": false,
				"ipMasq":    false,
				"ipam": map[string]any{
					"type":    "host-local",
					"dataDir": c.Layout.CNIData(),
					"ranges": [][]any{{map[string]any{
						"subnet":  c.PodCIDR.Masked().String(),
						"gateway": c.BridgeIP().String(),
					}}},
					"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			},
		},
	}
	out, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return "", fmt.Errorf("render the network configuration: %w", err)
	}
	return string(out) + "\n", nil
}
