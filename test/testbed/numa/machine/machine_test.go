package machine

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var boot = Boot{
	Kernel: "/k", Initrd: "/i", Disk: "/d", Console: "/c", Control: "/q",
	Link: Link{
		Prefix:   netip.MustParsePrefix("10.9.8.0/25"),
		Forwards: []Forward{{From: netip.MustParseAddrPort("10.9.8.15:10250"), To: 10250}},
	},
}

func args(t *testing.T, l Layout) []string {
	t.Helper()
	a, err := Args(l, boot)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// values are what follows an option, for every time it occurs.
func values(args []string, option string) []string {
	var list []string
	for i, a := range args {
		if a == option {
			list = append(list, args[i+1])
		}
	}
	return list
}

func TestEveryLayoutIsValid(t *testing.T) {
	names := map[string]bool{}
	for _, l := range Layouts() {
		if err := l.Validate(); err != nil {
			t.Error(err)
		}
		if names[l.Name] {
			t.Errorf("two layouts are called %s", l.Name)
		}
		names[l.Name] = true
	}
	if !names[DefaultLayout] {
		t.Errorf("there is no %s", DefaultLayout)
	}
	if _, err := Find("two-nodes"); err == nil || !strings.Contains(err.Error(), DefaultLayout) {
		t.Errorf("unknown layout: error %v, want one that names the known", err)
	}
}

func TestNodesCoverEachCPUOnce(t *testing.T) {
	for _, l := range Layouts() {
		var all []int
		for n := range l.Nodes {
			all = append(all, l.CPUs(n)...)
		}
		slices.Sort(all)
		if len(slices.Compact(slices.Clone(all))) != len(all) || len(all) != l.CPUCount() || all[len(all)-1] != l.CPUCount()-1 {
			t.Errorf("%s: %v", l.Name, all)
		}
	}
}

func TestIsolatedCPUsAndHugepagesAreArgumentsOfTheKernel(t *testing.T) {
	l, err := Find(DefaultLayout)
	if err != nil {
		t.Fatal(err)
	}
	if got := values(args(t, l), "-append"); len(got) != 1 || !strings.Contains(got[0]+" ", " isolcpus=18,19 ") {
		t.Errorf("arguments of the kernel: %q", got)
	}
	if got := values(args(t, l), "-append"); !strings.Contains(got[0], " hugepagesz=2M hugepages=0:32,2:16 ") {
		t.Errorf("arguments of the kernel: %q", got)
	}
	l.Isolated = nil
	for i := range l.Nodes {
		l.Nodes[i].Hugepages = 0
	}
	if got := values(args(t, l), "-append"); strings.Contains(got[0], "isolcpus") || strings.Contains(got[0], "hugepages") {
		t.Errorf("without isolated CPUs and huge pages: %q", got)
	}
}

func TestAnIOMMUComesBeforeWhatIsBehindItAndIsSwitchedOn(t *testing.T) {
	l, err := Find(DefaultLayout)
	if err != nil {
		t.Fatal(err)
	}
	if got := values(args(t, l), "-device"); got[0] != "intel-iommu" {
		t.Errorf("the first device is %s", got[0])
	}
	if got := values(args(t, l), "-append"); !strings.HasSuffix(got[0], " intel_iommu=on iommu=pt") {
		t.Errorf("arguments of the kernel: %q", got)
	}
	l.IOMMU = false
	if got := strings.Join(args(t, l), " "); strings.Contains(got, "iommu") {
		t.Errorf("without an IOMMU: %s", got)
	}
}

func TestMistakesInALayoutAreNamed(t *testing.T) {
	valid := func() Layout {
		return Layout{
			Name: "x", Sockets: 1, L3PerSocket: 2, CoresPerL3: 1, ThreadsPerCore: 1,
			Nodes:     []Node{{L3: []int{0}, Memory: 64}, {L3: []int{1}, Memory: 64}},
			Distances: [][]int{{10, 20}, {20, 10}},
		}
	}
	if err := valid().Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Layout){
		"belongs to no node":      func(l *Layout) { l.Nodes[1].L3 = nil },
		"the nodes 0 and 1":       func(l *Layout) { l.Nodes[1].L3 = []int{0, 1} },
		"does not exist":          func(l *Layout) { l.Nodes[1].L3 = []int{1, 2} },
		"at least one socket":     func(l *Layout) { l.ThreadsPerCore = 0 },
		"1 to 14":                 func(l *Layout) { l.Nodes = make([]Node, 15) },
		"CPU 0 cannot":            func(l *Layout) { l.Isolated = []int{0} },
		"half of its 64 MiB":      func(l *Layout) { l.Nodes[1].Hugepages = 17 },
		"CPU 2 cannot":            func(l *Layout) { l.Isolated = []int{1, 2} },
		"has no memory":           func(l *Layout) { l.Nodes[0].Memory = 0 },
		"at most 8192":            func(l *Layout) { l.Nodes[0].Memory = 9000 },
		"two devices are called":  func(l *Layout) { l.Nodes[0].Devices = []Device{{"a", NVMe, 0}, {"a", NVMe, 0}} },
		`is a "gpu"`:              func(l *Layout) { l.Nodes[0].Devices = []Device{{"a", "gpu", 0}} },
		"cannot have VFs":         func(l *Layout) { l.Nodes[0].Devices = []Device{{"a", Network, 1}} },
		"there is room for 15":    func(l *Layout) { l.Nodes[0].Devices = make([]Device, 16) },
		"a row and a column":      func(l *Layout) { l.Distances = [][]int{{10}} },
		"from node 0 to node 1":   func(l *Layout) { l.Distances[0][1] = 21 },
		"from node 0 to node 0":   func(l *Layout) { l.Distances[0][0] = 11 },
		"node 0 to node 1 is 255": func(l *Layout) { l.Distances = [][]int{{10, 255}, {255, 10}} },
	} {
		l := valid()
		change(&l)
		if err := l.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
		if _, err := Args(l, boot); err == nil {
			t.Errorf("arguments are made although %q", want)
		}
	}
}

func TestArgumentsSayWhatTheLayoutSays(t *testing.T) {
	l, err := Find(DefaultLayout)
	if err != nil {
		t.Fatal(err)
	}
	a := args(t, l)
	if got := values(a, "-smp"); !slices.Equal(got, []string{"24,sockets=2,dies=3,cores=2,threads=2"}) {
		t.Errorf("-smp %v", got)
	}
	if got := values(a, "-m"); !slices.Equal(got, []string{"3072M"}) {
		t.Errorf("-m %v", got)
	}
	numa := values(a, "-numa")
	for _, want := range []string{
		"node,nodeid=4,memdev=mem4",
		"cpu,node-id=0,socket-id=0,die-id=1",
		"cpu,node-id=2,socket-id=1,die-id=0",
		"dist,src=0,dst=1,val=12",
		"dist,src=4,dst=3,val=28",
	} {
		if !slices.Contains(numa, want) {
			t.Errorf("-numa %s is missing in %v", want, numa)
		}
	}
	if slices.ContainsFunc(numa, func(s string) bool { return strings.HasPrefix(s, "cpu,node-id=4") }) {
		t.Error("the node without CPUs has some")
	}
	if got := values(a, "-netdev")[0]; !strings.Contains(got, "hostfwd=tcp:10.9.8.15:10250-:10250") || !strings.Contains(got, "host=10.9.8.2,") {
		t.Errorf("-netdev %s", got)
	}
}

// A device that is plugged in is described as it was at the start.
func TestDevicesAreBelowTheirNode(t *testing.T) {
	for _, l := range Layouts() {
		a := args(t, l)
		devices := values(a, "-device")
		addresses := map[string]bool{}
		for n, node := range l.Nodes {
			for _, d := range node.Devices {
				properties, err := json.Marshal(d.Properties())
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(devices, string(properties)) {
					t.Errorf("%s: %s is missing", l.Name, properties)
				}
				_, address, err := l.Device(d.ID)
				if err != nil {
					t.Fatal(err)
				}
				if addresses[address] {
					t.Errorf("%s: two devices have the address %s", l.Name, address)
				}
				addresses[address] = true
			}
			root := slices.ContainsFunc(devices, func(s string) bool {
				return strings.HasPrefix(s, "pxb-pcie,") && strings.HasSuffix(s, fmt.Sprintf("numa_node=%d", n))
			})
			if root != (len(node.Devices) > 0) {
				t.Errorf("%s: node %d has a PCI root: %v", l.Name, n, root)
			}
		}
	}
	l, _ := Find(DefaultLayout)
	if _, address, err := l.Device("nvme1"); err != nil || address != "0000:21:00.0" {
		t.Errorf("nvme1 is at %s, %v", address, err)
	}
	if _, _, err := l.Device("nvme9"); err == nil || !strings.Contains(err.Error(), "nvme1") {
		t.Errorf("unknown device: error %v, want one that names the known", err)
	}
}

func TestOnlyAParallelMachineHasAThreadForEachCPU(t *testing.T) {
	for _, l := range Layouts() {
		want := map[bool]string{false: "thread=single", true: "thread=multi"}[l.Parallel]
		if got := values(args(t, l), "-accel"); len(got) != 1 || !strings.HasSuffix(got[0], want) {
			t.Errorf("%s: -accel %q, want %s", l.Name, got, want)
		}
	}
}

func TestEveryNVMeHasANamespace(t *testing.T) {
	for _, l := range Layouts() {
		a := args(t, l)
		for _, node := range l.Nodes {
			for _, d := range node.Devices {
				has := slices.ContainsFunc(values(a, "-blockdev"), func(s string) bool { return strings.Contains(s, "node-name="+d.ID+"-disk,") })
				uses := slices.ContainsFunc(values(a, "-device"), func(s string) bool {
					return strings.Contains(s, `"drive":"`+d.ID+`-disk"`)
				})
				if has != (d.Kind == NVMe) || uses != has {
					t.Errorf("%s: %s has a disk: %v, in use: %v", l.Name, d.ID, has, uses)
				}
			}
		}
	}
}

func TestCPUsAreCountedThroughThreadsFirst(t *testing.T) {
	l, _ := Find(DefaultLayout)
	if got := l.Siblings(5); !slices.Equal(got, []int{4, 5}) {
		t.Errorf("siblings of 5: %v", got)
	}
	if got := l.CPUsOfL3(2); !slices.Equal(got, []int{8, 9, 10, 11}) {
		t.Errorf("third L3 group: %v", got)
	}
	if got := l.CPUs(4); len(got) != 0 {
		t.Errorf("CPUs of the node without: %v", got)
	}
	if l, _ := Find("eight-nodes"); !slices.Equal(l.Siblings(3), []int{3}) {
		t.Errorf("siblings without SMT: %v", l.Siblings(3))
	}
}
