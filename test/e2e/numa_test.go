//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

const (
	bootLimit = 10 * time.Minute
	// followLimit is how soon topolet follows what others do to the machine.
	followLimit = 10 * time.Second
)

// TestNUMAMachine runs on an emulated machine with several sockets, NUMA nodes
// and PCIe roots, which joins the cluster for as long as this test. What it ought
// to be is read from its own kernel's files, by other code than topolet's.
func TestNUMAMachine(t *testing.T) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), downLimit)
		defer cancel()
		name := cluster.NUMANode().Name
		if err := cluster.NUMADown(ctx); err != nil {
			t.Error(err)
		}
		forget(ctx, t, name)
	})
	if err := cluster.NUMAUp(ctx, "--image", diskDriverImage+"="+build(t, "./test/nvmedriver"),
		"--image", crashingImage+"="+build(t, "-tags", "crashpoints", "./cmd/topolet")); err != nil {
		t.Fatal(err)
	}
	t.Logf("node ready %.1f s after the start", time.Since(begin).Seconds())
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		if err := cluster.Install(context.Background()); err != nil {
			t.Error(err)
		}
	})
	startDiskDriver(t)
	node := cluster.NUMANode()
	k := readKernelTopology(t, node)
	waitPublished(t.Context(), t, node.Name, startLimit, "a device for each NUMA node with CPUs", func(devices map[string]resourceapi.Device) error {
		for _, numa := range k.nodes {
			if _, ok := devices[fmt.Sprintf("numa-%d", numa.id)]; !ok {
				return fmt.Errorf("NUMA node %d has none, there are %v", numa.id, slices.Sorted(maps.Keys(devices)))
			}
		}
		return nil
	})
	t.Logf("devices published %.1f s after the start", time.Since(begin).Seconds())

	t.Run("the kernel has partitions as topolet makes them", func(t *testing.T) { partitionsOnKernel(t, node) })
	t.Run("each claim is whole cores of one NUMA node, of one L3 group if one has room", func(t *testing.T) {
		for _, tc := range []struct {
			name  string
			count func(numa kernelNode, claimable int) int
		}{
			{"4 CPUs", func(kernelNode, int) int { return 4 }},
			{"a whole node", func(_ kernelNode, claimable int) int { return claimable }},
		} {
			t.Run(tc.name, func(t *testing.T) {
				claimsOnEachNode(t, node, k, tc.count)
				t.Logf("done %.1f s after the start", time.Since(begin).Seconds())
			})
		}
	})
	t.Run("idle siblings, local memory and isolated CPUs", func(t *testing.T) { configuredClaims(t, node, k) })
	t.Run("CPUs and memory are where another driver's disk is", func(t *testing.T) { besideDisks(t, node, k) })
	// What is installed is the same for all nodes; each time takes a while.
	reinstall(t, "config.enforcement=Runtime", "config.devices[0].family=nvme",
		"config.devices[0].profiles[0].match.busIDs[0]="+profiledDisk, "config.devices[0].profiles[0].virtualFunctions=1")
	t.Run("a disk is set up as a profile says", func(t *testing.T) { waitVirtualFunctions(t, node, "1") })
	t.Run("the runtime keeps containers off claimed CPUs", func(t *testing.T) { runtimeTier(t, node) })
	// A profile is undone by a topolet that may write.
	reinstall(t, "config.levels={l3,socket,machine}", "config.devices[0].family=nvme", "config.devices[0].manageBinding=true",
		"config.devices[1].family=nic", "migration=true")
	t.Run("without its profile a disk is as before", func(t *testing.T) { waitVirtualFunctions(t, node, "2") })
	t.Run("CPUs and disks of topolet's own", func(t *testing.T) { ownDevices(t, node, k) })
	t.Run("with all levels", func(t *testing.T) {
		waitLevels(t, node)
		t.Run("claims of other levels exclude each other", func(t *testing.T) { furtherLevels(t, node, k) })
		t.Run("examples", func(t *testing.T) { examplesOnMachine(t, node, k) })
		t.Logf("done %.1f s after the start", time.Since(begin).Seconds())
	})
	reinstall(t)
	t.Run("PCI functions are at their NUMA node and root", func(t *testing.T) { pciFunctions(t, node) })
	t.Run("the kernel keeps everyone off claimed CPUs", func(t *testing.T) { kernelTier(t, node) })
	t.Run("topolet dies while partitions are made", func(t *testing.T) { crashesOnMachine(t, node) })
	t.Run("a claim whose CPU goes offline is told, its neighbour is not", func(t *testing.T) { cpuGoesOffline(t, node) })
	t.Run("an unplugged function is no longer published", func(t *testing.T) { functionIsUnplugged(t, node) })
	t.Run("a snapshot is the machine", func(t *testing.T) { snapshotIsTheMachine(t, node) })
	t.Run("after a power loss all have what they had", func(t *testing.T) { powerLoss(t, node) })
}

// reinstall changes the chart's values, for all nodes. The test begins with the default ones
// and ends with them.
func reinstall(t *testing.T, values ...string) {
	t.Helper()
	if err := cluster.Install(t.Context(), values...); err != nil {
		t.Fatal(err)
	}
}

// forget removes what a node that is gone leaves in the cluster, and waits until the
// cluster has removed its slices. Nobody is left to end its pods.
func forget(ctx context.Context, t *testing.T, node string) {
	t.Helper()
	if node == "" {
		return
	}
	pods, err := cluster.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		t.Error(err)
		return
	}
	for _, p := range pods.Items {
		err := cluster.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
	waitPublished(ctx, t, node, deleteLimit, "the slices of node "+node+" to be gone", func(devices map[string]resourceapi.Device) error {
		if len(devices) > 0 {
			return fmt.Errorf("%d devices", len(devices))
		}
		return nil
	})
}

// kernelNode is a NUMA node with CPUs.
type kernelNode struct {
	id   int
	cpus topology.CPUSet
}

// kernelTopology is what the kernel's files say about who sits together.
type kernelTopology struct {
	nodes []kernelNode
	// isolated are the CPUs that the kernel's scheduler leaves alone.
	isolated topology.CPUSet
	// siblings, l3 and sockets are, for each CPU, the CPUs of its core, of its L3 group
	// and of its socket.
	siblings, l3, sockets map[int]topology.CPUSet
	// memory are the NUMA nodes that have some.
	memory topology.CPUSet
}

func readKernelTopology(t *testing.T, node harness.Node) kernelTopology {
	t.Helper()
	k := kernelTopology{siblings: map[int]topology.CPUSet{}, l3: map[int]topology.CPUSet{}, sockets: map[int]topology.CPUSet{}}
	k.isolated = readSet(t, node, "/sys/devices/system/cpu/isolated")
	k.memory = readSet(t, node, "/sys/devices/system/node/has_memory")
	for _, id := range readSet(t, node, "/sys/devices/system/node/has_cpu").List() {
		k.nodes = append(k.nodes, kernelNode{id, readSet(t, node, fmt.Sprintf("/sys/devices/system/node/node%d/cpulist", id))})
	}
	for _, cpu := range readSet(t, node, "/sys/devices/system/cpu/online").List() {
		dir := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/", cpu)
		k.siblings[cpu] = readSet(t, node, dir+"topology/thread_siblings_list")
		k.l3[cpu] = readSet(t, node, dir+"cache/index3/shared_cpu_list")
		k.sockets[cpu] = readSet(t, node, dir+"topology/package_cpus_list")
	}
	if len(k.nodes) < 4 {
		t.Fatalf("the machine has %d NUMA nodes with CPUs, the tests need 4", len(k.nodes))
	}
	return k
}

func readSet(t *testing.T, node harness.Node, file string) topology.CPUSet {
	t.Helper()
	data, err := node.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set, err := topology.ParseCPUSet(string(data))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// groups counts the L3 groups that have a CPU of the set.
func (k kernelTopology) groups(cpus topology.CPUSet) int {
	seen := map[int]bool{}
	for _, cpu := range cpus.List() {
		seen[k.l3[cpu].First()] = true
	}
	return len(seen)
}

// nodesOf are the NUMA nodes that have a CPU of the set.
func (k kernelTopology) nodesOf(cpus topology.CPUSet) topology.CPUSet {
	var ids []int
	for _, numa := range k.nodes {
		if numa.cpus.Intersects(cpus) {
			ids = append(ids, numa.id)
		}
	}
	return topology.NewCPUSet(ids...)
}

// claimsOnEachNode runs one pod with a claim and a container for every NUMA node.
func claimsOnEachNode(t *testing.T, node harness.Node, k kernelTopology, count func(kernelNode, int) int) {
	ns := namespace(t)
	devices, err := published(t.Context(), node.Name)
	if err != nil {
		t.Fatal(err)
	}
	p := podOf("aligned")
	p.Spec.NodeName = ""
	p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node.Name}
	p.Spec.Containers = nil
	wanted := map[string]int{}
	for _, numa := range k.nodes {
		name := fmt.Sprintf("numa-%d", numa.id)
		cpus := devices[name].Capacity[draplugin.CapacityCPUs].Value
		wanted[name] = count(numa, int(cpus.Value()))
		claimFor(t, ns, name, fmt.Sprint(wanted[name]), atNUMANode(numa.id))
		p.Spec.Containers = append(p.Spec.Containers, workload(name, name))
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimName: &name})
	}
	begin := time.Now()
	create(t, ns, p)
	for _, numa := range k.nodes {
		name := fmt.Sprintf("numa-%d", numa.id)
		got := running(t, ns, p.Name, name)
		cpus := got.Allowed
		t.Logf("%s: %d CPUs: %s, %.1f s after the pod was created", name, wanted[name], cpus, time.Since(begin).Seconds())
		if !got.Cgroup.Equals(cpus) || !cpus.Equals(granted(t, ns, name)) {
			t.Errorf("%s: granted %s, the kernel says processes %s, cgroup %s", name, granted(t, ns, name), cpus, got.Cgroup)
		}
		if cpus.Size() != wanted[name] || !cpus.IsSubsetOf(numa.cpus) {
			t.Errorf("%s: %s are not %d CPUs of the node's %s", name, cpus, wanted[name], numa.cpus)
		}
		for _, cpu := range cpus.List() {
			if !k.siblings[cpu].IsSubsetOf(cpus) || k.isolated.Contains(cpu) {
				t.Errorf("%s: %s splits the core %s, or that is isolated", name, cpus, k.siblings[cpu])
			}
		}
		if want := k.fewestGroups(numa.cpus, wanted[name]); k.groups(cpus) != want {
			t.Errorf("%s: %s are of %d L3 groups, %d would do", name, cpus, k.groups(cpus), want)
		}
	}
}

// configuredClaims runs a pod whose containers have their CPUs in other ways, and
// reads what the kernel makes of them.
func configuredClaims(t *testing.T, node harness.Node, k kernelTopology) {
	ns := namespace(t)
	claimFor(t, ns, "whole-cores", "4", atNUMANode(2), withParameters(`{"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig","siblings":"Idle","memory":"Local"}`))
	claimFor(t, ns, "isolated", "2", func(d *resourceapi.DeviceClaim) { d.Requests[0].Exactly.DeviceClassName = "cpu-isolated.topolet.dev" })
	p := podOf("configured", "whole-cores", "isolated")
	p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node.Name}
	p.Spec.Containers = []corev1.Container{workload("whole-cores", "whole-cores"), workload("isolated", "isolated"), workload("plain")}
	for i := range p.Spec.Containers {
		p.Spec.Containers[i].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
	}
	create(t, ns, p)

	cores := running(t, ns, p.Name, "whole-cores")
	owned := granted(t, ns, "whole-cores")
	first := topology.CPUSet{}
	for _, cpu := range owned.List() {
		first = first.Union(topology.NewCPUSet(k.siblings[cpu].First()))
	}
	if owned.Size() != 4 || !cores.Allowed.Equals(first) {
		t.Errorf("of the cores %s the container runs on %s, want the first threads %s", owned, cores.Allowed, first)
	}
	if isolated := running(t, ns, p.Name, "isolated"); !isolated.Allowed.Equals(k.isolated) {
		t.Errorf("the container with the isolated CPUs runs on %s, want %s", isolated.Allowed, k.isolated)
	}
	if plain := running(t, ns, p.Name, "plain"); plain.Allowed.Intersects(owned.Union(k.isolated)) {
		t.Errorf("the container without a claim runs on %s, of which %s are idle or isolated", plain.Allowed, plain.Allowed.Intersection(owned.Union(k.isolated)))
	}
	for _, want := range []struct{ container, file, value string }{
		{"whole-cores", "cpuset.mems.effective", "2"},
		{"isolated", "cpuset.mems.effective", "0-4"},
		{"whole-cores", "cpu.max", "max 100000"},
		{"isolated", "cpu.max", "max 100000"},
		{"plain", "cpu.max", "100000 100000"},
	} {
		dir, err := cluster.CgroupOf(t.Context(), ns, p.Name, want.container)
		if err != nil {
			t.Fatal(err)
		}
		got, err := node.ReadFile(dir + "/" + want.file)
		if err != nil || strings.TrimSpace(string(got)) != want.value {
			t.Errorf("%s of container %s is %q, want %q (%v)", want.file, want.container, got, want.value, err)
		}
	}
}

// fewestGroups is how many L3 groups n of these CPUs take at least. The CPUs of
// the machine's first core are reserved, and isolated ones another device's.
func (k kernelTopology) fewestGroups(cpus topology.CPUSet, n int) int {
	sizes := map[int]int{}
	for _, cpu := range cpus.Difference(k.siblings[0]).Difference(k.isolated).List() {
		sizes[k.l3[cpu].First()]++
	}
	var sorted []int
	for _, size := range sizes {
		sorted = append(sorted, size)
	}
	slices.Sort(sorted)
	groups := 0
	for n > 0 && len(sorted) > groups {
		n -= sorted[len(sorted)-1-groups]
		groups++
	}
	return groups
}

func atNUMANode(id int) func(*resourceapi.DeviceClaim) {
	return func(d *resourceapi.DeviceClaim) {
		d.Requests[0].Exactly.Selectors = []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{
			Expression: fmt.Sprintf(`device.attributes["resource.kubernetes.io"].numaNode == %d`, id),
		}}}
	}
}

// published are a node's devices by name.
func published(ctx context.Context, node string) (map[string]resourceapi.Device, error) {
	list, err := cluster.Client.ResourceV1().ResourceSlices().List(ctx, metav1.ListOptions{FieldSelector: "spec.driver=" + draplugin.DriverName + ",spec.nodeName=" + node})
	if err != nil {
		return nil, err
	}
	devices := map[string]resourceapi.Device{}
	for _, s := range list.Items {
		for _, d := range s.Spec.Devices {
			devices[d.Name] = d
		}
	}
	return devices, nil
}

// waitPublished waits until a node's devices are as they ought to be, and returns
// how long that took.
func waitPublished(ctx context.Context, t *testing.T, node string, limit time.Duration, what string, check func(map[string]resourceapi.Device) error) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := harness.Wait(ctx, limit, what, func(ctx context.Context) error {
		devices, err := published(ctx, node)
		if err != nil {
			return err
		}
		return check(devices)
	}); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

// pciFunction is what `topolet topology --output json` says of one.
type pciFunction struct {
	Address  string `json:"address"`
	Class    string `json:"class"`
	NUMANode *int   `json:"numaNode"`
	PCIeRoot string `json:"pcieRoot"`
}

// pciFunctions holds topolet's picture of every NVMe and network function on a
// PCIe root of a NUMA node against the kernel's files.
func pciFunctions(t *testing.T, node harness.Node) {
	out, err := node.Run(t.Context(), path.Join(cluster.Var("TESTBED_BIN"), "topolet"), "topology", "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	var machine struct {
		PCIDevices []pciFunction `json:"pciDevices"`
	}
	if err := json.Unmarshal([]byte(out), &machine); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, f := range machine.PCIDevices {
		kind := map[string]string{"0x0108": "NVMe", "0x0200": "network"}[f.Class[:min(6, len(f.Class))]]
		if kind == "" || f.NUMANode == nil {
			continue
		}
		counts[fmt.Sprintf("%s at node %d", kind, *f.NUMANode)]++
		near := readSet(t, node, "/sys/devices/"+f.PCIeRoot+"/pci_bus/"+strings.TrimPrefix(f.PCIeRoot, "pci")+"/cpulistaffinity")
		if want := readSet(t, node, fmt.Sprintf("/sys/devices/system/node/node%d/cpulist", *f.NUMANode)); !near.Equals(want) {
			t.Errorf("%s is said to be at NUMA node %d (CPUs %s) and root %s, which is near CPUs %s", f.Address, *f.NUMANode, want, f.PCIeRoot, near)
		}
	}
	// Node 0's NVMe and one of its two cards have two virtual functions each.
	want := map[string]int{}
	for id, counts := range [][2]int{{3, 4}, {1, 1}, {1, 1}, {1, 1}} {
		want[fmt.Sprintf("NVMe at node %d", id)] = counts[0]
		want[fmt.Sprintf("network at node %d", id)] = counts[1]
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("functions (-want +got):\n%s", diff)
	}
}
