package nriplugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"

	"github.com/topolet/topolet/allocator"
	devices "github.com/topolet/topolet/topology/device"
)

// withDevices is a node with a disk and a network card.
func withDevices(t *testing.T) *node {
	t.Helper()
	n := newNode(t, false)
	n.write("sys/class/net/eth1/mtu", "1500")
	n.ledger.ReplaceDevices([]devices.Device{
		{Name: "nvme-0", Family: "nvme", Use: devices.Use{Owner: "0"}, Nodes: []devices.Node{{Path: "/dev/nvme0n1", Block: true, Major: 259, Minor: 1}},
			Variables: []devices.Variable{{Name: "DISK", Value: "nvme0n1"}}},
		{Name: "nic-1", Family: "nic", Use: devices.Use{Owner: "1"}, Interfaces: []string{"eth1"}},
	})
	return n
}

func TestAContainerIsCreatedWithTheNodesOfItsClaimsOnly(t *testing.T) {
	for name, test := range map[string]struct {
		given   []*api.LinuxDevice
		refused string
	}{
		"its node":      {[]*api.LinuxDevice{{Path: "/dev/null", Type: "c"}, {Path: "/dev/nvme0n1", Type: "b", Major: 259, Minor: 1}}, ""},
		"no node":       {nil, "does not get /dev/nvme0n1, which its claim has: switch CDI on"},
		"other numbers": {[]*api.LinuxDevice{{Path: "/dev/nvme0n1", Type: "b", Major: 259, Minor: 2}}, "b 259:2, than its claim has, b 259:1"},
		"another type":  {[]*api.LinuxDevice{{Path: "/dev/nvme0n1", Type: "c", Major: 259, Minor: 1}}, "c 259:1, than its claim has, b 259:1"},
	} {
		t.Run(name, func(t *testing.T) {
			n := withDevices(t)
			grant(t, n.ledger, allocator.Request{Name: "cpus", Domain: "nvme-0"}, "claim", "main")
			c := n.newContainer("main", device("claim"))
			c.Linux.Devices = test.given
			err := n.create(c)
			if (err == nil) != (test.refused == "") || err != nil && !strings.Contains(err.Error(), test.refused) {
				t.Fatalf("the plugin answers %v, want %q", err, test.refused)
			}
			if _, known := n.ledger.Entry(allocator.ContainerID(c.Id)); known != (err == nil) {
				t.Errorf("the ledger knows the container: %t", known)
			}
		})
	}
}

func TestAContainerHasTheVariablesOfItsClaimsOnly(t *testing.T) {
	n := withDevices(t)
	grant(t, n.ledger, allocator.Request{Name: "cpus", Domain: "nvme-0"}, "claim", "main")
	for claim, want := range map[string]string{"claim": "DISK=nvme0n1", "": ""} {
		c := n.newContainer("plain")
		if claim != "" {
			c = n.newContainer("main", device(claim))
			c.Linux.Devices = []*api.LinuxDevice{{Path: "/dev/nvme0n1", Type: "b", Major: 259, Minor: 1}}
		}
		adjust, _, err := n.plugin.CreateContainer(t.Context(), c.pod, c.Container)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		for _, v := range adjust.GetEnv() {
			got += v.GetKey() + "=" + v.GetValue()
		}
		if got != want {
			t.Errorf("with the claim %q the container has %q, want %q", claim, got, want)
		}
	}
}

func TestANetworkInterfaceMovesIntoThePod(t *testing.T) {
	n := withDevices(t)
	grant(t, n.ledger, allocator.Request{Name: "cpus", Domain: "nic-1"}, "claim", "main")
	c := n.newContainer("main", device("claim"))
	adjust := func() *api.ContainerAdjustment {
		t.Helper()
		a, _, err := n.plugin.CreateContainer(t.Context(), c.pod, c.Container)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	_, _, err := n.plugin.CreateContainer(t.Context(), c.pod, c.Container)
	if err == nil || !strings.Contains(err.Error(), "leave out hostNetwork") {
		t.Fatalf("a pod on the host's network gets %v", err)
	}
	c.pod.Linux = &api.LinuxPodSandbox{Namespaces: []*api.LinuxNamespace{{Type: "network", Path: "/var/run/netns/x"}}}
	if moved := adjust().GetLinux().GetNetDevices(); len(moved) != 1 || moved["eth1"].GetName() != "eth1" {
		t.Errorf("moved: %v", moved)
	}
	// A runtime that knows nothing of it leaves it where it is.
	n.makeCgroup(c)
	err = n.plugin.StartContainer(t.Context(), c.pod, c.Container)
	if err == nil || !strings.Contains(err.Error(), "has not moved network interface eth1") {
		t.Errorf("the container starts without it: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(n.root, "sys/class/net/eth1")); err != nil {
		t.Fatal(err)
	}
	if moved := adjust().GetLinux().GetNetDevices(); len(moved) != 0 {
		t.Errorf("moved again: %v", moved)
	}
	if err := n.plugin.hasInterfaces(allocator.Entry{Container: allocator.Container{ID: allocator.ContainerID(c.Id)}}); err != nil {
		t.Error(err)
	}
}

// A refusal must not swallow what others were to be told.
func TestWhoIsRefusedLeavesTheUpdatesOfOthersToBeSent(t *testing.T) {
	n := withDevices(t)
	shared := n.run("shared")
	if _, err := n.ledger.Grant(allocator.Claim{UID: "claim", Namespace: "default", Name: "claim", Pods: []allocator.PodUID{"pod-main"}}, []allocator.Request{
		{Name: "cpus", Domain: "numa-1", Count: 2}, {Name: "nic", Domain: "nic-1"},
	}); err != nil {
		t.Fatal(err)
	}
	ref := allocator.Ref{Claim: "claim"}
	c := n.newContainer("main", ref.String())
	if _, _, err := n.plugin.CreateContainer(t.Context(), c.pod, c.Container); err == nil {
		t.Fatal("a pod on the host's network gets an interface")
	}
	updates := n.ledger.Updates()
	if len(updates) != 1 || string(updates[0].ID) != shared.Id {
		t.Errorf("updates to be sent: %+v", updates)
	}
}

// The kernel does not begin to keep others off for a container that is not started.
func TestAContainerWithoutItsInterfaceIsNotVerified(t *testing.T) {
	n := withDevices(t)
	grant(t, n.ledger, allocator.Request{Name: "cpus", Domain: "nic-1"}, "claim", "main")
	c := n.newContainer("main", device("claim"))
	c.pod.Linux = &api.LinuxPodSandbox{Namespaces: []*api.LinuxNamespace{{Type: "network", Path: "/var/run/netns/x"}}}
	if _, _, err := n.plugin.CreateContainer(t.Context(), c.pod, c.Container); err != nil {
		t.Fatal(err)
	}
	// Without a cgroup the verification has something to say as well.
	err := n.plugin.StartContainer(t.Context(), c.pod, c.Container)
	if err == nil || !strings.Contains(err.Error(), "has not moved") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the container starts: %v", err)
	}
}
