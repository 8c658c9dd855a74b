package gpu_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/gpu"
)

// server is a machine with a Flex 170, one virtual function of which is bound to i915 and
// one to vfio, and with a GPU of AMD's and one of NVIDIA's.
type server struct {
	*devicetest.Host
	flex, vf0, vf1, amd, nvidia devicetest.Function
}

// on returns the server with its functions in a PCI domain, and with numa_node as it would
// be on a machine of two nodes, or -1 everywhere.
func on(t *testing.T, domain string, numa bool) server {
	t.Helper()
	node := func(n int) int {
		if !numa {
			return -1
		}
		return n
	}
	port := "/sys/devices/pci" + domain + ":37/" + domain + ":37:01.0"
	upstream := port + "/" + domain + ":38:00.0"
	downstream := upstream + "/" + domain + ":39:01.0"
	other := "/sys/devices/pci" + domain + ":a0/" + domain + ":a0:"
	s := server{
		Host:   devicetest.New(t),
		flex:   devicetest.Function{Path: downstream + "/" + domain + ":3a:00.0", Vendor: 0x8086, Device: 0x56c0, Class: 0x038000, Node: node(0), Group: 42, Driver: "i915"},
		vf0:    devicetest.Function{Path: downstream + "/" + domain + ":3a:00.1", Vendor: 0x8086, Device: 0x56c0, Class: 0x038000, Node: node(0), Group: 43, Driver: "i915"},
		vf1:    devicetest.Function{Path: downstream + "/" + domain + ":3a:00.2", Vendor: 0x8086, Device: 0x56c0, Class: 0x038000, Node: node(0), Group: 44, Driver: "vfio-pci"},
		amd:    devicetest.Function{Path: other + "01.0/" + domain + ":a1:00.0", Vendor: 0x1002, Device: 0x74a1, Class: 0x038000, Node: node(1), Group: 70, Driver: "amdgpu"},
		nvidia: devicetest.Function{Path: other + "03.0/" + domain + ":a2:00.0", Vendor: 0x10de, Device: 0x2330, Class: 0x030200, Node: node(1), Group: 71, Driver: "nvidia"},
	}
	s.Add(devicetest.Bridge(port, node(0)), devicetest.Bridge(upstream, node(0)), devicetest.Bridge(downstream, node(0)))
	s.Add(s.flex, s.vf0, s.vf1, s.amd, s.nvidia)
	s.Files(s.flex.Path, map[string]string{"sriov_totalvfs": "31", "sriov_numvfs": "2", "sriov_vf_device": "56c0", "sriov_drivers_autoprobe": "1"})
	s.Virtual(s.flex, s.vf0, 0)
	s.Virtual(s.flex, s.vf1, 1)
	s.Char(s.flex.Path, "drm/card1", "226:1", "dri/card1")
	s.Char(s.flex.Path, "drm/renderD129", "226:129", "dri/renderD129")
	s.File(s.flex.Path+"/drm/card1/gt/gt0/id", "0")
	s.File(s.flex.Path+"/drm/card1/lmem_total_bytes", "14248050688")
	s.Char(s.flex.Path+"/i915.mei-gscfi.14848", "mei/mei1", "239:1", "mei1")
	s.Char(s.vf0.Path, "drm/card2", "226:2", "dri/card2")
	s.Char(s.vf0.Path, "drm/renderD130", "226:130", "dri/renderD130")
	s.Char(s.vf1.Path, "vfio-dev/vfio0", "511:0", "vfio/devices/vfio0")
	s.Char("/sys/devices/virtual", "vfio/44", "243:0", "vfio/44")
	s.File(s.amd.Path+"/mem_info_vram_total", "205822885888")
	s.Char(s.amd.Path, "drm/card3", "226:3", "dri/card3")
	s.Char(s.amd.Path, "drm/renderD131", "226:131", "dri/renderD131")
	return s
}

// intel are the attributes of a Flex 170's functions, and more.
func intel(tiles int64, more map[string]device.Value) map[string]device.Value {
	attributes := map[string]device.Value{
		"vendorID": device.Text("0x8086"), "deviceID": device.Text("0x56c0"), "pciClass": device.Text("0x038000"),
		"vendor": device.Text("intel"), "model": device.Text("Flex 170"), "series": device.Text("Flex"),
		"tiles": device.Number(tiles), "integrated": device.Flag(false),
	}
	maps.Copy(attributes, more)
	return attributes
}

func unmanaged(vendorID, deviceID, class, vendor string) map[string]device.Value {
	return map[string]device.Value{
		"vendorID": device.Text(vendorID), "deviceID": device.Text(deviceID), "pciClass": device.Text(class),
		"vendor": device.Text(vendor), "model": device.Text("Unknown"), "series": device.Text("Unknown"), "tiles": device.Number(0),
	}
}

func TestAServersGPUs(t *testing.T) {
	vfOf := func(index int64) map[string]device.Value {
		return map[string]device.Value{"pfBusID": device.Text("0000:3a:00.0"), "vfIndex": device.Number(index)}
	}
	want := []device.Device{{
		Name: "gpu-0000-3a-00-1", Family: "gpu", Personality: device.Kernel, Function: device.Virtual,
		Address: "0000:3a:00.1", Root: "pci0000:37", Driver: "i915",
		Attributes: intel(0, vfOf(0)),
		Use:        device.Use{Owner: "0000:3a:00.0", Part: "vf0"},
		Nodes: []device.Node{
			{Path: "/dev/dri/card2", Major: 226, Minor: 2, Role: gpu.Card},
			{Path: "/dev/dri/renderD130", Major: 226, Minor: 130, Role: gpu.Render},
		},
		Links: []device.Link{
			{Path: "/dev/dri/by-path/pci-0000:3a:00.1-card", Target: "../card2", Role: gpu.ByPathCard},
			{Path: "/dev/dri/by-path/pci-0000:3a:00.1-render", Target: "../renderD130", Role: gpu.ByPathRender},
		},
	}, {
		Name: "gpu-0000-3a-00-0", Family: "gpu", Personality: device.Kernel, Function: device.Physical,
		Address: "0000:3a:00.0", Root: "pci0000:37", Driver: "i915",
		Attributes: intel(1, nil),
		Capacities: []device.Capacity{{Name: "memory", Amount: 14248050688, Bytes: true}},
		Use:        device.Use{Owner: "0000:3a:00.0"},
		Taints:     []device.Taint{{Reason: device.ControlOnly}},
		Nodes: []device.Node{
			{Path: "/dev/dri/card1", Major: 226, Minor: 1, Role: gpu.Card},
			{Path: "/dev/dri/renderD129", Major: 226, Minor: 129, Role: gpu.Render},
		},
		Links: []device.Link{
			{Path: "/dev/dri/by-path/pci-0000:3a:00.0-card", Target: "../card1", Role: gpu.ByPathCard},
			{Path: "/dev/dri/by-path/pci-0000:3a:00.0-render", Target: "../renderD129", Role: gpu.ByPathRender},
		},
	}, {
		Name: "gpu-0000-a1-00-0", Family: "gpu", Personality: device.Kernel, Function: device.Single,
		Address: "0000:a1:00.0", NUMANode: 1, Root: "pci0000:a0", Driver: "amdgpu",
		Attributes: unmanaged("0x1002", "0x74a1", "0x038000", "amd"),
		Capacities: []device.Capacity{{Name: "memory", Amount: 205822885888, Bytes: true}},
		Use:        device.Use{Owner: "0000:a1:00.0"},
		Taints:     []device.Taint{{Reason: device.Unmanaged}},
	}, {
		Name: "gpu-0000-a2-00-0", Family: "gpu", Personality: device.Kernel, Function: device.Single,
		Address: "0000:a2:00.0", NUMANode: 1, Root: "pci0000:a0", Driver: "nvidia",
		Attributes: unmanaged("0x10de", "0x2330", "0x030200", "nvidia"),
		Use:        device.Use{Owner: "0000:a2:00.0"},
		Taints:     []device.Taint{{Reason: device.Unmanaged}},
	}, {
		Name: "gpu-0000-3a-00-2-vfio", Family: "gpu", Personality: device.VFIO, Function: device.Virtual,
		Address: "0000:3a:00.2", Root: "pci0000:37", Driver: "vfio-pci",
		Attributes: intel(0, map[string]device.Value{
			"pfBusID": device.Text("0000:3a:00.0"), "vfIndex": device.Number(1),
			"iommuGroup": device.Number(44), "iommuGroupSize": device.Number(1),
		}),
		Use: device.Use{Owner: "0000:3a:00.0", Part: "vf1"},
		Nodes: []device.Node{
			{Path: "/dev/vfio/44", Major: 243, Role: device.VFIOGroup},
			{Path: "/dev/vfio/vfio", Major: 10, Minor: 196, Role: device.VFIOGroup},
		},
	}, {
		Name: "gpu-0000-3a-00-0-monitor", Family: "gpu", Personality: device.Monitor, Function: device.Physical,
		Address: "0000:3a:00.0", Root: "pci0000:37", Driver: "i915",
		Attributes: intel(1, nil),
		Taints:     []device.Taint{{Reason: device.MonitorOnly}},
		Nodes: []device.Node{
			{Path: "/dev/dri/card1", Major: 226, Minor: 1},
			{Path: "/dev/dri/renderD129", Major: 226, Minor: 129},
			{Path: "/dev/mei1", Major: 239, Minor: 1},
		},
		Links: []device.Link{
			{Path: "/dev/dri/by-path/pci-0000:3a:00.0-card", Target: "../card1"},
			{Path: "/dev/dri/by-path/pci-0000:3a:00.0-render", Target: "../renderD129"},
		},
	}, {
		Name: "gpu-0000-3a-00-1-monitor", Family: "gpu", Personality: device.Monitor, Function: device.Virtual,
		Address: "0000:3a:00.1", Root: "pci0000:37", Driver: "i915",
		Attributes: intel(0, vfOf(0)),
		Taints:     []device.Taint{{Reason: device.MonitorOnly}},
		Nodes: []device.Node{
			{Path: "/dev/dri/card2", Major: 226, Minor: 2},
			{Path: "/dev/dri/renderD130", Major: 226, Minor: 130},
		},
		Links: []device.Link{
			{Path: "/dev/dri/by-path/pci-0000:3a:00.1-card", Target: "../card2"},
			{Path: "/dev/dri/by-path/pci-0000:3a:00.1-render", Target: "../renderD130"},
		},
	}, {
		Name: "gpu-0000-3a-00-2-monitor", Family: "gpu", Personality: device.Monitor, Function: device.Virtual,
		Address: "0000:3a:00.2", Root: "pci0000:37", Driver: "i915",
		Attributes: intel(0, vfOf(1)),
		Taints:     []device.Taint{{Reason: device.MonitorOnly}},
	}}
	if diff := cmp.Diff(want, on(t, "0000", true).Discover(gpu.Family{}), cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

// named returns the device of that name, or one without a name.
func named(devices []device.Device, name string) device.Device {
	for _, d := range devices {
		if d.Name == name {
			return d
		}
	}
	return device.Device{}
}

func TestAPlaceThatTheFirmwareDoesNotTellIsUnknown(t *testing.T) {
	devices := on(t, "0000", false).Discover(gpu.Family{})
	for _, d := range devices {
		if d.NUMANode != topology.None {
			t.Errorf("%s is at node %d", d.Name, d.NUMANode)
		}
	}
	if len(devices) != 8 {
		t.Errorf("%d devices", len(devices))
	}
}

func TestGPUsInOtherDomainsKeepThem(t *testing.T) {
	for domain, link := range map[string]string{
		"0001":  "/dev/dri/by-path/pci-0001:3a:00.0-card",
		"10000": "/dev/dri/by-path/pci-10000:3a:00.0-card",
	} {
		devices := on(t, domain, true).Discover(gpu.Family{})
		d := named(devices, "gpu-"+domain+"-3a-00-0")
		if len(devices) != 8 || d.Address != domain+":3a:00.0" || d.Root != "pci"+domain+":37" || d.Links[0].Path != link {
			t.Errorf("%d devices, among them %+v", len(devices), d)
		}
		if m := named(devices, "gpu-"+domain+"-3a-00-0-monitor"); len(m.Nodes) != 3 {
			t.Errorf("the monitor has nodes %+v, want three", m.Nodes)
		}
	}
}

func TestWhatIsWrongWithAGPUIsATaint(t *testing.T) {
	tests := map[string]struct {
		change func(s server)
		want   []device.Taint
		// problems says that people are told.
		problems bool
	}{
		"nothing":                  {func(server) {}, nil, false},
		"unbound":                  {func(s server) { s.Remove(s.vf0.Path + "/driver"); s.Remove(s.vf0.Path + "/drm") }, []device.Taint{{Reason: device.DriverLost}}, false},
		"bound to another driver":  {func(s server) { s.Link(s.vf0.Path+"/driver", "/sys/bus/pci/drivers/pci stub!") }, []device.Taint{{Reason: device.DriverLost, Value: "other-driver"}}, false},
		"bound but no drm":         {func(s server) { s.Remove(s.vf0.Path + "/drm") }, []device.Taint{{Reason: device.DriverLost, Value: "no-node"}}, false},
		"a node without numbers":   {func(s server) { s.Remove(s.vf0.Path + "/drm/renderD130/dev") }, []device.Taint{{Reason: device.DriverLost, Value: "no-node"}}, true},
		"a node of another name":   {func(s server) { s.File(s.vf0.Path+"/drm/card2/uevent", "DEVNAME=mem") }, []device.Taint{{Reason: device.DriverLost, Value: "no-node"}}, true},
		"a node out of the folder": {func(s server) { s.File(s.vf0.Path+"/drm/card2/uevent", "DEVNAME=../etc/card2") }, []device.Taint{{Reason: device.DriverLost, Value: "no-node"}}, true},
		// The file is one of xe's.
		"i915 in survivability": {func(s server) { s.File(s.vf0.Path+"/survivability_mode", "") }, nil, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := on(t, "0000", true)
			test.change(s)
			devices, problems := device.Discover(s.Open(), gpu.Family{})
			d, monitor := named(devices, "gpu-0000-3a-00-1"), named(devices, "gpu-0000-3a-00-1-monitor")
			if diff := cmp.Diff(test.want, d.Taints); diff != "" || len(devices) != 8 || d.Driver != "i915" {
				t.Errorf("%d devices, driver %q, taints -want +got:\n%s", len(devices), d.Driver, diff)
			}
			if diff := cmp.Diff([]device.Taint{{Reason: device.MonitorOnly}}, monitor.Taints); diff != "" {
				t.Errorf("taints of the monitor -want +got:\n%s", diff)
			}
			if len(test.want) > 0 && len(d.Nodes)+len(monitor.Nodes) > 0 {
				t.Errorf("nodes %+v and %+v", d.Nodes, monitor.Nodes)
			}
			if (len(problems) > 0) != test.problems {
				t.Errorf("problems %v", problems)
			}
		})
	}
}

func TestAFunctionThatDoesNotTellWhatItIsCostsNoOther(t *testing.T) {
	for _, file := range []string{"vendor", "device", "class"} {
		for content, change := range map[string]func(s server, file string){
			"missing": func(s server, file string) { s.Remove(file) },
			"garbled": func(s server, file string) { s.File(file, "0xyz") },
		} {
			s := on(t, "0000", true)
			change(s, s.vf0.Path+"/"+file)
			devices, problems := device.Discover(s.Open(), gpu.Family{})
			if len(devices) != 6 || named(devices, "gpu-0000-3a-00-1").Name != "" {
				t.Errorf("%s %s: %d devices", file, content, len(devices))
			}
			if file == "class" && (len(problems) != 1 || !strings.Contains(problems[0].Error(), "0000:3a:00.1")) {
				t.Errorf("%s %s: problems %v", file, content, problems)
			}
		}
	}
}

func TestOptionalFilesCostNothingButWhatTheyTell(t *testing.T) {
	s := on(t, "0000", true)
	for _, file := range []string{"drm/card1/gt", "drm/card1/lmem_total_bytes", "i915.mei-gscfi.14848", "iommu_group", "subsystem_vendor", "local_cpulist"} {
		s.Remove(s.flex.Path + "/" + file)
	}
	s.Remove("/sys/class/mei")
	s.Remove(s.amd.Path + "/mem_info_vram_total")
	devices := s.Discover(gpu.Family{})
	d, monitor, amd := named(devices, "gpu-0000-3a-00-0"), named(devices, "gpu-0000-3a-00-0-monitor"), named(devices, "gpu-0000-a1-00-0")
	if diff := cmp.Diff(intel(0, nil), d.Attributes, cmp.AllowUnexported(device.Value{})); diff != "" || len(devices) != 8 {
		t.Errorf("%d devices, attributes -want +got:\n%s", len(devices), diff)
	}
	if len(d.Capacities)+len(amd.Capacities) > 0 || len(d.Nodes) != 2 || len(monitor.Nodes) != 2 {
		t.Errorf("devices %+v, %+v and %+v", d, monitor, amd)
	}
}

// TestGarbageInAFileHarmsNoOtherFunction writes nonsense into each file of a function in turn.
func TestGarbageInAFileHarmsNoOtherFunction(t *testing.T) {
	s := on(t, "0000", true)
	family := gpu.Family{Shares: 3}
	clean := s.Discover(family)
	for _, f := range []devicetest.Function{s.flex, s.vf1, s.amd} {
		others := func(devices []device.Device) []device.Device {
			return slices.DeleteFunc(slices.Clone(devices), func(d device.Device) bool { return d.Address == f.Address() })
		}
		want := others(clean)
		for file, content := range s.Contents(f.Path) {
			for _, garbage := range []string{"-1", "18446744073709551615", "DEVNAME=../../etc/shadow", "\x00\xff\xfe", strings.Repeat("7", 100_000)} {
				s.File(file, garbage)
				devices, problems := device.Discover(s.Open(), family)
				for _, problem := range problems {
					if strings.Contains(problem.Error(), "device gpu-") {
						t.Errorf("%q in %s: %v", garbage[:min(len(garbage), 30)], file, problem)
					}
				}
				if diff := cmp.Diff(want, others(devices), cmp.AllowUnexported(device.Value{})); diff != "" {
					t.Errorf("%q in %s: other functions -want +got:\n%s", garbage[:min(len(garbage), 30)], file, diff)
				}
			}
			s.File(file, content)
		}
	}
}

func TestWhatIsNoGPUIsLeftAlone(t *testing.T) {
	for name, f := range map[string]devicetest.Function{
		"a server's console":         {Vendor: 0x1a03, Device: 0x2000, Class: 0x030000, Driver: "ast"},
		"another one":                {Vendor: 0x102b, Device: 0x0536, Class: 0x030000, Driver: "mgag200"},
		"a network card of Intel's":  {Vendor: 0x8086, Device: 0x1592, Class: 0x020000, Driver: "ice"},
		"QAT":                        {Vendor: 0x8086, Device: 0x4940, Class: 0x0b4000, Driver: "4xxx"},
		"sound of AMD's":             {Vendor: 0x1002, Device: 0xab38, Class: 0x040300, Driver: "snd_hda_intel"},
		"an NVIDIA GPU bound to VM":  {Vendor: 0x10de, Device: 0x2330, Class: 0x030200, Driver: "vfio-pci"},
		"a NIC with a GPU's ID":      {Vendor: 0x15b3, Device: 0x56c0, Class: 0x020000, Driver: "mlx5_core"},
		"an accelerator of Habana's": {Vendor: 0x1da3, Device: 0x1020, Class: 0x120000, Driver: "habanalabs"},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			f.Path, f.Group = "/sys/devices/pci0000:00/0000:00:02.0", -1
			h.Add(f)
			h.Char(f.Path, "drm/card0", "226:0", "dri/card0")
			if devices := h.Discover(gpu.Family{}); len(devices) != 0 {
				t.Errorf("devices %+v", devices)
			}
		})
	}
}

func TestGPUsWithoutNodesAreOfNoUse(t *testing.T) {
	for name, f := range map[string]devicetest.Function{
		"a display of nobody's":  {Vendor: 0x1013, Device: 0x00b8, Class: 0x030000},
		"AMD without its driver": {Vendor: 0x1002, Device: 0x74a1, Class: 0x038000},
		"an unknown one of ours": {Vendor: 0x8086, Device: 0x1912, Class: 0x030000},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			f.Path, f.Group = "/sys/devices/pci0000:00/0000:00:02.0", -1
			h.Add(f)
			if devices := h.Discover(gpu.Family{}); len(devices) != 0 {
				t.Errorf("devices %+v", devices)
			}
		})
	}
}

func TestOtherVendorsGPUsAreListedForTheirPlace(t *testing.T) {
	for name, test := range map[string]struct {
		function              devicetest.Function
		vendor, model, driver string
	}{
		"an accelerator of AMD's":   {devicetest.Function{Vendor: 0x1002, Device: 0x74a1, Class: 0x120000, Driver: "amdgpu"}, "amd", "Unknown", "amdgpu"},
		"NVIDIA with a model":       {devicetest.Function{Vendor: 0x10de, Device: 0x2330, Class: 0x030200, Driver: "nvidia"}, "nvidia", "NVIDIA H100 80GB HBM3", "nvidia"},
		"NVIDIA without its driver": {devicetest.Function{Vendor: 0x10de, Device: 0x2330, Class: 0x030200}, "nvidia", "NVIDIA H100 80GB HBM3", "nvidia"},
		"NVIDIA with a free driver": {devicetest.Function{Vendor: 0x10de, Device: 0x2330, Class: 0x030200, Driver: "nouveau"}, "nvidia", "NVIDIA H100 80GB HBM3", "nouveau"},
		"somebody's":                {devicetest.Function{Vendor: 0x1ed5, Device: 0x0222, Class: 0x030000, Driver: "mtgpu"}, "other", "Unknown", "mtgpu"},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			f := test.function
			f.Path, f.Node, f.Group = "/sys/devices/pci0000:a0/0000:a0:01.0", 1, -1
			h.Add(f)
			h.Char(f.Path, "drm/card0", "226:0", "dri/card0")
			h.File("/proc/driver/nvidia/gpus/0000:a0:01.0/information", "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 18")
			h.File(f.Path+"/mem_info_vram_total", "18446744073709551615")
			devices := h.Discover(gpu.Family{Shares: 4})
			if len(devices) != 1 {
				t.Fatalf("devices %+v", devices)
			}
			d := devices[0]
			attributes := map[string]device.Value{"vendor": device.Text(test.vendor), "model": device.Text(test.model), "tiles": device.Number(0), "series": device.Text("Unknown")}
			for name, want := range attributes {
				if d.Attributes[name] != want {
					t.Errorf("%s is %s, want %s", name, d.Attributes[name], want)
				}
			}
			if d.Driver != test.driver || d.NUMANode != 1 || !d.Tainted(device.Unmanaged) || d.Shared || len(d.Nodes)+len(d.Capacities) != 0 {
				t.Errorf("device %+v", d)
			}
		})
	}
}

// battlemage is a card that xe drives, of two tiles.
func battlemage(h *devicetest.Host, id uint16) devicetest.Function {
	f := devicetest.Function{Path: "/sys/devices/pci0000:37/0000:37:01.0", Vendor: 0x8086, Device: id, Class: 0x030000, Group: 42, Driver: "xe"}
	h.Add(f)
	h.Char(f.Path, "drm/card0", "226:0", "dri/card0")
	h.Char(f.Path, "drm/renderD128", "226:128", "dri/renderD128")
	h.File(f.Path+"/tile0/gt0/id", "0")
	h.File(f.Path+"/tile0/gt1/id", "0")
	h.File(f.Path+"/tile1/gt2/id", "0")
	h.Char(f.Path+"/xe.mei-gscfi.14848", "mei/mei1", "239:1", "mei1")
	h.Char(f.Path+"/xe.mei-gsc.14848", "mei/mei2", "239:2", "mei2")
	h.Char("/sys/devices/pci0000:00/0000:00:16.0", "mei/mei0", "239:0", "mei0")
	return f
}

func TestXeHasTilesBelowTheFunction(t *testing.T) {
	h := devicetest.New(t)
	battlemage(h, 0xe20b)
	devices := h.Discover(gpu.Family{})
	d := named(devices, "gpu-0000-37-01-0")
	for name, want := range map[string]device.Value{"model": device.Text("B580"), "series": device.Text("Arc B"), "tiles": device.Number(2), "integrated": device.Flag(false)} {
		if d.Attributes[name] != want {
			t.Errorf("%s is %s, want %s", name, d.Attributes[name], want)
		}
	}
	if len(devices) != 2 || d.Driver != "xe" || len(d.Taints) != 0 {
		t.Errorf("devices %+v", devices)
	}
}

func TestAMonitorGetsTheFirmwareInterfaceOfItsGPUOnly(t *testing.T) {
	h := devicetest.New(t)
	battlemage(h, 0xe20b)
	want := []device.Node{
		{Path: "/dev/dri/card0", Major: 226},
		{Path: "/dev/dri/renderD128", Major: 226, Minor: 128},
		{Path: "/dev/mei1", Major: 239, Minor: 1},
	}
	if diff := cmp.Diff(want, named(h.Discover(gpu.Family{}), "gpu-0000-37-01-0-monitor").Nodes); diff != "" {
		t.Errorf("nodes -want +got:\n%s", diff)
	}
}

func TestAnUnknownGPUIsOneByItsDriver(t *testing.T) {
	h := devicetest.New(t)
	pf := battlemage(h, 0xeeee)
	vf := devicetest.Function{Path: "/sys/devices/pci0000:37/0000:37:01.1", Vendor: 0x8086, Device: 0xeeee, Class: 0x030000, Group: 43}
	h.Add(vf)
	h.Virtual(pf, vf, 0)
	devices := h.Discover(gpu.Family{})
	d, v := named(devices, "gpu-0000-37-01-0"), named(devices, "gpu-0000-37-01-1")
	if d.Driver != "xe" || d.Attributes["model"] != device.Text("Unknown") || d.Attributes["series"] != device.Text("Unknown") {
		t.Errorf("physical function %+v", d)
	}
	// What it is follows from the physical function.
	if v.Driver != "xe" || !v.Tainted(device.DriverLost) || v.Use.Part != "vf0" {
		t.Errorf("virtual function %+v", v)
	}
}

func TestTheDriverOfAnUnboundGPUIsThatOfItsModel(t *testing.T) {
	for id, want := range map[uint16]string{0xe20b: "xe", 0x56c0: "i915"} {
		h := devicetest.New(t)
		h.Remove(battlemage(h, id).Path + "/driver")
		if d := named(h.Discover(gpu.Family{}), "gpu-0000-37-01-0"); d.Driver != want || !d.Tainted(device.DriverLost) {
			t.Errorf("%x: device %+v", id, d)
		}
	}
}

func TestAGPUWhoseFirmwareIsBrokenIsUnhealthy(t *testing.T) {
	h := devicetest.New(t)
	f := battlemage(h, 0xe20b)
	h.Remove(f.Path + "/drm")
	h.File(f.Path+"/survivability_mode", "")
	devices := h.Discover(gpu.Family{})
	want := []device.Taint{{Reason: device.DriverLost, Value: "no-node"}, {Reason: device.Unhealthy, Value: "survivability-mode"}}
	if diff := cmp.Diff(want, named(devices, "gpu-0000-37-01-0").Taints); diff != "" {
		t.Errorf("taints -want +got:\n%s", diff)
	}
	if m := named(devices, "gpu-0000-37-01-0-monitor"); len(m.Nodes) != 1 || len(m.Taints) != 1 {
		t.Errorf("the monitor is %+v, want it to look at the firmware", m)
	}
}

func TestTheMediaEngineOfAProcessorIsNoTile(t *testing.T) {
	h := devicetest.New(t)
	f := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:02.0", Vendor: 0x8086, Device: 0x7d67, Class: 0x030000, Node: -1, Group: 0, Driver: "i915"}
	h.Add(f)
	h.Char(f.Path, "drm/card0", "226:0", "dri/card0")
	h.File(f.Path+"/drm/card0/gt/gt0/id", "0")
	h.File(f.Path+"/drm/card0/gt/gt1/id", "1")
	memory := &answers{bytes: 1 << 30}
	d := named(h.Discover(gpu.Family{Memory: memory}), "gpu-0000-00-02-0")
	if d.Attributes["tiles"] != device.Number(1) || d.Attributes["integrated"] != device.Flag(true) {
		t.Errorf("attributes %v", d.Attributes)
	}
	if len(d.Capacities) != 0 || len(memory.asked) != 0 {
		t.Errorf("capacities %+v, asked %v: the memory is the processor's", d.Capacities, memory.asked)
	}
}

func TestAnUnknownGPUIsAPartOfTheProcessorByItsPlace(t *testing.T) {
	for place, want := range map[string]bool{"0000:00:02.0": true, "0000:00:03.0": false} {
		h := devicetest.New(t)
		f := devicetest.Function{Path: "/sys/devices/pci0000:00/" + place, Vendor: 0x8086, Device: 0x1912, Class: 0x030000, Driver: "i915"}
		h.Add(f)
		if devices := h.Discover(gpu.Family{}); len(devices) != 2 || devices[0].Attributes["integrated"] != device.Flag(want) {
			t.Errorf("devices %+v", devices)
		}
	}
	// A card that a virtual machine has at that place is still a card.
	h := devicetest.New(t)
	h.Add(devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:02.0", Vendor: 0x8086, Device: 0x56c0, Class: 0x038000, Driver: "i915"})
	if devices := h.Discover(gpu.Family{}); len(devices) != 2 || devices[0].Attributes["integrated"] != device.Flag(false) {
		t.Errorf("devices %+v", devices)
	}
}

func TestAGPUCanBeShared(t *testing.T) {
	s := on(t, "0000", true)
	devices := s.Discover(gpu.Family{Shares: 4})
	want := []device.Capacity{
		{Name: "memory", Amount: 14248050688, Bytes: true, Default: 3397 << 20, Min: 1 << 20, Step: 1 << 20},
		{Name: "shares", Amount: 4, Default: 1, Min: 1, Step: 1},
	}
	if diff := cmp.Diff(want, named(devices, "gpu-0000-3a-00-0").Capacities); diff != "" {
		t.Errorf("capacities -want +got:\n%s", diff)
	}
	for name, shared := range map[string]bool{
		"gpu-0000-3a-00-0": true, "gpu-0000-3a-00-1": true, "gpu-0000-3a-00-2-vfio": false,
		"gpu-0000-3a-00-0-monitor": false, "gpu-0000-a1-00-0": false,
	} {
		if d := named(devices, name); d.Shared != shared || !shared && len(d.Capacities) > 0 && d.Capacities[0].Default > 0 {
			t.Errorf("%s is shared: %v, capacities %+v", name, d.Shared, d.Capacities)
		}
	}
	if d := named(s.Discover(gpu.Family{Shares: 1}), "gpu-0000-3a-00-0"); d.Shared || len(d.Capacities) != 1 {
		t.Errorf("one share is none: %+v", d)
	}
}

func TestMemoryTooSmallToShareIsForInformation(t *testing.T) {
	s := on(t, "0000", true)
	s.File(s.flex.Path+"/drm/card1/lmem_total_bytes", "3145728")
	d := named(s.Discover(gpu.Family{Shares: 4}), "gpu-0000-3a-00-0")
	if want := (device.Capacity{Name: "memory", Amount: 3 << 20, Bytes: true}); d.Capacities[0] != want {
		t.Errorf("capacities %+v", d.Capacities)
	}
}

// answers is a driver that answers the same to everyone.
type answers struct {
	bytes uint64
	err   error
	asked []string
}

func (a *answers) LocalMemory(f topology.PCIFunction, card device.Node) (uint64, error) {
	a.asked = append(a.asked, f.Driver+" "+card.Path)
	return a.bytes, a.err
}

func TestTheDriverIsAskedForMemoryThatNoFileTells(t *testing.T) {
	for name, test := range map[string]struct {
		file     string
		answer   answers
		want     uint64
		problems int
		taints   int
	}{
		"an answer":        {"", answers{bytes: 1 << 30}, 1 << 30, 0, 0},
		"no memory":        {"", answers{}, 0, 0, 0},
		"a huge answer":    {"", answers{bytes: 1 << 63}, 0, 0, 0},
		"an error":         {"", answers{err: errors.New("no")}, 0, 1, 0},
		"a reset":          {"", answers{err: syscall.EIO}, 0, 0, 1},
		"a garbled file":   {"much", answers{bytes: 1 << 30}, 1 << 30, 0, 0},
		"an oversize file": {"18446744073709551615", answers{bytes: 1 << 30}, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			f := battlemage(h, 0xe20b)
			if test.file != "" {
				h.File(f.Path+"/drm/card0/lmem_total_bytes", test.file)
			}
			devices, problems := device.Discover(h.Open(), gpu.Family{Memory: &test.answer})
			d := named(devices, "gpu-0000-37-01-0")
			var want []device.Capacity
			if test.want > 0 {
				want = []device.Capacity{{Name: "memory", Amount: test.want, Bytes: true}}
			}
			if diff := cmp.Diff(want, d.Capacities); diff != "" || len(problems) != test.problems || len(d.Taints) != test.taints {
				t.Errorf("problems %v, taints %+v, capacities -want +got:\n%s", problems, d.Taints, diff)
			}
			if test.taints > 0 && !d.Tainted(device.InReset) {
				t.Errorf("taints %+v", d.Taints)
			}
		})
	}
}

func TestADriverIsNotAskedForWhatAFileTells(t *testing.T) {
	s := on(t, "0000", true)
	memory := &answers{bytes: 1 << 30}
	devices := s.Discover(gpu.Family{Memory: memory})
	if diff := cmp.Diff([]string{"i915 /dev/dri/card2"}, memory.asked); diff != "" {
		t.Errorf("asked -want +got:\n%s", diff)
	}
	if d := named(devices, "gpu-0000-3a-00-0"); d.Capacities[0].Amount != 14248050688 {
		t.Errorf("capacities %+v", d.Capacities)
	}
}

func TestADriverThatCannotAnswerIsBeingReset(t *testing.T) {
	s := on(t, "0000", true)
	for err, reset := range map[error]bool{syscall.ENODEV: true, syscall.EIO: true, syscall.EACCES: false} {
		devices, problems := device.Discover(s.OpenFailing("/lmem_total_bytes", err), gpu.Family{})
		if d := named(devices, "gpu-0000-3a-00-0"); len(devices) != 8 || d.Tainted(device.InReset) != reset || len(d.Capacities) > 0 {
			t.Errorf("%v: %d devices, among them %+v", err, len(devices), d)
		}
		if m := named(devices, "gpu-0000-3a-00-0-monitor"); m.Tainted(device.InReset) || len(m.Nodes) != 3 {
			t.Errorf("%v: the monitor is %+v", err, m)
		}
		if len(problems) > 0 {
			t.Errorf("%v: problems %v", err, problems)
		}
	}
}
