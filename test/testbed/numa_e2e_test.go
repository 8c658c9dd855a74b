//go:build e2e

package testbed_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/topolet/topolet/test/testbed"
	"github.com/topolet/topolet/test/testbed/internal/host"
	"github.com/topolet/topolet/test/testbed/numa/channel"
	"github.com/topolet/topolet/test/testbed/numa/machine"
)

// numaMachine is a running machine and what it should be.
type numaMachine struct {
	cluster
	channel.Client
	layout machine.Layout
}

func bootMachine(ctx context.Context, t *testing.T, tb *testbed.Testbed, layout string) numaMachine {
	t.Helper()
	if err := tb.InstallNUMAPackages(ctx); err != nil {
		t.Fatal(err)
	}
	if err := tb.NUMAUp(ctx, testbed.NUMAOptions{Layout: layout}); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, tb)
	l, err := machine.Find(layout)
	if err != nil {
		t.Fatal(err)
	}
	return numaMachine{cluster: c, Client: channel.Client{URL: c.env["TESTBED_NUMA_CHANNEL"]}, layout: l}
}

// is compares a file in the guest with what it should say.
func (m numaMachine) is(ctx context.Context, t *testing.T, path, want string) {
	t.Helper()
	got, err := m.Read(ctx, path)
	if err != nil {
		t.Error(err)
	} else if got = strings.Join(strings.Fields(got), " "); got != want {
		t.Errorf("%s is %q, want %q", path, got, want)
	}
}

// isAsLaidOut compares everything in the guest's sysfs with the layout.
func (m numaMachine) isAsLaidOut(ctx context.Context, t *testing.T) {
	t.Helper()
	m.is(ctx, t, "/sys/devices/system/cpu/online", fmt.Sprintf("0-%d", m.layout.CPUCount()-1))
	m.is(ctx, t, "/sys/devices/system/cpu/isolated", cpuList(m.layout.Isolated))
	for group := range m.layout.Sockets * m.layout.L3PerSocket {
		for _, cpu := range m.layout.CPUsOfL3(group) {
			dir := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/", cpu)
			m.is(ctx, t, dir+"topology/physical_package_id", strconv.Itoa(group/m.layout.L3PerSocket))
			m.is(ctx, t, dir+"topology/thread_siblings_list", cpuList(m.layout.Siblings(cpu)))
			m.is(ctx, t, dir+"cache/index3/shared_cpu_list", cpuList(m.layout.CPUsOfL3(group)))
		}
	}
	for n, node := range m.layout.Nodes {
		dir := fmt.Sprintf("/sys/devices/system/node/node%d/", n)
		m.is(ctx, t, dir+"cpulist", cpuList(m.layout.CPUs(n)))
		m.is(ctx, t, dir+"hugepages/hugepages-2048kB/nr_hugepages", strconv.Itoa(node.Hugepages))
		m.is(ctx, t, dir+"distance", strings.Trim(fmt.Sprint(m.layout.Distances[n]), "[]"))
		for _, d := range node.Devices {
			m.hasDevice(ctx, t, d.ID, n)
		}
	}
	if _, err := m.Read(ctx, fmt.Sprintf("/sys/devices/system/node/node%d/distance", len(m.layout.Nodes))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there are more nodes than %d: %v", len(m.layout.Nodes), err)
	}
}

func (m numaMachine) hasDevice(ctx context.Context, t *testing.T, id string, node int) {
	t.Helper()
	d, address, err := m.layout.Device(id)
	if err != nil {
		t.Fatal(err)
	}
	class := map[machine.Kind]string{machine.NVMe: "0x010802", machine.Network: "0x020000", machine.SRIOVNetwork: "0x020000"}[d.Kind]
	addresses := []string{address}
	own, err := m.List(ctx, "/sys/bus/pci/devices/"+address)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range own {
		if strings.HasPrefix(e.Name, "virtfn") {
			addresses = append(addresses, filepath.Base(e.Link))
		}
	}
	if len(addresses) != 1+d.VFs {
		t.Errorf("%s has %d VFs, want %d", address, len(addresses)-1, d.VFs)
	}
	for i, a := range addresses {
		dir := "/sys/bus/pci/devices/" + a
		m.is(ctx, t, dir+"/class", class)
		m.is(ctx, t, dir+"/numa_node", strconv.Itoa(node))
		m.is(ctx, t, dir+"/local_cpulist", cpuList(m.layout.CPUs(node)))
		if entries, err := m.List(ctx, dir); i > 0 && (err != nil || !hasLink(entries, "physfn", address)) {
			t.Errorf("%s is no VF of %s, %v", a, address, err)
		}
	}
	if d.VFs > 0 {
		m.is(ctx, t, "/sys/bus/pci/devices/"+address+"/sriov_numvfs", strconv.Itoa(d.VFs))
	}
}

func hasLink(entries []channel.Entry, name, target string) bool {
	for _, e := range entries {
		if e.Name == name {
			return filepath.Base(e.Link) == target
		}
	}
	return false
}

// cpuList is how the kernel writes a set of CPUs.
func cpuList(cpus []int) string {
	var parts []string
	for i := 0; i < len(cpus); {
		j := i
		for j+1 < len(cpus) && cpus[j+1] == cpus[j]+1 {
			j++
		}
		part := strconv.Itoa(cpus[i])
		if j > i {
			part += "-" + strconv.Itoa(cpus[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}

const numaPod = `apiVersion: v1
kind: Pod
metadata:
  name: numa
spec:
  nodeSelector:
    kubernetes.io/hostname: topolet-numa
  terminationGracePeriodSeconds: 1
  containers:
  - name: numa
    image: docker.io/topolet/workload:test
    imagePullPolicy: Never
`

func TestLifeOfAMachine(t *testing.T) {
	tb, before := newTestbed(t)
	ctx := t.Context()
	if err := tb.NUMAUp(ctx, testbed.NUMAOptions{}); !errors.Is(err, testbed.ErrNone) {
		t.Errorf("a machine without a cluster: error %v", err)
	}
	if err := tb.Up(ctx); err != nil {
		t.Fatal(err)
	}
	m := bootMachine(ctx, t, tb, machine.DefaultLayout)
	node := m.env["TESTBED_NUMA_NODE"]

	t.Run("the guest finds what the layout says", func(t *testing.T) { m.isAsLaidOut(ctx, t) })

	t.Run("a second up changes nothing", func(t *testing.T) {
		was, err := m.BootID(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := tb.NUMAUp(ctx, testbed.NUMAOptions{}); err != nil {
			t.Fatal(err)
		}
		if now, err := m.BootID(ctx); err != nil || now != was {
			t.Errorf("it booted again: %v", err)
		}
	})

	t.Run("a CPU goes and comes", func(t *testing.T) {
		const file = "/sys/devices/system/cpu/cpu5/online"
		if err := m.Write(ctx, file, "0"); err != nil {
			t.Fatal(err)
		}
		m.is(ctx, t, "/sys/devices/system/node/node0/cpulist", "0-4,6-7")
		if err := m.Write(ctx, file, "1"); err != nil {
			t.Fatal(err)
		}
		m.is(ctx, t, "/sys/devices/system/node/node0/cpulist", "0-7")
	})

	t.Run("a pod runs", func(t *testing.T) {
		c := cluster{t, m.env}
		c.must(ctx, numaPod, "apply", "-f", "-")
		c.must(ctx, "", "wait", "--for=condition=Ready", "pod/numa", "--timeout=90s")
		if line := c.firstLine(ctx, "numa"); !strings.Contains(line, `"cpusAllowed":"0-23"`) {
			t.Errorf("first line of the log: %q", line)
		}
		if out := c.must(ctx, "", "exec", "numa", "--", "/workload", "--for=20ms"); !strings.Contains(out, `"event":"end"`) {
			t.Errorf("exec printed %q", out)
		}
	})

	t.Run("a daemon that is killed comes back", func(t *testing.T) {
		if err := m.Kill(ctx, channel.Kill{Component: "kubelet", Signal: "KILL"}); err != nil {
			t.Fatal(err)
		}
		if err := tb.NUMAUp(ctx, testbed.NUMAOptions{}); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("devices go and come", func(t *testing.T) {
		for id, node := range map[string]int{"nvme1": 1, "net2": 2} {
			_, address, err := m.layout.Device(id)
			if err != nil {
				t.Fatal(err)
			}
			if err := tb.NUMAUnplug(ctx, id); err != nil {
				t.Fatal(err)
			}
			if _, err := m.List(ctx, "/sys/bus/pci/devices/"+address); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still at %s: %v", id, address, err)
			}
			if err := tb.NUMAUnplug(ctx, id); err == nil || !strings.Contains(err.Error(), "not found") {
				t.Errorf("what is not there cannot be unplugged: error %v", err)
			}
			if err := tb.NUMAPlug(ctx, id); err != nil {
				t.Fatal(err)
			}
			m.hasDevice(ctx, t, id, node)
		}
	})

	t.Run("a reset keeps the disk", func(t *testing.T) {
		file := state + "/kept"
		if err := m.Write(ctx, file, "before"); err != nil {
			t.Fatal(err)
		}
		if result, err := tb.NUMAExec(ctx, channel.Command{Argv: []string{state + "/bin/guest"}}); err != nil || result.ExitCode != 1 || !strings.Contains(result.Stderr, "first process") {
			t.Errorf("a program in the guest: %+v, %v", result, err)
		}
		if err := tb.NUMAReset(ctx); err != nil {
			t.Fatal(err)
		}
		m.is(ctx, t, file, "before")
		m.isAsLaidOut(ctx, t)
	})

	t.Run("a machine that is gone leaves no node", func(t *testing.T) {
		if err := tb.NUMADown(ctx); err != nil {
			t.Fatal(err)
		}
		if out := m.must(ctx, "", "get", "nodes", "-o", "name"); strings.Contains(out, node) {
			t.Errorf("the node is still there: %s", out)
		}
		if env := newCluster(t, tb).env; env["TESTBED_NUMA_NODE"] != "" {
			t.Errorf("the environment names it: %v", env)
		}
	})

	t.Run("another layout boots, and the cluster's down ends it", func(t *testing.T) {
		m := bootMachine(ctx, t, tb, "eight-nodes")
		m.isAsLaidOut(ctx, t)
		address := m.must(ctx, "", "get", "node", node, "-o", "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}")
		if err := tb.Down(ctx); err != nil {
			t.Fatal(err)
		}
		nothingLeft(t, before)
		if used, err := host.Reaches(netip.MustParsePrefix(address + "/32")); err != nil || used {
			t.Errorf("the machine's address %s is still routed: %v", address, err)
		}
	})
}
