package pciselect_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/pciselect"
)

func special() devicetest.Function {
	return devicetest.Function{Path: "/sys/devices/pci0000:c0/0000:c0:05.0", Vendor: 0x1234, Device: 0x11e8, Class: 0x00ff00, Node: 1, Group: 77, Driver: "foo"}
}

// host has one function with a character device, and nothing mounted.
func host(t *testing.T) *devicetest.Host {
	h := devicetest.New(t)
	h.File("/proc/self/mountinfo", "22 1 0:21 / /sys rw,nosuid shared:2 - sysfs sysfs rw")
	h.File("/proc/self/net/route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT")
	h.Link("/proc/net", "/proc/self/net")
	h.Add(special())
	h.Char(special().Path, "foo/foo0", "505:0", "foo0")
	return h
}

func published() device.Device {
	return device.Device{
		Name: "pci-0000-c0-05-0", Family: "pci", Personality: device.Kernel, Function: device.Single,
		Address: "0000:c0:05.0", NUMANode: 1, Root: "pci0000:c0", Driver: "foo",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x1234"), "deviceID": device.Text("0x11e8"), "pciClass": device.Text("0x00ff00"),
			"selector": device.Text("special"),
		},
		Use:   device.Use{Owner: "0000:c0:05.0"},
		Nodes: []device.Node{{Path: "/dev/foo0", Major: 505}},
	}
}

// entry selects the function of host by its vendor.
func entry() pciselect.Entry {
	return pciselect.Entry{Name: "special", Match: pciselect.Match{Vendor: "0x1234"}, Expose: pciselect.Chardev}
}

func family(entries ...pciselect.Entry) pciselect.Family { return pciselect.Family{Entries: entries} }

func check(t *testing.T, want, got []device.Device) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

func TestASelectedFunctionIsUsedThroughItsNodes(t *testing.T) {
	check(t, []device.Device{published()}, host(t).Discover(family(entry())))
}

func TestWithoutEntriesThereAreNoDevices(t *testing.T) {
	if devices := host(t).Discover(pciselect.Family{}); len(devices) != 0 {
		t.Errorf("devices %+v", devices)
	}
}

func TestSharesLetSeveralClaimsHaveAFunction(t *testing.T) {
	e := entry()
	e.Shares = 4
	want := published()
	want.Shared, want.Capacities = true, []device.Capacity{device.Shares(4)}
	check(t, []device.Device{want}, host(t).Discover(family(e)))
}

func TestAFunctionMustHaveAllThatIsGiven(t *testing.T) {
	for name, test := range map[string]struct {
		match pciselect.Match
		want  bool
	}{
		"vendor":                        {pciselect.Match{Vendor: "1234"}, true},
		"another vendor":                {pciselect.Match{Vendor: "0x1235"}, false},
		"device":                        {pciselect.Match{Device: "0x11E8"}, true},
		"another device":                {pciselect.Match{Vendor: "0x1234", Device: "0x11e9"}, false},
		"board":                         {pciselect.Match{SubsystemVendor: "0x1234", SubsystemDevice: "0x0000"}, true},
		"another board":                 {pciselect.Match{SubsystemVendor: "0x1234", SubsystemDevice: "0x0001"}, false},
		"another maker of the board":    {pciselect.Match{SubsystemVendor: "0x8086"}, false},
		"class":                         {pciselect.Match{Class: "0x00ff00"}, true},
		"another class":                 {pciselect.Match{Class: "0x00ff01"}, false},
		"class without its last part":   {pciselect.Match{Class: "0x00ff02", ClassMask: "0xffff00"}, true},
		"another class without it":      {pciselect.Match{Class: "0x010000", ClassMask: "0xff0000"}, false},
		"driver":                        {pciselect.Match{Driver: "foo"}, true},
		"another driver":                {pciselect.Match{Driver: "fo"}, false},
		"one of the addresses":          {pciselect.Match{BusIDs: []string{"0000:00:00.0", "0000:c0:05.0"}}, true},
		"none of the addresses":         {pciselect.Match{BusIDs: []string{"0001:c0:05.0", "0000:c0:05.1"}}, false},
		"an address and another driver": {pciselect.Match{BusIDs: []string{"0000:c0:05.0"}, Driver: "bar"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := entry()
			e.Match = test.match
			var want []device.Device
			if test.want {
				want = append(want, published())
			}
			check(t, want, host(t).Discover(family(e)))
		})
	}
}

func TestAFunctionOfAnotherDomainIsNamedByIt(t *testing.T) {
	h := host(t)
	f := special()
	f.Path, f.Node = "/sys/devices/pci0001:c0/0001:c0:05.0", -1
	h.Add(f)
	h.Char(f.Path, "foo/foo1", "505:1", "foo1")
	e := entry()
	e.Match.BusIDs = []string{"0001:c0:05.0"}
	if devices := h.Discover(family(e)); len(devices) != 1 || devices[0].Name != "pci-0001-c0-05-0" || devices[0].NUMANode != -1 {
		t.Errorf("devices %+v", devices)
	}
}

// block puts a block device below a directory.
func block(h *devicetest.Host, parent, name, numbers string) {
	h.Char(parent, "block/"+name, numbers, name)
	h.Link(parent+"/block/"+name+"/subsystem", "/sys/class/block")
}

func TestNodesAreThoseBelowTheFunctionItself(t *testing.T) {
	foo := published().Nodes[0]
	for name, test := range map[string]struct {
		change func(h *devicetest.Host, function string)
		allow  []string
		want   []device.Node
	}{
		"deep down": {
			func(h *devicetest.Host, f string) {
				h.Char(f+"/a/b/c/d", "e/six0", "506:0", "bar/six0")
				h.Char(f+"/a/b/c/d/e", "f/seven0", "506:1", "bar/seven0")
			}, nil, []device.Node{{Path: "/dev/bar/six0", Major: 506}, foo},
		},
		"not those of another function": {
			func(h *devicetest.Host, f string) { h.Char(f+"/0000:c1:00.0", "bar/bar0", "506:0", "bar0") }, nil, []device.Node{foo},
		},
		"not those that links lead to": {
			func(h *devicetest.Host, f string) {
				h.Char("/sys/devices/virtual", "bar/bar0", "506:0", "bar0")
				h.Link(f+"/bar0", "/sys/devices/virtual/bar/bar0")
				h.Link(f+"/bar", "/sys/devices/virtual/bar")
			}, nil, []device.Node{foo},
		},
		"not those without numbers": {
			func(h *devicetest.Host, f string) {
				h.Char(f, "bar/bar0", "garbage", "bar0")
				h.Char(f, "bar/bar1", "506:1", "../bar1")
			}, nil, []device.Node{foo},
		},
		"not block devices": {
			func(h *devicetest.Host, f string) { block(h, f, "bar0", "252:0") }, nil, []device.Node{foo},
		},
		"not block devices that show their type only": {
			func(h *devicetest.Host, f string) {
				block(h, f, "bar0", "252:0")
				h.Remove(f + "/block/bar0/subsystem")
				h.File(f+"/block/bar0/uevent", "MAJOR=252\nMINOR=0\nDEVNAME=bar0\nDEVTYPE=disk")
			}, nil, []device.Node{foo},
		},
		"block devices that are allowed": {
			func(h *devicetest.Host, f string) {
				block(h, f, "bar0", "252:0")
				block(h, f, "bar1", "252:1")
				block(h, f, "baz0", "252:2")
			}, []string{"bar1", "baz*"}, []device.Node{{Path: "/dev/bar1", Block: true, Major: 252, Minor: 1}, {Path: "/dev/baz0", Block: true, Major: 252, Minor: 2}, foo},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			test.change(h, special().Path)
			e := entry()
			e.Allow = test.allow
			want := published()
			want.Nodes = test.want
			check(t, []device.Device{want}, h.Discover(family(e)))
		})
	}
}

func TestAFunctionBoundToVFIOIsHandedOver(t *testing.T) {
	h := devicetest.New(t)
	f := special()
	f.Driver = "vfio-pci"
	h.Add(f)
	e := entry()
	e.Expose = pciselect.VFIO
	want := published()
	want.Name, want.Personality, want.Driver = "pci-0000-c0-05-0-vfio", device.VFIO, "vfio-pci"
	want.Set("iommuGroup", device.Number(77))
	want.Set("iommuGroupSize", device.Number(1))
	want.Nodes = []device.Node{
		{Path: "/dev/vfio/77", Major: 243, Minor: 77, Role: device.VFIOGroup},
		{Path: "/dev/vfio/vfio", Major: 10, Minor: 196, Role: device.VFIOGroup},
	}
	check(t, []device.Device{want}, h.Discover(family(e)))
}

func TestTheFirstEntryThatMatchesCounts(t *testing.T) {
	second := entry()
	second.Name, second.Match = "second", pciselect.Match{Driver: "foo"}
	devices, problems := device.Discover(host(t).Open(), family(entry(), second))
	check(t, []device.Device{published()}, devices)
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), "entry second does not get 0000:c0:05.0: entry special matches it as well") {
		t.Errorf("problems %v", problems)
	}
}

func TestAWrongEntryIsLeftOut(t *testing.T) {
	wrong := entry()
	wrong.Name, wrong.Expose = "wrong", "both"
	devices, problems := device.Discover(host(t).Open(), family(wrong, entry()))
	check(t, []device.Device{published()}, devices)
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), `entries[0].expose is "both"`) {
		t.Errorf("problems %v", problems)
	}
}

func TestWhatIsNotPublishedIsExplained(t *testing.T) {
	bind := func(driver string) func(*devicetest.Host) {
		return func(h *devicetest.Host) {
			h.Remove(special().Path + "/foo")
			h.Link(special().Path+"/driver", "/sys/bus/pci/drivers/"+driver)
		}
	}
	disk := func(sign, content string) func(*devicetest.Host) {
		return func(h *devicetest.Host) {
			const parent = "/sys/devices/pci0000:c0/0000:c0:05.0/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0"
			block(h, parent, "sda", "8:0")
			h.File(parent+"/block/sda/sda1/dev", "8:1")
			h.File(sign, content)
		}
	}
	for name, test := range map[string]struct {
		expose pciselect.Exposure
		change func(*devicetest.Host)
		want   string
	}{
		"no nodes":                       {pciselect.Chardev, func(h *devicetest.Host) { h.Remove(special().Path + "/foo") }, "its driver has made no device nodes"},
		"only block devices":             {pciselect.Chardev, func(h *devicetest.Host) { h.Remove(special().Path + "/foo"); disk("/x", "")(h) }, "its driver has made no device nodes"},
		"no driver":                      {pciselect.Chardev, func(h *devicetest.Host) { h.Remove(special().Path + "/driver"); h.Remove(special().Path + "/foo") }, "its driver has made no device nodes"},
		"nodes, but the driver is vfio":  {pciselect.Chardev, bind("vfio-pci"), "it is bound to vfio-pci"},
		"vfio, but the driver is not":    {pciselect.VFIO, func(*devicetest.Host) {}, "it is not bound to a vfio driver"},
		"vfio, but there is no driver":   {pciselect.VFIO, func(h *devicetest.Host) { h.Remove(special().Path + "/driver") }, "it is not bound to a vfio driver"},
		"the root disk, however deep":    {pciselect.Chardev, disk("/proc/1/mountinfo", "29 1 8:1 / / rw - ext4 /dev/root rw"), "the host uses it: sda1 is mounted"},
		"the root disk, though for vfio": {pciselect.VFIO, disk("/proc/1/mountinfo", "29 1 8:1 / / rw - ext4 /dev/root rw"), "the host uses it: sda1 is mounted"},
		"swap space":                     {pciselect.Chardev, disk("/proc/swaps", "Filename Type Size Used Priority\n/dev/sda1 partition 1 0 -2"), "the host uses it: sda1 is swap space"},
		"a part of something":            {pciselect.Chardev, disk(special().Path+"/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0/block/sda/holders/dm-0", ""), "the host uses it: sda is a part of dm-0"},
		"mounts are not known":           {pciselect.Chardev, disk("/proc/self/mountinfo", "x"), "the host may use it"},
		"a disk that its class does not have": {pciselect.Chardev, func(h *devicetest.Host) {
			block(h, special().Path+"/virtio0", "vda", "252:0")
			h.Remove("/sys/class/block")
			h.File("/proc/1/mountinfo", "29 1 252:0 / / rw - ext4 /dev/root rw")
		}, "the host uses it: vda is mounted"},
		"the uplink": {pciselect.Chardev, func(h *devicetest.Host) {
			h.File(special().Path+"/net/eth0/brport/port_no", "0x1")
		}, "the host uses it: eth0 is a port"},
		"routes are not known": {pciselect.Chardev, func(h *devicetest.Host) {
			h.File(special().Path+"/net/eth0/mtu", "1500")
			h.Remove("/proc/self/net")
		}, "the host may use it"},
		"a bridge": {pciselect.Chardev, func(h *devicetest.Host) {
			h.File(special().Path+"/class", "0x060400")
		}, "it is a bridge (root port)"},
		"the host's bridge": {pciselect.Chardev, func(h *devicetest.Host) { h.File(special().Path+"/class", "0x060000") }, "it is a bridge (host bridge)"},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			test.change(h)
			e := entry()
			e.Expose = test.expose
			devices, problems := device.Discover(h.Open(), family(e))
			check(t, nil, devices)
			if want := "entry special does not get 0000:c0:05.0: " + test.want; len(problems) != 1 || !strings.Contains(problems[0].Error(), want) {
				t.Errorf("problems %v, want %q", problems, want)
			}
		})
	}
}

func TestAFunctionWithoutDisksAndInterfacesNeedsNoProc(t *testing.T) {
	h := host(t)
	h.Remove("/proc/self")
	check(t, []device.Device{published()}, h.Discover(family(entry())))
}

func TestAFunctionThatCannotBeReadIsNone(t *testing.T) {
	for _, file := range []string{"vendor", "device"} {
		t.Run(file, func(t *testing.T) {
			h := host(t)
			h.File(special().Path+"/"+file, "garbage")
			e := entry()
			e.Match = pciselect.Match{Driver: "foo"}
			check(t, nil, h.Discover(family(e)))
		})
	}
}

func TestValidEntries(t *testing.T) {
	second := pciselect.Entry{
		Name: "second-1", Expose: pciselect.VFIO, Shares: 1,
		Match: pciselect.Match{Class: "010802", ClassMask: "0xffff00", Driver: "nvme", BusIDs: []string{"10000:01:00.0"}},
	}
	if err := family(entry(), second).Validate(); err != nil {
		t.Error(err)
	}
}

func TestAnInvalidEntryIsExplained(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*pciselect.Entry)
		want   string
	}{
		"name":             {func(e *pciselect.Entry) { e.Name = "My Device" }, `entries[0].name is "My Device": use 1 to 63 lower-case letters, digits and dashes, with no dash at either end`},
		"no name":          {func(e *pciselect.Entry) { e.Name = "" }, `entries[0].name is "": use 1 to 63`},
		"no exposure":      {func(e *pciselect.Entry) { e.Expose = "" }, `entries[0].expose is "": use "chardev" or "vfio"`},
		"negative shares":  {func(e *pciselect.Entry) { e.Shares = -1 }, `entries[0].shares is "-1": use a number from 1 to 1000, or leave it out`},
		"too many shares":  {func(e *pciselect.Entry) { e.Shares = 1001 }, `entries[0].shares is "1001": use a number`},
		"shares of vfio":   {func(e *pciselect.Entry) { e.Expose, e.Shares = pciselect.VFIO, 2 }, `entries[0].shares is "2": a function that is handed over through vfio has one user`},
		"nodes of vfio":    {func(e *pciselect.Entry) { e.Expose, e.Allow = pciselect.VFIO, []string{"sda"} }, `entries[0].allow is "sda": it is for device nodes`},
		"path in allow":    {func(e *pciselect.Entry) { e.Allow = []string{"sda", "/dev/sdb"} }, `entries[0].allow[1] is "/dev/sdb": use a name below /dev, such as "sdb" or "sd*"`},
		"pattern in allow": {func(e *pciselect.Entry) { e.Allow = []string{"sd[a"} }, `entries[0].allow[0] is "sd[a": use a name`},
		"nothing in allow": {func(e *pciselect.Entry) { e.Allow = []string{""} }, `entries[0].allow[0] is "": use a name`},
		"nothing to match": {func(e *pciselect.Entry) { e.Match = pciselect.Match{} }, `entries[0].match is "": every function would match: give at least one property`},
		"vendor":           {func(e *pciselect.Entry) { e.Match.Vendor = "Intel" }, `entries[0].match.vendor is "Intel": use 4 hexadecimal digits, such as "0x8086"`},
		"short device":     {func(e *pciselect.Entry) { e.Match.Device = "0x1" }, `entries[0].match.device is "0x1": use 4 hexadecimal digits`},
		"board":            {func(e *pciselect.Entry) { e.Match.SubsystemVendor = "80866" }, `entries[0].match.subsystemVendor is "80866": use 4`},
		"board's device":   {func(e *pciselect.Entry) { e.Match.SubsystemDevice = "-001" }, `entries[0].match.subsystemDevice is "-001": use 4`},
		"short class":      {func(e *pciselect.Entry) { e.Match.Class = "0x0108" }, `entries[0].match.class is "0x0108": use 6 hexadecimal digits, such as "0x010802"`},
		"mask":             {func(e *pciselect.Entry) { e.Match.Class, e.Match.ClassMask = "0x010802", "ff" }, `entries[0].match.classMask is "ff": use 6`},
		"mask of nothing":  {func(e *pciselect.Entry) { e.Match.Class, e.Match.ClassMask = "0x010802", "000000" }, `entries[0].match.classMask is "000000": no bit of the class counts`},
		"mask only":        {func(e *pciselect.Entry) { e.Match.ClassMask = "0xffff00" }, `entries[0].match.classMask is "0xffff00": it says which bits of the class count: give the class too`},
		"driver":           {func(e *pciselect.Entry) { e.Match.Driver = "drivers/foo" }, `entries[0].match.driver is "drivers/foo": use the name of a folder in /sys/bus/pci/drivers`},
		"address":          {func(e *pciselect.Entry) { e.Match.BusIDs = []string{"c0:05.0"} }, `entries[0].match.busIDs[0] is "c0:05.0": use the address with its domain, such as "0000:c0:05.0"`},
	} {
		t.Run(name, func(t *testing.T) {
			e := entry()
			test.change(&e)
			err := family(e).Validate()
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want only %s", err, test.want)
			}
		})
	}
}

func TestTwoEntriesOfOneNameAreExplained(t *testing.T) {
	const want = `entries[1].name is "special": another entry has it: give each one a name of its own`
	if err := family(entry(), entry()).Validate(); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
