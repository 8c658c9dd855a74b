package binaries

import "slices"

// Program is one executable of the testbed.
type Program struct {
	// Name is the file's name.
	Name string
	// Package is what is built; a path with a leading dot is the testbed's own.
	Package string
	// Sources are folders of this module whose content decides whether the
	// program has to be built again.
	Sources []string
	// Module is the Go module whose version goes into Stamp's variables.
	Module string
	// Stamp are the string variables that are set at link time to the
	// module's version.
	Stamp []string
	// Fixed are string variables that are set at link time, as NAME=VALUE.
	Fixed []string
	Tags  []string
	// Cgo is for what cannot be built without a C compiler.
	Cgo bool
	// Aliases are further names that the program is called by.
	Aliases []string
}

const componentVersion = "k8s.io/component-base/version."

// Programs lists what a cluster needs, the quick ones last: who waits for the
// long one knows that the rest is little.
func Programs() []Program {
	const containerd = "github.com/containerd/containerd/v2"
	cni := func(name, path string) Program {
		return Program{Name: name, Package: "github.com/containernetworking/plugins/plugins/" + path}
	}
	own := func(name string, sources ...string) Program {
		return Program{Name: name, Package: "./cmd/" + name, Sources: append([]string{"cmd/" + name}, sources...)}
	}
	return []Program{
		{
			Name:    "kube",
			Package: "./cmd/kube",
			Sources: []string{"cmd/kube"},
			Module:  "k8s.io/kubernetes",
			// Components compare these, and refuse each other when they are
			// left at their defaults.
			Stamp: []string{componentVersion + "gitVersion", "k8s.io/client-go/pkg/version.gitVersion"},
			Fixed: []string{
				componentVersion + "gitMajor=1", componentVersion + "gitMinor=37",
				componentVersion + "gitTreeState=clean", componentVersion + "gitCommit=unknown",
				componentVersion + "buildDate=1970-01-01T00:00:00Z",
			},
			Aliases: []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"},
		},
		{Name: "containerd", Package: containerd + "/cmd/containerd", Module: containerd, Stamp: []string{containerd + "/version.Version"}, Tags: []string{"urfave_cli_no_docs"}},
		{Name: "etcd", Package: "go.etcd.io/etcd/server/v3"},
		// Without seccomp the runtime refuses every pod: its default profile
		// could not be applied.
		{Name: "runc", Package: "github.com/opencontainers/runc", Tags: []string{"seccomp", "urfave_cli_no_docs"}, Cgo: true},
		{Name: "ctr", Package: containerd + "/cmd/ctr", Module: containerd, Stamp: []string{containerd + "/version.Version"}, Tags: []string{"urfave_cli_no_docs"}},
		{Name: "containerd-shim-runc-v2", Package: containerd + "/cmd/containerd-shim-runc-v2", Module: containerd, Stamp: []string{containerd + "/version.Version"}, Tags: []string{"urfave_cli_no_docs", "no_grpc"}},
		cni("bridge", "main/bridge"),
		cni("host-local", "ipam/host-local"),
		cni("loopback", "main/loopback"),
		own("guest", "numa/guest", "numa/channel", "internal/cgroup", "internal/host", "internal/layout", "internal/mountpoint", "internal/process"),
		own("launch", "internal/cgroup", "internal/mountpoint"),
		own("pause"),
		own("workload"),
	}
}

// Names lists every name that Programs can be called by.
func Names() []string {
	var names []string
	for _, p := range Programs() {
		names = append(names, p.Name)
		names = append(names, p.Aliases...)
	}
	slices.Sort(names)
	return names
}
