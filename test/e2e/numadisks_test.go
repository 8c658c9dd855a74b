//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/test/examples"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

const (
	// diskDriver publishes the machine's NVMe disks, see test/nvmedriver.
	diskDriver      = "nvme.example.com"
	diskDriverImage = "docker.io/topolet/nvmedriver:test"
)

// build returns a static program of this repository.
func build(t *testing.T, args ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-C", cluster.Source, "-trimpath", "-ldflags", "-s -w", "-o", program}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// startDiskDriver runs the driver on the machine, until the test ends. It does not wait
// for it.
func startDiskDriver(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(cluster.Source, "test/nvmedriver/deploy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "nvmedriver.yaml")
	if err := os.WriteFile(file, []byte(os.Expand(string(text), cluster.Var)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), deleteLimit)
		defer cancel()
		if _, err := cluster.Kubectl(ctx, "delete", "--ignore-not-found", "--wait=false", "--filename", file); err != nil {
			t.Error(err)
		}
	})
	if _, err := cluster.Kubectl(t.Context(), "apply", "--filename", file); err != nil {
		t.Fatal(err)
	}
}

// waitDisks returns the disks that the other driver publishes, as soon as there are as
// many as NUMA nodes with CPUs.
func waitDisks(t *testing.T, node harness.Node, k kernelTopology) []resourceapi.Device {
	t.Helper()
	var disks []resourceapi.Device
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("%d disks to be published", len(k.nodes)), func(ctx context.Context) error {
		disks = nil
		for _, s := range slicesOf(ctx, t, node.Name) {
			if s.Spec.Driver == diskDriver {
				disks = append(disks, s.Spec.Devices...)
			}
		}
		if len(disks) != len(k.nodes) {
			return fmt.Errorf("there are %d", len(disks))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return disks
}

// besideDisks claims every disk together with CPUs on its NUMA node, where the
// container's memory is too. Nothing but the constraint says which node.
func besideDisks(t *testing.T, node harness.Node, k kernelTopology) {
	const touched = 32 // MiB
	disks := waitDisks(t, node, k)
	ns := namespace(t)
	p := podOf("disks")
	p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node.Name}
	p.Spec.Containers = nil
	for i := range disks {
		name := fmt.Sprintf("disk-%d", i)
		claimFor(t, ns, name, "2", withDisk, withParameters(`{"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig","memory":"Local"}`))
		c := workload(name, name)
		c.Args = []string{fmt.Sprintf("-touch=%d", touched), "-read=/dev/nvme*n1"}
		p.Spec.Containers = append(p.Spec.Containers, c)
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimName: &name})
	}
	create(t, ns, p)
	var seen topology.CPUSet
	for _, c := range p.Spec.Containers {
		got, g := running(t, ns, p.Name, c.Name), grantOf(t, ns, c.Name)
		numa := k.nodesOf(got.Allowed)
		t.Logf("%s: CPUs %s, NUMA nodes %s", c.Name, got.Allowed, numa)
		if !got.Allowed.Equals(g.CPUs()) || !got.Cgroup.Equals(g.CPUs()) {
			t.Errorf("%s: granted %s, the kernel says processes %s, cgroup %s", c.Name, g.CPUs(), got.Allowed, got.Cgroup)
		}
		k.checkCPUs(t, g, examples.Promise{Nodes: 1, Groups: 1})
		k.checkDisks(t, node, ns, c.Name, got.Allowed, examples.Promise{Disks: 1})
		onlyItsDisks(t, node, ns, p.Name, c.Name, c.Name, disks)
		if !got.Mems.Equals(numa) || !got.MemsAllowed.Equals(numa) {
			t.Errorf("%s: memory of the NUMA nodes %s, its processes of %s, want %s", c.Name, got.Mems, got.MemsAllowed, numa)
		}
		for _, pid := range got.Pids {
			if pages := touchedPages(t, node, pid, touched); !pages.Equals(numa) {
				t.Errorf("%s: process %d has pages on the NUMA nodes %s, want %s", c.Name, pid, pages, numa)
			}
		}
		seen = seen.Union(numa)
	}
	if seen.Size() != len(k.nodes) {
		t.Errorf("the claims are on the NUMA nodes %s", seen)
	}
}

// withDisk adds a disk on the NUMA node of the claim's CPUs.
func withDisk(d *resourceapi.DeviceClaim) {
	d.Requests = append(d.Requests, resourceapi.DeviceRequest{
		Name: "disk", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: diskDriver},
	})
	d.Constraints = append(d.Constraints, resourceapi.DeviceConstraint{
		MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(deviceattribute.StandardDeviceAttributeNUMANode)),
	})
}

// disksOf are the names of the disks that a claim got, which are the kernel's.
func disksOf(t *testing.T, namespace, claim string) []string {
	t.Helper()
	c, err := cluster.Client.ResourceV1().ResourceClaims(namespace).Get(t.Context(), claim, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, result := range c.Status.Allocation.Devices.Results {
		if result.Driver == diskDriver {
			names = append(names, result.Device)
		}
	}
	return names
}

// checkDisks holds the places of a claim's disks, by the kernel's files, against those
// of its CPUs: one on each of their NUMA nodes.
func (k kernelTopology) checkDisks(t *testing.T, node harness.Node, namespace, claim string, cpus topology.CPUSet, want examples.Promise) {
	t.Helper()
	var nodes topology.CPUSet
	disks := disksOf(t, namespace, claim)
	for _, name := range disks {
		function := "/sys/class/nvme/" + name + "/device/"
		nodes = nodes.Union(readSet(t, node, function+"numa_node"))
		if near := readSet(t, node, function+"local_cpulist"); want.Root && !cpus.IsSubsetOf(near) {
			t.Errorf("CPUs %s are not near %s, which is near %s", cpus, name, near)
		}
	}
	if len(disks) != want.Disks || want.Disks > 0 && (nodes.Size() != want.Disks || !nodes.Equals(k.nodesOf(cpus))) {
		t.Errorf("CPUs of the NUMA nodes %s have the disks %v at the nodes %s", k.nodesOf(cpus), disks, nodes)
	}
}

// onlyItsDisks reads a container's /dev: the disks of its claim are there and give
// zeros, no others are.
func onlyItsDisks(t *testing.T, node harness.Node, namespace, pod, container, claim string, all []resourceapi.Device) {
	t.Helper()
	own := disksOf(t, namespace, claim)
	pid := running(t, namespace, pod, container).Pids[0]
	for _, disk := range all {
		data, err := node.ReadFile(fmt.Sprintf("/proc/%d/root/dev/%sn1", pid, disk.Name))
		has := err == nil && len(data) == 1<<20 && len(bytes.Trim(data, "\x00")) == 0
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if want := slices.Contains(own, disk.Name); has != want {
			t.Errorf("container %s, whose disks are %v, has %s: %v", container, own, disk.Name, has)
		}
	}
}

// touchedPages waits until a process has so many MiB of memory of its own, and returns
// the NUMA nodes on which they are.
func touchedPages(t *testing.T, node harness.Node, pid, mib int) topology.CPUSet {
	t.Helper()
	var nodes topology.CPUSet
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("process %d to have %d MiB", pid, mib), func(context.Context) error {
		data, err := node.ReadFile(fmt.Sprintf("/proc/%d/numa_maps", pid))
		if err != nil {
			return err
		}
		nodes = topology.CPUSet{}
		kib := 0
		for line := range strings.Lines(string(data)) {
			// 7f12a0000000 default anon=8192 dirty=8192 active=0 N2=8192 kernelpagesize_kB=4
			if strings.Contains(line, "file=") || !strings.Contains(line, " anon=") {
				continue
			}
			pages, size := 0, 0
			for field := range strings.FieldsSeq(line) {
				name, value, _ := strings.Cut(field, "=")
				n, err := strconv.Atoi(value)
				if err != nil {
					continue
				}
				switch {
				case name == "kernelpagesize_kB":
					size = n
				case strings.HasPrefix(name, "N"):
					id, err := strconv.Atoi(name[1:])
					if err != nil {
						return err
					}
					pages += n
					nodes = nodes.Union(topology.NewCPUSet(id))
				}
			}
			kib += pages * size
		}
		if kib < mib<<10 {
			return fmt.Errorf("it has %d KiB", kib)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return nodes
}
