package fpga_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/fpga"
)

const (
	interfaceID = "69528db6eb31577a8c3668f9faa081f6"
	afuID       = "d8424dc4a4a3c413f89e433683f9040b"
	otherID     = "f7df405cbd7acf7222f144b0b93acd18"

	card = "/sys/devices/pci0000:5d/0000:5d:00.0/0000:5e:00.0"
	fme  = card + "/fpga_region/region0/dfl-fme.0"
	port = card + "/fpga_region/region0/dfl-port.0"
	pr   = fme + "/dfl-fme-region.1/fpga_region/region1"
)

func arria() devicetest.Function {
	return devicetest.Function{Path: card, Vendor: 0x8086, Device: 0x09c4, Class: 0x120000, Group: 60, Driver: "dfl-pci"}
}

// machine has one card of one port, with the kernel's drivers.
func machine(t *testing.T) *devicetest.Host {
	h := devicetest.New(t)
	h.Add(devicetest.Bridge(filepath.Dir(card), 0), arria())
	h.Files(fme, map[string]string{
		"ports_num": "1", "socket_id": "0", "bitstream_id": "0x23000410010309",
		"errors/fme_errors": "0x0", "errors/catfatal_errors": "0x0", "errors/nonfatal_errors": "0x0",
	})
	node(h, fme, "238:0", "dfl-fme.0")
	h.File(pr+"/compat_id", interfaceID)
	dflPort(h, port, "0", "237:0", "dfl-port.0")
	h.Link("/sys/class/fpga_region/region0", card+"/fpga_region/region0")
	return h
}

func dflPort(h *devicetest.Host, dir, id, numbers, name string) {
	h.Files(dir, map[string]string{"id": id, "afu_id": afuID, "power_state": "0x0", "errors/errors": "0x0"})
	node(h, dir, numbers, name)
}

func node(h *devicetest.Host, dir, numbers, name string) {
	major, minor, _ := strings.Cut(numbers, ":")
	h.Files(dir, map[string]string{"dev": numbers, "uevent": "MAJOR=" + major + "\nMINOR=" + minor + "\nDEVNAME=" + name})
}

func wantPort() device.Device {
	return device.Device{
		Name: "fpga-0000-5e-00-0-port0", Family: "fpga", Personality: device.Kernel, Function: device.Single,
		Address: "0000:5e:00.0", NUMANode: 0, Root: "pci0000:5d", Driver: "dfl-pci",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x8086"), "deviceID": device.Text("0x09c4"), "pciClass": device.Text("0x120000"),
			"model": device.Text("PAC Arria 10"), "stack": device.Text("dfl"), "programmable": device.Flag(true),
			"interfaceID": device.Text(interfaceID), "afuID": device.Text(afuID),
		},
		Use: device.Use{Owner: "0000:5e:00.0", Part: "port0"},
		Nodes: []device.Node{
			{Path: "/dev/dfl-fme.0", Major: 238, Role: fpga.Management},
			{Path: "/dev/dfl-port.0", Major: 237},
		},
	}
}

func wantMonitor() device.Device {
	return device.Device{
		Name: "fpga-0000-5e-00-0-monitor", Family: "fpga", Personality: device.Monitor, Function: device.Single,
		Address: "0000:5e:00.0", NUMANode: 0, Root: "pci0000:5d", Driver: "dfl-pci",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x8086"), "deviceID": device.Text("0x09c4"), "pciClass": device.Text("0x120000"),
			"model": device.Text("PAC Arria 10"),
		},
		Taints: []device.Taint{{Reason: device.MonitorOnly}},
		Nodes:  []device.Node{{Path: "/dev/dfl-fme.0", Major: 238}},
	}
}

func same(t *testing.T, want, got []device.Device) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

func TestAPortIsADeviceAndACardIsMonitored(t *testing.T) {
	same(t, []device.Device{wantPort(), wantMonitor()}, machine(t).Discover(fpga.Family{}))
}

func TestTheOlderDriversShowTheSame(t *testing.T) {
	h := devicetest.New(t)
	f := arria()
	f.Driver = "intel-fpga-pci"
	h.Add(devicetest.Bridge(filepath.Dir(card), 0), f)
	const dev = card + "/fpga/intel-fpga-dev.3"
	h.Files(dev+"/intel-fpga-fme.3", map[string]string{
		"pr/interface_id": strings.ToUpper(interfaceID), "ports_num": "1",
		"errors/fme-errors/errors": "0x0", "errors/catfatal_errors": "0x0", "errors/bbs_errors": "0x0",
	})
	node(h, dev+"/intel-fpga-fme.3", "240:0", "intel-fpga-fme.3")
	dflPort(h, dev+"/intel-fpga-port.4", "0", "240:1", "intel-fpga-port.4")
	port, monitor := wantPort(), wantMonitor()
	port.Driver, monitor.Driver = f.Driver, f.Driver
	port.Set("stack", device.Text("opae"))
	port.Nodes = []device.Node{
		{Path: "/dev/intel-fpga-fme.3", Major: 240, Role: fpga.Management},
		{Path: "/dev/intel-fpga-port.4", Major: 240, Minor: 1},
	}
	monitor.Nodes = []device.Node{{Path: "/dev/intel-fpga-fme.3", Major: 240}}
	same(t, []device.Device{port, monitor}, h.Discover(fpga.Family{}))

	for _, file := range []string{"fme-errors/errors", "catfatal_errors", "bbs_errors"} {
		h.File(dev+"/intel-fpga-fme.3/errors/"+file, "0x4")
		if devices := h.Discover(fpga.Family{}); !devices[0].Tainted(device.Unhealthy) || devices[1].Tainted(device.Unhealthy) {
			t.Errorf("%s: devices %+v", file, devices)
		}
		h.File(dev+"/intel-fpga-fme.3/errors/"+file, "0x0")
	}

	h.Remove(dev + "/intel-fpga-fme.3/pr/interface_id")
	devices, problems := device.Discover(h.Open(), fpga.Family{})
	same(t, []device.Device{monitor}, devices)
	if len(problems) != 1 {
		t.Errorf("problems %v, want one of the missing interface", problems)
	}

	h.Remove(dev + "/intel-fpga-fme.3/pr")
	port.Set("interfaceID", device.Text(""))
	port.Set("programmable", device.Flag(false))
	same(t, []device.Device{port, monitor}, h.Discover(fpga.Family{}))
}

func TestChangesOfFilesChangeWhatTheySay(t *testing.T) {
	const all = "ffffffffffffffffffffffffffffffff"
	file := func(name, content string) func(*devicetest.Host) {
		return func(h *devicetest.Host) { h.File(name, content) }
	}
	missing := func(name string) func(*devicetest.Host) { return func(h *devicetest.Host) { h.Remove(name) } }
	taint := func(reason device.Reason, value string) func(*device.Device) {
		return func(d *device.Device) { d.Taint(reason, value) }
	}
	for name, test := range map[string]struct {
		change func(*devicetest.Host)
		want   func(*device.Device)
	}{
		"another function is programmed": {file(port+"/afu_id", otherID), func(d *device.Device) { d.Set("afuID", device.Text(otherID)) }},
		"an ID in capitals":              {file(port+"/afu_id", strings.ToUpper(afuID)), nil},
		"the port is the third": {file(port+"/id", "2"), func(d *device.Device) {
			d.Name, d.Use.Part = "fpga-0000-5e-00-0-port2", "port2"
		}},
		"the function crashed": {file(port+"/afu_id", all), func(d *device.Device) {
			d.Set("afuID", device.Text(all))
			d.Taint(device.Unhealthy, "afu-id")
		}},
		"the card crashed": {file(pr+"/compat_id", all), func(d *device.Device) {
			d.Set("interfaceID", device.Text(all))
			d.Taint(device.Unhealthy, "interface-id")
		}},
		"two regions of one interface":    {file(fme+"/dfl-fme-region.2/fpga_region/region2/compat_id", interfaceID), nil},
		"the port has errors":             {file(port+"/errors/errors", "0x4000000000000"), taint(device.Unhealthy, "port-errors")},
		"the engine has errors":           {file(fme+"/errors/fme_errors", "0x1"), taint(device.Unhealthy, "fme-errors")},
		"the engine has fatal errors":     {file(fme+"/errors/catfatal_errors", "0x800"), taint(device.Unhealthy, "catfatal-errors")},
		"the engine has minor errors":     {file(fme+"/errors/nonfatal_errors", "0x1"), nil},
		"the port is throttled, AP1":      {file(port+"/power_state", "0x1"), taint(device.Unhealthy, "power-state")},
		"the port is throttled, AP2":      {file(port+"/power_state", "0x2"), taint(device.Unhealthy, "power-state")},
		"the port is throttled, AP6":      {file(port+"/power_state", "0x6"), taint(device.Unhealthy, "power-state")},
		"the port's power state is odd":   {file(port+"/power_state", "0x7"), nil},
		"there are no registers":          {func(h *devicetest.Host) { h.Remove(port + "/errors"); h.Remove(port + "/power_state") }, nil},
		"registers are not to understand": {file(port+"/errors/errors", "many"), nil},
		"there is no node": {missing(port + "/dev"), func(d *device.Device) {
			d.Nodes = d.Nodes[:1]
			d.Taint(device.DriverLost, "no-node")
		}},
		"the driver has just gone": {missing(card + "/driver"), taint(device.DriverLost, "")},
		"another driver has just come": {func(h *devicetest.Host) {
			h.Link(card+"/driver", "/sys/bus/pci/drivers/uio_pci_generic")
		}, taint(device.DriverLost, "uio_pci_generic")},
		"there is no region to program": {missing(fme + "/dfl-fme-region.1"), func(d *device.Device) {
			d.Set("interfaceID", device.Text(""))
			d.Set("programmable", device.Flag(false))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t)
			test.change(h)
			want := wantPort()
			if test.want != nil {
				test.want(&want)
			}
			same(t, []device.Device{want, wantMonitor()}, h.Discover(fpga.Family{}))
		})
	}
}

func TestACardWithoutItsManagementNodeCannotBeProgrammed(t *testing.T) {
	h := machine(t)
	h.Remove(fme + "/dev")
	port, monitor := wantPort(), wantMonitor()
	port.Set("programmable", device.Flag(false))
	port.Nodes, monitor.Nodes = port.Nodes[1:], nil
	same(t, []device.Device{port, monitor}, h.Discover(fpga.Family{}))

	h.Remove(fme)
	port.Set("interfaceID", device.Text(""))
	same(t, []device.Device{port}, h.Discover(fpga.Family{}))
}

func TestTheFirmwareDoesNotKnowTheNUMANode(t *testing.T) {
	h := machine(t)
	bridge, f := devicetest.Bridge(filepath.Dir(card), -1), arria()
	f.Node = -1
	h.Add(bridge, f)
	port, monitor := wantPort(), wantMonitor()
	port.NUMANode, monitor.NUMANode = topology.None, topology.None
	same(t, []device.Device{port, monitor}, h.Discover(fpga.Family{}))
}

// A second port is there as well, so that it shows whether the bad one takes it along.
func TestABadPortIsLeftOutAlone(t *testing.T) {
	const missing = "(missing)"
	for file, bad := range map[string][]string{
		"id":     {"", "-1", "0x1", "one", missing},
		"afu_id": {"", "0x0", afuID[1:], "../../../../../../../../../../../etc", missing},
	} {
		for _, content := range bad {
			t.Run(file+" "+content, func(t *testing.T) {
				h := machine(t)
				second := filepath.Dir(port) + "/dfl-port.1"
				dflPort(h, second, "1", "237:1", "dfl-port.1")
				if devices := h.Discover(fpga.Family{}); len(devices) != 3 || devices[1].Use.Part != "port1" {
					t.Fatalf("devices %+v, want two ports and a monitor", devices)
				}
				if content == missing {
					h.Remove(second + "/" + file)
				} else {
					h.File(second+"/"+file, content)
				}
				devices, problems := device.Discover(h.Open(), fpga.Family{})
				same(t, []device.Device{wantPort(), wantMonitor()}, devices)
				if len(problems) != 1 {
					t.Errorf("problems %v, want one", problems)
				}
			})
		}
	}
}

func TestPortsOfAnInterfaceThatNobodyKnowsAreLeftOut(t *testing.T) {
	for name, change := range map[string]func(*devicetest.Host){
		"missing":       func(h *devicetest.Host) { h.Remove(pr + "/compat_id") },
		"empty":         func(h *devicetest.Host) { h.File(pr+"/compat_id", "") },
		"garbled":       func(h *devicetest.Host) { h.File(pr+"/compat_id", interfaceID+"0") },
		"contradictory": func(h *devicetest.Host) { h.File(fme+"/dfl-fme-region.2/fpga_region/region2/compat_id", otherID) },
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t)
			change(h)
			devices, problems := device.Discover(h.Open(), fpga.Family{})
			same(t, []device.Device{wantMonitor()}, devices)
			if len(problems) != 1 {
				t.Errorf("problems %v, want one", problems)
			}
		})
	}
}

func TestAPortOfAVirtualFunctionHasTheEngineOfThePhysicalOne(t *testing.T) {
	h := machine(t)
	h.Remove(port)
	dflPort(h, filepath.Dir(port)+"/dfl-port.1", "1", "237:1", "dfl-port.1") // is still the physical function's
	h.Files(card, map[string]string{"sriov_totalvfs": "1", "sriov_numvfs": "1"})
	vf := arria()
	vf.Path, vf.Device, vf.Group = card[:len(card)-1]+"1", 0x09c5, 61
	h.Add(vf)
	h.Virtual(arria(), vf, 0)
	dflPort(h, vf.Path+"/fpga_region/region5/dfl-port.0", "0", "237:0", "dfl-port.0")
	h.File(fme+"/errors/fme_errors", "0x1")

	pfPort, vfPort, monitor := wantPort(), wantPort(), wantMonitor()
	pfPort.Name, pfPort.Use.Part, pfPort.Function = "fpga-0000-5e-00-0-port1", "port1", device.Physical
	pfPort.Nodes[1] = device.Node{Path: "/dev/dfl-port.1", Major: 237, Minor: 1}
	pfPort.Taint(device.Unhealthy, "fme-errors")
	vfPort.Name, vfPort.Address, vfPort.Function = "fpga-0000-5e-00-1-port0", "0000:5e:00.1", device.Virtual
	vfPort.Use = device.Use{Owner: "0000:5e:00.0", Part: "vf0"}
	vfPort.Set("deviceID", device.Text("0x09c5"))
	vfPort.Set("pfBusID", device.Text("0000:5e:00.0"))
	vfPort.Set("vfIndex", device.Number(0))
	vfPort.Taint(device.Unhealthy, "fme-errors")
	monitor.Function = device.Physical
	same(t, []device.Device{pfPort, vfPort, monitor}, h.Discover(fpga.Family{}))
}

func TestPortsThatTheEngineCannotTellApartAreNotProgrammed(t *testing.T) {
	h := machine(t)
	dflPort(h, filepath.Dir(port)+"/dfl-port.1", "1", "237:1", "dfl-port.1")
	h.Files(card, map[string]string{"sriov_totalvfs": "1", "sriov_numvfs": "1"})
	vf := arria()
	vf.Path, vf.Device, vf.Group = card[:len(card)-1]+"1", 0x09c5, 61
	h.Add(vf)
	h.Virtual(arria(), vf, 0)
	dflPort(h, vf.Path+"/fpga_region/region5/dfl-port.2", "0", "237:2", "dfl-port.2")
	got := map[string]device.Value{}
	for _, d := range h.Discover(fpga.Family{}) {
		if d.Personality == device.Kernel {
			got[d.Name] = d.Attributes["programmable"]
		}
	}
	want := map[string]device.Value{
		"fpga-0000-5e-00-0-port0": device.Flag(false),
		"fpga-0000-5e-00-0-port1": device.Flag(true),
		"fpga-0000-5e-00-1-port0": device.Flag(false),
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("programmable -want +got:\n%s", diff)
	}
}

func TestThePortsNumberIsInTheNameOfItsDevice(t *testing.T) {
	for name, want := range map[string]int{
		"fpga-0000-5e-00-0-port0": 0, "fpga-0000-5e-00-0-port13": 13,
		"fpga-0000-5e-00-0-monitor": -1, "fpga-0000-5e-00-0-port": -1, "fpga-0000-5e-00-0-port-1": -1,
		"fpga-0000-5e-00-0-port4294967296": -1, "": -1,
	} {
		if got, ok := fpga.PortNumber(name); ok != (want >= 0) || ok && int(got) != want {
			t.Errorf("%q: %d, %v, want %d", name, got, ok, want)
		}
	}
}

func TestAVirtualFunctionInAVirtualMachineHasNoEngine(t *testing.T) {
	h := devicetest.New(t)
	f := arria()
	f.Path, f.Device = "/sys/devices/pci0001:00/0001:00:04.0", 0x09c5
	h.Add(f)
	dflPort(h, f.Path+"/fpga_region/region0/dfl-port.0", "0", "237:0", "dfl-port.0")
	want := wantPort()
	want.Name, want.Address, want.Use.Owner, want.Root = "fpga-0001-00-04-0-port0", "0001:00:04.0", "0001:00:04.0", "pci0001:00"
	want.Set("deviceID", device.Text("0x09c5"))
	want.Set("interfaceID", device.Text(""))
	want.Set("programmable", device.Flag(false))
	want.Nodes = want.Nodes[1:]
	same(t, []device.Device{want}, h.Discover(fpga.Family{}))
}

func TestModelsOfSharedIDsAreToldByTheBoard(t *testing.T) {
	for board, want := range map[string]string{
		"138d": "PAC D5005", "1770": "N6000", "1771": "N6001", "17d4": "C6100", "0000": "Unknown",
	} {
		h := machine(t)
		f := arria()
		f.Device = 0xbcce
		h.Add(f)
		h.File(card+"/subsystem_device", "0x"+board)
		for _, d := range h.Discover(fpga.Family{}) {
			if got := d.Attributes["model"]; got != device.Text(want) {
				t.Errorf("%s of board %s is a %q, want %q", d.Name, board, got, want)
			}
		}
		// Boards of other makers have numbers of their own.
		h.File(card+"/subsystem_vendor", "0x1234")
		if got := h.Discover(fpga.Family{})[0].Attributes["model"]; got != device.Text("Unknown") {
			t.Errorf("another maker's board %s is a %q", board, got)
		}
	}
}

func TestAFunctionWithoutPortsIsNoDevice(t *testing.T) {
	for _, driver := range []string{"", "vfio-pci", "dfl-pci"} {
		h := devicetest.New(t)
		f := arria()
		f.Driver = driver
		h.Add(f)
		same(t, nil, h.Discover(fpga.Family{}))
	}
}

func TestOtherAcceleratorsAreLeftAlone(t *testing.T) {
	h := machine(t)
	f := arria()
	f.Device = 0x7d1d // an NPU
	h.Add(f)
	same(t, nil, h.Discover(fpga.Family{}))
}

func discoverFailing(t *testing.T, file string, reason error) ([]device.Device, []error) {
	t.Helper()
	return device.Discover(machine(t).OpenFailing(file, reason), fpga.Family{})
}

func TestAPortInResetIsKept(t *testing.T) {
	for _, reason := range []error{syscall.ENODEV, syscall.EIO, syscall.EBUSY} {
		for file, test := range map[string]struct {
			value  string
			change func(*device.Device)
		}{
			"/afu_id":        {"afu-id", func(d *device.Device) { d.Set("afuID", device.Text("")) }},
			"/errors/errors": {"port-errors", func(*device.Device) {}},
			"/power_state":   {"power-state", func(*device.Device) {}},
			"/fme_errors":    {"fme-errors", func(*device.Device) {}},
			"/compat_id": {"interface-id", func(d *device.Device) {
				d.Set("interfaceID", device.Text(""))
				d.Set("programmable", device.Flag(false))
			}},
		} {
			t.Run(fmt.Sprint(file, " ", reason), func(t *testing.T) {
				devices, problems := discoverFailing(t, file, reason)
				want := wantPort()
				test.change(&want)
				want.Taint(device.InReset, test.value)
				same(t, []device.Device{want, wantMonitor()}, devices)
				if len(problems) != 0 {
					t.Errorf("problems %v", problems)
				}
			})
		}
	}
	devices, problems := discoverFailing(t, "/afu_id", syscall.EACCES)
	same(t, []device.Device{wantMonitor()}, devices)
	if len(problems) != 1 || !errors.Is(problems[0], syscall.EACCES) {
		t.Errorf("problems %v, want that a file cannot be read", problems)
	}
}

// Whatever a file contains, a port has all that selectors read, and the card stays to be
// looked at.
func TestNoContentOfAFileIsTrusted(t *testing.T) {
	garbage := []string{
		"", "\x00", "-1", "0", "1", "2", "0x", "0xffffffffffffffff", "99999999999999999999999", "\xff\xfe", "../../../etc",
		strings.Repeat("f", 32), strings.Repeat("g", 32), "DEVNAME=../../etc/passwd", "1:2:3", "238:-1", strings.Repeat("0", 70<<10),
	}
	h := machine(t)
	host := h.Open()
	var files []string
	err := filepath.WalkDir(filepath.Join(h.Dir, card, "fpga_region"), func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, name)
		}
		return err
	})
	if err != nil || len(files) < 14 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		sound, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, content := range garbage {
			h.File(strings.TrimPrefix(file, h.Dir), content)
			devices, problems := device.Discover(host, fpga.Family{})
			if n := len(devices); n < 1 || n+len(problems) != 2 || devices[n-1].Personality != device.Monitor {
				t.Errorf("%s is %.20q: devices %+v, problems %v", file, content, devices, problems)
			}
			for _, attribute := range []string{"model", "interfaceID", "afuID", "stack", "programmable"} {
				if _, ok := devices[0].Attributes[attribute]; !ok && len(devices) > 1 {
					t.Errorf("%s is %.20q: no %s in %v", file, content, attribute, devices[0].Attributes)
				}
			}
		}
		h.File(strings.TrimPrefix(file, h.Dir), strings.TrimSuffix(string(sound), "\n"))
	}
}
