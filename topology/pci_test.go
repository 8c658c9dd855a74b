package topology_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// twoSockets is a machine with PCIe devices of all kinds: four nodes on two
// sockets, and one of memory only.
func twoSockets() topologytest.Spec {
	type functions = []topologytest.PCIFunction
	port, second := topologytest.Port, topologytest.NIC(0, 0)
	second.SameDevice = true
	return topologytest.Spec{
		Sockets: 2, NUMAPerSocket: 2, CoresPerL3: 2, MemoryOnly: []int{4},
		PCI: []topologytest.PCIRoot{
			{NUMANode: 0, Functions: functions{topologytest.HostBridge(), port(topologytest.NVMe()), port(topologytest.NIC(0, 0), second)}},
			{NUMANode: 1, Bus: 0x20, Functions: functions{port(topologytest.NIC(8, 2))}},
			{NUMANode: 2, Bus: 0x40, Functions: functions{
				port(topologytest.Switch(topologytest.GPU(), topologytest.NVMe())), port(topologytest.GPU()),
			}},
			{NUMANode: 3, Bus: 0x60, NodeOnBusOnly: true, Functions: functions{port(topologytest.NVMe())}},
			{NoNUMANode: true, Domain: 0x10000, Functions: functions{port(topologytest.NVMe())}},
		},
	}
}

// tree prints the PCIe tree, a function a line.
func tree(m *topology.Machine) string {
	var out strings.Builder
	var write func(indent string, children []int)
	write = func(indent string, children []int) {
		for _, i := range children {
			f := m.PCI.Functions[i]
			fmt.Fprintf(&out, "%s%s %s", indent, f.Address, f.Kind)
			if f.SRIOV != nil {
				fmt.Fprintf(&out, ", %d of %d VFs", f.SRIOV.NumVFs, f.SRIOV.TotalVFs)
			}
			if f.PhysicalFunction != topology.None {
				fmt.Fprintf(&out, " of %s", m.PCI.Functions[f.PhysicalFunction].Address)
			}
			if f.Locality.From != topology.LocalityFromNode {
				fmt.Fprintf(&out, " (node %d, CPUs %s, %q)", f.Locality.NUMANode, f.Locality.CPUs, f.Locality.From)
			}
			out.WriteByte('\n')
			write(indent+" ", f.Children)
		}
	}
	for _, r := range m.PCI.Roots {
		out.WriteString(r.String() + "\n")
		write(" ", r.Children)
	}
	return out.String()
}

func TestThePCIeTreeIsAsTheLinksSay(t *testing.T) {
	m := topologytest.New(twoSockets())
	checkInvariants(t, m)
	want := `pci0000:00
 0000:00:00.0 host bridge
 0000:00:01.0 root port
  0000:01:00.0 endpoint
 0000:00:02.0 root port
  0000:02:00.0 endpoint
  0000:02:00.1 endpoint
pci0000:20
 0000:20:00.0 root port
  0000:21:00.0 endpoint, 2 of 8 VFs
  0000:21:10.0 endpoint of 0000:21:00.0
  0000:21:10.1 endpoint of 0000:21:00.0
pci0000:40
 0000:40:00.0 root port
  0000:41:00.0 upstream port
   0000:42:00.0 downstream port
    0000:43:00.0 endpoint
   0000:42:01.0 downstream port
    0000:44:00.0 endpoint
 0000:40:01.0 root port
  0000:45:00.0 endpoint
pci0000:60
 0000:60:00.0 root port (node 3, CPUs 6-7, "root")
  0000:61:00.0 endpoint (node 3, CPUs 6-7, "root")
pci10000:00
 10000:00:00.0 root port (node -1, CPUs , "")
  10000:01:00.0 endpoint (node -1, CPUs , "")
`
	if diff := cmp.Diff(want, tree(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func at(t testing.TB, text string) topology.PCIAddress {
	t.Helper()
	a, err := topology.ParsePCIAddress(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAFunctionHasWhatItsFilesSay(t *testing.T) {
	m := topologytest.New(twoSockets())
	got, ok := m.PCI.Function(at(t, "0000:21:00.0"))
	if !ok {
		t.Fatal("no such function")
	}
	cpus := topology.NewCPUSet(2, 3)
	want := topology.PCIFunction{
		Address: topology.PCIAddress{Bus: 0x21}, Kind: topology.PCIEndpoint,
		Vendor: 0x8086, Device: 0x10c9, SubsystemVendor: 0x8086, SubsystemDevice: 1, Class: 0x020000,
		Driver: "igb", IOMMUGroup: 5, NUMANode: 1, LocalCPUs: &cpus,
		Locality: topology.Locality{NUMANode: 1, CPUs: cpus, From: topology.LocalityFromNode},
		Root:     1, Parent: got.Parent, SRIOV: &topology.SRIOV{TotalVFs: 8, NumVFs: 2, VFs: []int{8, 9}},
		PhysicalFunction: topology.None,
		Link:             topology.PCILink{Speed: 5, Width: 4}, MaxLink: topology.PCILink{Speed: 5, Width: 4},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(topology.CPUSet.Equals)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, ok := m.PCI.Function(at(t, "0000:21:00.7")); ok {
		t.Error("there is a function that does not exist")
	}
}

// disk is one disk behind a root port of the second node.
var disk = topologytest.Spec{
	Sockets: 2, CoresPerL3: 2,
	PCI: []topologytest.PCIRoot{{NUMANode: 1, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.NVMe())}}},
}

const (
	pciDir   = "sys/bus/pci/devices/"
	portDir  = "sys/devices/pci0000:00/0000:00:00.0/"
	diskDir  = portDir + "0000:01:00.0/"
	diskName = "0000:01:00.0"
)

func TestWhatIsWrongWithAFunctionStaysWithIt(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*topologytest.Tree)
		want string
	}{
		"nothing": {
			edit: func(*topologytest.Tree) {},
			want: "0000:01:00.0 010802 1b36:0010 nvme group 1 node 1 near 1 2-3 numa_node in pci0000:00 behind 0000:00:00.0 16x4",
		},
		"every file is missing": {
			edit: func(t *topologytest.Tree) {
				t.Remove(diskDir).Remove("sys/devices/pci0000:00/pci_bus").Remove(portDir + "numa_node").Remove(portDir + "local_cpulist").
					Remove(portDir + "local_cpus").Dir(diskDir)
			},
			want: "0000:01:00.0 ? ?:?  group ? node ? near ?   in pci0000:00 behind 0000:00:00.0 0x0",
		},
		"every file is garbled": {
			edit: func(t *topologytest.Tree) {
				for _, file := range []string{
					"class", "vendor", "device", "numa_node", "local_cpulist", "local_cpus", "max_link_width", "max_link_speed",
				} {
					t.File(diskDir+file, "0xfffffffffffffffff\xff\n")
				}
				t.File(diskDir+"iommu_group", "1").File(diskDir+"driver", "x")
			},
			want: "0000:01:00.0 ? ?:?  group ? node ? near 1 2-3 parent in pci0000:00 behind 0000:00:00.0 0x0",
		},
		"a link without a connection": {
			edit: func(t *topologytest.Tree) {
				t.File(diskDir+"max_link_width", "255\n").File(diskDir+"max_link_speed", "Unknown\n")
			},
			want: "0000:01:00.0 010802 1b36:0010 nvme group 1 node 1 near 1 2-3 numa_node in pci0000:00 behind 0000:00:00.0 0x0",
		},
		"a node that does not exist is stated, but not near": {
			edit: func(t *topologytest.Tree) { t.File(diskDir+"numa_node", "7\n") },
			want: "0000:01:00.0 010802 1b36:0010 nvme group 1 node 7 near 1 2-3 local_cpus in pci0000:00 behind 0000:00:00.0 16x4",
		},
		"a node of -1, and the mask alone": {
			edit: func(t *topologytest.Tree) { t.File(diskDir+"numa_node", "-1\n").Remove(diskDir + "local_cpulist") },
			want: "0000:01:00.0 010802 1b36:0010 nvme group 1 node ? near 1 2-3 local_cpus in pci0000:00 behind 0000:00:00.0 16x4",
		},
		"a directory in place of the link": {
			edit: func(t *topologytest.Tree) {
				t.File(pciDir+diskName+"/class", "0x010802\n").File(pciDir+diskName+"/numa_node", "1\n")
			},
			want: "0000:01:00.0 010802 ?:?  group ? node 1 near 1 2-3 numa_node in ? behind ? 0x0",
		},
		"a link that leads nowhere": {
			edit: func(t *topologytest.Tree) { t.Remove("sys/devices/pci0000:00") },
			want: "0000:01:00.0 ? ?:?  group ? node ? near ?   in pci0000:00 behind 0000:00:00.0 0x0",
		},
		"a link to another function's place": {
			edit: func(t *topologytest.Tree) { t.Link(pciDir+diskName, "0000:00:00.0") },
			want: "0000:01:00.0 060400 1b36:000c pcieport group ? node 1 near 1 2-3 numa_node in ? behind ? 16x16",
		},
		"a link in a circle": {
			edit: func(t *topologytest.Tree) { t.Link(pciDir+diskName, diskName) },
			want: "0000:01:00.0 ? ?:?  group ? node ? near ?   in ? behind ? 0x0",
		},
		"a link with an end of its own": {
			edit: func(t *topologytest.Tree) { t.Link(pciDir+diskName, "/"+diskDir+"/.//") },
			want: "0000:01:00.0 010802 1b36:0010 nvme group 1 node 1 near 1 2-3 numa_node in pci0000:00 behind 0000:00:00.0 16x4",
		},
		"a physical function that is its own": {
			edit: func(t *topologytest.Tree) { t.Link(diskDir+"physfn", "../"+diskName) },
			want: "0000:01:00.0 010802 1b36:0010 nvme group 1 node 1 near 1 2-3 numa_node in pci0000:00 behind 0000:00:00.0 16x4",
		},
		"a function below a device that is none of PCI's": {
			edit: func(t *topologytest.Tree) {
				t.Link(pciDir+diskName, "../../../devices/LNXSYSTM:00/pci0000:00/0000:00:00.0/pci10000:e0/0000:01:00.0")
			},
			want: "0000:01:00.0 ? ?:?  group ? node ? near 1 2-3 root in pci0000:00 behind ? 0x0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			files := topologytest.FS(disk)
			tc.edit(files)
			m, err := topology.Discover(files)
			if err != nil {
				t.Fatal(err)
			}
			checkInvariants(t, m)
			f, ok := m.PCI.Function(at(t, diskName))
			if !ok {
				t.Fatal("the function is lost")
			}
			if diff := cmp.Diff(tc.want, functionLine(m, f)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func functionLine(m *topology.Machine, f topology.PCIFunction) string {
	number := func(format string, v int) string {
		if v == topology.None {
			return "?"
		}
		return fmt.Sprintf(format, v)
	}
	root, parent := "?", "?"
	if r, ok := m.PCI.RootOf(f); ok {
		root = r.String()
	}
	if f.Parent != topology.None {
		parent = m.PCI.Functions[f.Parent].Address.String()
	}
	return fmt.Sprintf("%s %s %s:%s %s group %s node %s near %s %s %s in %s behind %s %gx%d",
		f.Address, number("%06x", f.Class), number("%04x", f.Vendor), number("%04x", f.Device), f.Driver,
		number("%d", f.IOMMUGroup), number("%d", f.NUMANode),
		number("%d", f.Locality.NUMANode), f.Locality.CPUs, f.Locality.From, root, parent, f.MaxLink.Speed, f.MaxLink.Width)
}

func TestAddressesAreThoseThatTheKernelWrites(t *testing.T) {
	for _, text := range []string{"0000:00:00.0", "ffff:ff:1f.7", "10000:e1:00.0", "ffffffff:00:00.0"} {
		if got := at(t, text).String(); got != text {
			t.Errorf("%s is printed as %s", text, got)
		}
	}
	for _, text := range []string{
		"", "00:00.0", "000:00:00.0", "00000:00:00.0", "100000000:00:00.0", "0000:00:20.0", "0000:00:00.8",
		"0000:00:00.00", "0000:00:0.0", "0000:00:00", "0000:00:00.0.0", "0000:0000.0", "-000:00:00.0", strings.Repeat("0", 300),
	} {
		if a, err := topology.ParsePCIAddress(text); err == nil {
			t.Errorf("%q is taken for %s", text, a)
		} else if len(err.Error()) > 150 {
			t.Errorf("a long error: %v", err)
		}
	}
}

func TestAFunctionBehindTwoRootsBelongsToTheOuterOne(t *testing.T) {
	files := topologytest.FS(disk)
	// What an Intel VMD shows: a domain of its own, below one of its functions.
	const vmd = "sys/devices/pci0000:00/0000:00:0e.0"
	files.File(vmd+"/class", "0x010400\n").File(vmd+"/numa_node", "1\n").Link(pciDir+"0000:00:0e.0", "../../../../"+vmd).
		File(vmd+"/pci10000:e0/10000:e0:06.0/class", "0x060400\n").
		Link(pciDir+"10000:e0:06.0", "../../../../"+vmd+"/pci10000:e0/10000:e0:06.0").
		File(vmd+"/pci10000:e0/10000:e0:06.0/10000:e1:00.0/class", "0x010802\n").
		Link(pciDir+"10000:e1:00.0", "../../../../"+vmd+"/pci10000:e0/10000:e0:06.0/10000:e1:00.0")
	m, err := topology.Discover(files)
	if err != nil {
		t.Fatal(err)
	}
	checkInvariants(t, m)
	want := `pci0000:00
 0000:00:00.0 root port
  0000:01:00.0 endpoint
 0000:00:0e.0 endpoint
  10000:e0:06.0 root port (node 1, CPUs 2-3, "parent")
   10000:e1:00.0 endpoint (node 1, CPUs 2-3, "parent")
`
	if diff := cmp.Diff(want, tree(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLocalityFollowsFromTheNearestThatIsSaid(t *testing.T) {
	const root = "sys/devices/pci0000:00/pci_bus/0000:00/cpulistaffinity"
	unknown := func(t *topologytest.Tree) {
		for _, dir := range []string{portDir, diskDir} {
			t.File(dir+"numa_node", "-1\n").File(dir+"local_cpulist", "0-7\n")
		}
		t.File(root, "0-7\n")
	}
	for name, tc := range map[string]struct {
		edit func(*topologytest.Tree)
		want string
	}{
		"nobody says anything":                 {func(*topologytest.Tree) {}, `-1 "" ""`},
		"the function's node":                  {func(t *topologytest.Tree) { t.File(diskDir+"numa_node", "2\n") }, `2 "4-5" "numa_node"`},
		"CPUs of a node":                       {func(t *topologytest.Tree) { t.File(diskDir+"local_cpulist", "6\n") }, `3 "6" "local_cpus"`},
		"CPUs of a socket":                     {func(t *topologytest.Tree) { t.File(diskDir+"local_cpulist", "4-7\n") }, `-1 "4-7" "local_cpus"`},
		"CPUs that are offline":                {func(t *topologytest.Tree) { t.File(diskDir+"local_cpulist", "90\n") }, `-1 "" ""`},
		"the bridge's node":                    {func(t *topologytest.Tree) { t.File(portDir+"numa_node", "1\n") }, `1 "2-3" "parent"`},
		"the bridge's CPUs":                    {func(t *topologytest.Tree) { t.File(portDir+"local_cpulist", "0-3\n") }, `-1 "0-3" "parent"`},
		"the CPUs of the root's bus":           {func(t *topologytest.Tree) { t.File(root, "0-1\n") }, `0 "0-1" "root"`},
		"the mask of the root's bus":           {func(t *topologytest.Tree) { t.Remove(root).File(strings.Replace(root, "list", "", 1), "0c\n") }, `1 "2-3" "root"`},
		"the function is nearer than the root": {func(t *topologytest.Tree) { t.File(root, "0-1\n").File(diskDir+"numa_node", "3\n") }, `3 "6-7" "numa_node"`},
		"nodes that overlap leave the CPUs": {func(t *topologytest.Tree) {
			t.File(diskDir+"local_cpulist", "0\n").File("sys/devices/system/node/node1/cpulist", "0-3\n")
		}, `-1 "0" "local_cpus"`},
		"a virtual function is where its physical one is": {func(t *topologytest.Tree) {
			pf := "sys/devices/pci0000:40/0000:40:00.0"
			t.File(pf+"/numa_node", "2\n").Link(pciDir+"0000:40:00.0", "../../../devices/pci0000:40/0000:40:00.0").
				Link(diskDir+"physfn", "/"+pf)
		}, `2 "4-5" "parent"`},
	} {
		t.Run(name, func(t *testing.T) {
			spec := disk
			spec.NUMAPerSocket = 2
			files := topologytest.FS(spec)
			unknown(files)
			tc.edit(files)
			m, err := topology.Discover(files)
			if err != nil {
				t.Fatal(err)
			}
			checkInvariants(t, m)
			f, _ := m.PCI.Function(at(t, diskName))
			if got := fmt.Sprintf("%d %q %q", f.Locality.NUMANode, f.Locality.CPUs, f.Locality.From); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}
