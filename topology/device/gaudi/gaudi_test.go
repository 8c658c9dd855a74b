package gaudi_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/gaudi"
)

// server is a machine with a Gaudi2 and another one that the tests leave alone.
type server struct {
	*devicetest.Host
	gaudi, neighbour devicetest.Function
}

// on returns the server with its functions in a PCI domain, and with numa_node 1 or -1.
func on(t *testing.T, domain string, node int) server {
	t.Helper()
	port := "/sys/devices/pci" + domain + ":80/" + domain + ":80:01.0"
	upstream := port + "/" + domain + ":81:00.0"
	downstream := upstream + "/" + domain + ":82:00.0"
	s := server{
		Host:      devicetest.New(t),
		gaudi:     devicetest.Function{Path: downstream + "/" + domain + ":83:00.0", Vendor: 0x1da3, Device: 0x1020, Class: 0x120000, Node: node, Group: 88, Driver: "habanalabs"},
		neighbour: devicetest.Function{Path: downstream + "/" + domain + ":84:00.0", Vendor: 0x1da3, Device: 0x1063, Class: 0x120000, Node: node, Group: 89, Driver: "habanalabs"},
	}
	s.Add(devicetest.Bridge(port, node), devicetest.Bridge(upstream, node), devicetest.Bridge(downstream, node), s.gaudi, s.neighbour)
	s.Files(s.gaudi.Path, map[string]string{"module_id": "3", "status": "Operational", "device_type": "GAUDI2", "hard_reset_cnt": "0"})
	s.Char(s.gaudi.Path, "accel/accel0", "261:0", "accel/accel0")
	s.Char("/sys/devices/virtual", "accel/accel_controlD0", "508:0", "accel/accel_controlD0")
	s.Char(s.gaudi.Path, "infiniband_verbs/uverbs4", "231:196", "infiniband/uverbs4")
	s.Files(s.neighbour.Path, map[string]string{"module_id": "10", "status": "operational"})
	s.Char(s.neighbour.Path, "accel/accel12", "261:12", "accel/accel12")
	return s
}

func attributes(deviceID, model string, moduleID int64, scaleOut bool) map[string]device.Value {
	return map[string]device.Value{
		"vendorID": device.Text("0x1da3"), "deviceID": device.Text(deviceID), "pciClass": device.Text("0x120000"),
		"model": device.Text(model), gaudi.ModuleID: device.Number(moduleID), gaudi.ScaleOutReady: device.Flag(scaleOut),
	}
}

func variables(node, index, module string) []device.Variable {
	return []device.Variable{
		{Name: "HL_VISIBLE_DEVICES", Value: node, Role: device.LegacyEnv},
		{Name: "HABANA_VISIBLE_DEVICES", Value: index},
		{Name: "HABANA_VISIBLE_MODULES", Value: module},
	}
}

func TestGaudisAreUsedThroughTheirOwnNodes(t *testing.T) {
	want := []device.Device{{
		Name: "gaudi-0000-83-00-0", Family: "gaudi", Personality: device.Kernel, Function: device.Single,
		Address: "0000:83:00.0", NUMANode: 1, Root: "pci0000:80", Driver: "habanalabs",
		Attributes: attributes("0x1020", "Gaudi2", 3, true),
		Use:        device.Use{Owner: "0000:83:00.0"},
		Nodes: []device.Node{
			{Path: "/dev/accel/accel0", Major: 261},
			{Path: "/dev/accel/accel_controlD0", Major: 508, Role: gaudi.Control},
			{Path: "/dev/infiniband/uverbs4", Major: 231, Minor: 196, Role: gaudi.ScaleOut},
		},
		Variables: variables("/dev/accel/accel0", "0", "3"),
	}, {
		Name: "gaudi-0000-84-00-0", Family: "gaudi", Personality: device.Kernel, Function: device.Single,
		Address: "0000:84:00.0", NUMANode: 1, Root: "pci0000:80", Driver: "habanalabs",
		Attributes: attributes("0x1063", "Gaudi3", 10, false),
		Use:        device.Use{Owner: "0000:84:00.0"},
		Nodes:      []device.Node{{Path: "/dev/accel/accel12", Major: 261, Minor: 12}},
		Variables:  variables("/dev/accel/accel12", "12", "10"),
	}, {
		Name: "gaudi-0000-83-00-0-monitor", Family: "gaudi", Personality: device.Monitor, Function: device.Single,
		Address: "0000:83:00.0", NUMANode: 1, Root: "pci0000:80", Driver: "habanalabs",
		Attributes: attributes("0x1020", "Gaudi2", 3, true),
		Taints:     []device.Taint{{Reason: device.MonitorOnly}},
		Nodes:      []device.Node{{Path: "/dev/accel/accel_controlD0", Major: 508}},
	}, {
		Name: "gaudi-0000-84-00-0-monitor", Family: "gaudi", Personality: device.Monitor, Function: device.Single,
		Address: "0000:84:00.0", NUMANode: 1, Root: "pci0000:80", Driver: "habanalabs",
		Attributes: attributes("0x1063", "Gaudi3", 10, false),
		Taints:     []device.Taint{{Reason: device.MonitorOnly}},
	}}
	if diff := cmp.Diff(want, on(t, "0000", 1).Discover(gaudi.Family{}), cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

// What sets up a network is for who uses the accelerator through its driver, and asks for it.
func TestTheNetworkOfTheNodeIsSetUpForKernelDevices(t *testing.T) {
	s := on(t, "0000", 1)
	s.neighbour.Driver = "vfio-pci"
	s.Add(s.neighbour)
	const program, file = "/usr/bin/habana-container-hook", "/etc/habanalabs/gaudinet.json"
	hooks := []device.Hook{{Path: program, Argument: "createRuntime", Role: gaudi.ScaleOut}}
	mounts := []device.Mount{{Path: file, Role: gaudi.ScaleOut}}
	for _, test := range []struct {
		family gaudi.Family
		hooks  []device.Hook
		mounts []device.Mount
	}{
		{gaudi.Family{}, nil, nil},
		{gaudi.Family{NetworkHook: program}, hooks, nil},
		{gaudi.Family{NetworkHook: program, NetworkConfig: file}, hooks, mounts},
	} {
		kernel := 0
		for _, d := range s.Discover(test.family) {
			if d.Personality != device.Kernel {
				if len(d.Hooks)+len(d.Mounts) > 0 {
					t.Errorf("%s has hooks %v and mounts %v", d.Name, d.Hooks, d.Mounts)
				}
				continue
			}
			kernel++
			if !slices.Equal(d.Hooks, test.hooks) || !slices.Equal(d.Mounts, test.mounts) {
				t.Errorf("%s of %+v has hooks %v and mounts %v", d.Name, test.family, d.Hooks, d.Mounts)
			}
		}
		if kernel != 1 {
			t.Errorf("%d kernel devices", kernel)
		}
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
	devices := on(t, "0000", -1).Discover(gaudi.Family{})
	for _, d := range devices {
		if d.NUMANode != topology.None {
			t.Errorf("%s is at node %d", d.Name, d.NUMANode)
		}
	}
	if len(devices) != 4 {
		t.Errorf("%d devices", len(devices))
	}
}

func TestAGaudiInAnotherDomainKeepsIt(t *testing.T) {
	devices := on(t, "0001", 1).Discover(gaudi.Family{})
	if d := named(devices, "gaudi-0001-83-00-0"); len(devices) != 4 || d.Address != "0001:83:00.0" || d.Root != "pci0001:80" || len(d.Nodes) != 3 {
		t.Errorf("%d devices, among them %+v", len(devices), d)
	}
}

func TestTheStateOfAGaudiIsATaint(t *testing.T) {
	tests := map[string]struct {
		want []device.Taint
		// problem says that people are told.
		problem bool
	}{
		"operational":                   {},
		"OPERATIONAL":                   {},
		"in reset":                      {want: []device.Taint{{Reason: device.InReset, Value: "in-reset"}}},
		"In Device Creation":            {want: []device.Taint{{Reason: device.InReset, Value: "in-device-creation"}}},
		"in reset after device release": {want: []device.Taint{{Reason: device.InReset, Value: "in-reset-after-device-release"}}},
		"disabled":                      {want: []device.Taint{{Reason: device.Unhealthy, Value: "disabled"}}},
		"Needs Reset":                   {want: []device.Taint{{Reason: device.Unhealthy, Value: "needs-reset"}}},
		"malfunction":                   {want: []device.Taint{{Reason: device.Unhealthy, Value: "malfunction"}}},
		"on fire!":                      {want: []device.Taint{{Reason: device.Unhealthy, Value: "unknown-status"}}, problem: true},
		"":                              {want: []device.Taint{{Reason: device.Unhealthy, Value: "unknown-status"}}, problem: true},
	}
	for status, test := range tests {
		t.Run(status, func(t *testing.T) {
			s := on(t, "0000", 1)
			s.File(s.gaudi.Path+"/status", status)
			check(t, s.Open(), test.want, test.problem)
		})
	}
}

// check discovers devices and compares the taints of the Gaudi, which never are those of
// its monitor.
func check(t *testing.T, h *device.Host, want []device.Taint, problem bool) device.Device {
	t.Helper()
	devices, problems := device.Discover(h, gaudi.Family{})
	d := named(devices, "gaudi-0000-83-00-0")
	if diff := cmp.Diff(want, d.Taints); diff != "" || len(devices) != 4 {
		t.Errorf("%d devices, taints -want +got:\n%s", len(devices), diff)
	}
	monitor := named(devices, "gaudi-0000-83-00-0-monitor")
	if diff := cmp.Diff([]device.Taint{{Reason: device.MonitorOnly}}, monitor.Taints); diff != "" {
		t.Errorf("taints of the monitor -want +got:\n%s", diff)
	}
	for _, d := range []device.Device{d, monitor} {
		for _, name := range []string{"model", gaudi.ModuleID, gaudi.ScaleOutReady} {
			if _, ok := d.Attributes[name]; !ok {
				t.Errorf("%s has no %s", d.Name, name)
			}
		}
	}
	if n := named(devices, "gaudi-0000-84-00-0"); len(n.Taints) > 0 {
		t.Errorf("the neighbour has taints %+v", n.Taints)
	}
	if (len(problems) > 0) != problem {
		t.Errorf("problems %v", problems)
	}
	return d
}

func TestWhatIsWrongWithAGaudiIsATaint(t *testing.T) {
	noNode := []device.Taint{{Reason: device.DriverLost, Value: "no-node"}}
	tests := map[string]struct {
		change  func(s server)
		want    []device.Taint
		problem bool
	}{
		"unbound": {func(s server) {
			for _, file := range []string{"driver", "accel", "infiniband_verbs", "status", "module_id"} {
				s.Remove(s.gaudi.Path + "/" + file)
			}
		}, []device.Taint{{Reason: device.DriverLost}}, false},
		"bound to another driver": {func(s server) { s.Link(s.gaudi.Path+"/driver", "/sys/bus/pci/drivers/pci stub!") }, []device.Taint{{Reason: device.DriverLost, Value: "other-driver"}}, false},
		"not initialised":         {func(s server) { s.Remove(s.gaudi.Path + "/accel") }, noNode, false},
		"being initialised": {func(s server) {
			s.Remove(s.gaudi.Path + "/accel")
			s.File(s.gaudi.Path+"/status", "in device creation")
		}, []device.Taint{{Reason: device.InReset, Value: "in-device-creation"}}, false},
		"two nodes":               {func(s server) { s.Char(s.gaudi.Path, "accel/accel1", "261:1", "accel/accel1") }, noNode, false},
		"a node without numbers":  {func(s server) { s.File(s.gaudi.Path+"/accel/accel0/dev", "261") }, noNode, false},
		"a node of another name":  {func(s server) { s.File(s.gaudi.Path+"/accel/accel0/uevent", "DEVNAME=accel/accel1") }, noNode, false},
		"no status":               {func(s server) { s.Remove(s.gaudi.Path + "/status") }, []device.Taint{{Reason: device.Unhealthy, Value: "status"}}, true},
		"no module ID":            {func(s server) { s.Remove(s.gaudi.Path + "/module_id") }, []device.Taint{{Reason: device.Unhealthy, Value: "module_id"}}, true},
		"a garbled module ID":     {func(s server) { s.File(s.gaudi.Path+"/module_id", "0x3") }, []device.Taint{{Reason: device.Unhealthy, Value: "module_id"}}, true},
		"a negative module ID":    {func(s server) { s.File(s.gaudi.Path+"/module_id", "-1") }, []device.Taint{{Reason: device.Unhealthy, Value: "module_id"}}, true},
		"a module ID of all ones": {func(s server) { s.File(s.gaudi.Path+"/module_id", "4294967295") }, []device.Taint{{Reason: device.Unhealthy, Value: "module_id"}}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := on(t, "0000", 1)
			test.change(s)
			d := check(t, s.Open(), test.want, test.problem)
			if strings.Contains(name, "module ID") && d.Attributes[gaudi.ModuleID] != device.Number(gaudi.NoModule) {
				t.Errorf("module %s", d.Attributes[gaudi.ModuleID])
			}
			if len(test.want) > 0 && test.want[0].Reason == device.DriverLost && slices.ContainsFunc(d.Nodes, func(n device.Node) bool { return n.Role != gaudi.ScaleOut }) {
				t.Errorf("nodes %+v", d.Nodes)
			}
		})
	}
}

func TestOptionalFilesCostNothingButWhatTheyTell(t *testing.T) {
	s := on(t, "0000", 1)
	for _, name := range []string{"infiniband_verbs", "device_type", "hard_reset_cnt", "iommu_group", "subsystem_vendor"} {
		s.Remove(s.gaudi.Path + "/" + name)
	}
	s.Remove("/sys/devices/virtual/accel")
	d := check(t, s.Open(), nil, false)
	if diff := cmp.Diff([]device.Node{{Path: "/dev/accel/accel0", Major: 261}}, d.Nodes); diff != "" {
		t.Errorf("nodes -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(attributes("0x1020", "Gaudi2", 3, false), d.Attributes, cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("attributes -want +got:\n%s", diff)
	}
}

func TestNodesOfOtherNamesAreNotGiven(t *testing.T) {
	s := on(t, "0000", 1)
	s.File(s.gaudi.Path+"/infiniband_verbs/uverbs4/uevent", "DEVNAME=mem")
	s.File("/sys/devices/virtual/accel/accel_controlD0/uevent", "DEVNAME=mem")
	d := check(t, s.Open(), nil, false)
	if len(d.Nodes) != 1 || d.Attributes[gaudi.ScaleOutReady] != device.Flag(false) {
		t.Errorf("device %+v", d)
	}
}

func TestOlderDriversHaveNodesWithoutAParent(t *testing.T) {
	s := on(t, "0000", 1)
	s.Remove(s.gaudi.Path + "/accel")
	for number, address := range map[string]string{"0": "0000:83:00.1", "1": "0000:83:00.0", "2": ""} {
		s.Char("/sys/devices/virtual", "accel/accel"+number, "261:"+number, "accel/accel"+number)
		s.Char("/sys/devices/virtual", "accel/accel_controlD"+number, "508:"+number, "accel/accel_controlD"+number)
		s.File("/sys/devices/virtual/accel/accel"+number+"/device/pci_addr", address)
	}
	d := check(t, s.Open(), nil, false)
	want := []device.Node{
		{Path: "/dev/accel/accel1", Major: 261, Minor: 1},
		{Path: "/dev/accel/accel_controlD1", Major: 508, Minor: 1, Role: gaudi.Control},
		{Path: "/dev/infiniband/uverbs4", Major: 231, Minor: 196, Role: gaudi.ScaleOut},
	}
	if diff := cmp.Diff(want, d.Nodes); diff != "" {
		t.Errorf("nodes -want +got:\n%s", diff)
	}
}

func TestAGaudiBoundToVFIOIsHandedOver(t *testing.T) {
	h := devicetest.New(t)
	f := devicetest.Function{Path: "/sys/devices/pci0000:80/0000:80:01.0", Vendor: 0x1da3, Device: 0x1000, Class: 0x120000, Group: 88, Driver: "vfio-pci"}
	h.Add(f)
	devices := h.Discover(gaudi.Family{})
	d, monitor := named(devices, "gaudi-0000-80-01-0-vfio"), named(devices, "gaudi-0000-80-01-0-monitor")
	want := []device.Node{
		{Path: "/dev/vfio/88", Major: 243, Minor: 88, Role: device.VFIOGroup},
		{Path: "/dev/vfio/vfio", Major: 10, Minor: 196, Role: device.VFIOGroup},
	}
	if len(devices) != 2 || !cmp.Equal(want, d.Nodes) || d.Driver != "vfio-pci" || d.Attributes["model"] != device.Text("Gaudi") || len(d.Taints) > 0 {
		t.Errorf("devices %+v", devices)
	}
	if len(monitor.Nodes) != 0 || monitor.Driver != "habanalabs" || monitor.Attributes[gaudi.ModuleID] != device.Number(gaudi.NoModule) {
		t.Errorf("monitor %+v", monitor)
	}
}

func TestOtherAcceleratorsAreLeftAlone(t *testing.T) {
	for name, f := range map[string]devicetest.Function{
		"an NPU":                       {Vendor: 0x8086, Device: 0x7d1d, Class: 0x120000, Driver: "intel_vpu"},
		"an FPGA":                      {Vendor: 0x8086, Device: 0xbcce, Class: 0x120000, Driver: "dfl-pci"},
		"another one of Habana's":      {Vendor: 0x1da3, Device: 0x0001, Class: 0x120000, Driver: "habanalabs"},
		"another vendor's, same ID":    {Vendor: 0x8086, Device: 0x1020, Class: 0x120000, Driver: "habanalabs"},
		"one whose device ID is unset": {Vendor: 0x1da3, Device: 0, Class: 0x120000},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			f.Path, f.Group = "/sys/devices/pci0000:00/0000:00:0b.0", -1
			h.Add(f)
			h.Char(f.Path, "accel/accel0", "261:0", "accel/accel0")
			if devices := h.Discover(gaudi.Family{}); len(devices) != 0 {
				t.Errorf("devices %+v", devices)
			}
		})
	}
}

func TestAFunctionThatDoesNotTellWhatItIsCostsNoOther(t *testing.T) {
	for _, file := range []string{"vendor", "device"} {
		s := on(t, "0000", 1)
		s.File(s.gaudi.Path+"/"+file, "0xyz")
		if devices := s.Discover(gaudi.Family{}); len(devices) != 2 || devices[0].Address != "0000:84:00.0" {
			t.Errorf("%s: devices %+v", file, devices)
		}
	}
}

// TestGarbageInAFileHarmsNoOtherFunction writes nonsense into each file of a function, and
// of its node, in turn.
func TestGarbageInAFileHarmsNoOtherFunction(t *testing.T) {
	s := on(t, "0000", 1)
	neighbours := func(devices []device.Device) []device.Device {
		return slices.DeleteFunc(devices, func(d device.Device) bool { return d.Address == s.gaudi.Address() })
	}
	want := neighbours(s.Discover(gaudi.Family{}))
	for file, content := range s.Contents(s.gaudi.Path, "/sys/devices/virtual/accel") {
		for _, garbage := range []string{"-1", "18446744073709551615", "DEVNAME=../../etc/shadow", "\x00\xff\xfe", strings.Repeat("7", 100_000)} {
			s.File(file, garbage)
			devices, problems := device.Discover(s.Open(), gaudi.Family{})
			for _, problem := range problems {
				if strings.Contains(problem.Error(), "device gaudi-") {
					t.Errorf("%q in %s: %v", garbage[:min(len(garbage), 30)], file, problem)
				}
			}
			if diff := cmp.Diff(want, neighbours(devices), cmp.AllowUnexported(device.Value{})); diff != "" {
				t.Errorf("%q in %s: the neighbour -want +got:\n%s", garbage[:min(len(garbage), 30)], file, diff)
			}
		}
		s.File(file, content)
	}
}

func TestADriverThatCannotAnswerIsBeingReset(t *testing.T) {
	s := on(t, "0000", 1)
	for _, file := range []string{"status", "module_id"} {
		for err, want := range map[error]device.Taint{
			syscall.ENODEV: {Reason: device.InReset},
			syscall.EIO:    {Reason: device.InReset},
			syscall.EACCES: {Reason: device.Unhealthy, Value: file},
		} {
			check(t, s.OpenFailing("0000:83:00.0/"+file, err), []device.Taint{want}, want.Reason == device.Unhealthy)
		}
	}
}

func TestTheIndexIsThatOfTheAccelNode(t *testing.T) {
	for path, want := range map[string]int{"/dev/accel/accel0": 0, "/dev/accel/accel12": 12} {
		if index, ok := gaudi.Index(path); !ok || index != want {
			t.Errorf("%s: %d, %v", path, index, ok)
		}
	}
	for _, path := range []string{
		"", "/dev/accel/accel", "/dev/accel/accel_controlD0", "/dev/infiniband/uverbs4", "/dev/accel/accel-1",
		"/dev/accel/accel99999999999999999999", "accel0", "/dev/dri/card0",
	} {
		if index, ok := gaudi.Index(path); ok {
			t.Errorf("%q: %d", path, index)
		}
	}
}
