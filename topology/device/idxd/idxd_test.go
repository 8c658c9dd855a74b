package idxd_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/idxd"
)

// The directories of the two accelerators of the machine below.
const (
	dsaDir = "/sys/devices/pci0000:6a/0000:6a:01.0"
	iaaDir = "/sys/devices/pci0000:6a/0000:6a:02.0"
)

func dsa() devicetest.Function {
	return devicetest.Function{Path: dsaDir, Vendor: 0x8086, Device: 0x0b25, Class: 0x088000, Group: 110, Driver: "idxd"}
}

func iaa() devicetest.Function {
	return devicetest.Function{Path: iaaDir, Vendor: 0x8086, Device: 0x0cfe, Class: 0x088000, Group: 111, Driver: "idxd"}
}

// machine has one accelerator of each family, each with one queue in use and one not.
func machine(t *testing.T) *devicetest.Host {
	h := devicetest.New(t)
	h.Add(dsa(), iaa())
	accelerator(h, dsaDir+"/dsa0", "0", "511:0")
	h.File(dsaDir+"/dsa0/max_batch_size", "1024")
	h.File(dsaDir+"/dsa0/wq0.0/max_batch_size", "32")
	accelerator(h, iaaDir+"/iax1", "1", "510:0")
	return h
}

func accelerator(h *devicetest.Host, dir, number, numbers string) {
	h.Files(dir, map[string]string{
		"version": "0x100", "state": "enabled", "errors": "00000000,00000000", "clients": "0", "cmd_status": "0x0",
		"max_groups": "4", "max_engines": "4", "max_work_queues": "8", "max_work_queues_size": "128",
		"max_transfer_size": "2147483648", "configurable": "1", "pasid_enabled": "1", "cdev_major": "511",
		"engine" + number + ".0/group_id": "0", "group" + number + ".0/engines": "engine" + number + ".0",
		"group" + number + ".0/work_queues": "wq" + number + ".0",
	})
	h.Files(dir+"/wq"+number+".0", map[string]string{
		"state": "enabled", "group_id": "0", "mode": "dedicated", "size": "16", "threshold": "15", "priority": "10",
		"type": "user", "name": "app1", "driver_name": "user", "clients": "0", "block_on_fault": "1", "cdev_minor": "0",
		"max_transfer_size": "2097152", "ats_disable": "0", "prs_disable": "0", "occupancy": "0",
	})
	h.Files(dir+"/wq"+number+".1", map[string]string{
		"state": "disabled", "group_id": "-1", "mode": "shared", "size": "0", "threshold": "0", "priority": "0",
		"type": "none", "name": "", "clients": "0", "block_on_fault": "0",
	})
	prefix := strings.TrimSuffix(filepath.Base(dir), number)
	h.Files(dir+"/wq"+number+".0/"+prefix+"!wq"+number+".0", map[string]string{
		"dev": numbers, "uevent": "MAJOR=" + numbers[:3] + "\nMINOR=0\nDEVNAME=" + prefix + "/wq" + number + ".0",
	})
}

func wantDSA() device.Device {
	return device.Device{
		Name: "dsa-0000-6a-01-0-wq0", Family: "dsa", Personality: device.Kernel, Function: device.Single,
		Address: "0000:6a:01.0", NUMANode: 0, Root: "pci0000:6a", Driver: "idxd",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x8086"), "deviceID": device.Text("0x0b25"), "pciClass": device.Text("0x088000"),
			"model": device.Text("Sapphire Rapids DSA"), "deviceVersion": device.Text("0x100"),
			"wqMode": device.Text("dedicated"), "wqType": device.Text("user"), "wqName": device.Text("app1"),
			"wqIndex": device.Number(0), "wqGroup": device.Number(0), "wqSize": device.Number(16),
			"wqPriority": device.Number(10), "wqThreshold": device.Number(15), "wqEngines": device.Number(1),
			"blockOnFault": device.Flag(true), "maxTransferSize": device.Number(2097152), "maxBatchSize": device.Number(32),
		},
		Use:   device.Use{Owner: "0000:6a:01.0", Part: "wq0"},
		Nodes: []device.Node{{Path: "/dev/dsa/wq0.0", Major: 511}},
		Links: []device.Link{{Path: "/dev/char/511:0", Target: "../dsa/wq0.0", Role: idxd.CharLink}},
	}
}

func wantIAA() device.Device {
	d := wantDSA()
	d.Name, d.Family, d.Address = "iaa-0000-6a-02-0-wq0", "iaa", "0000:6a:02.0"
	d.Use.Owner = d.Address
	d.Set("deviceID", device.Text("0x0cfe"))
	d.Set("model", device.Text("Sapphire Rapids IAA"))
	delete(d.Attributes, "maxBatchSize")
	d.Nodes = []device.Node{{Path: "/dev/iax/wq1.0", Major: 510}}
	d.Links = []device.Link{{Path: "/dev/char/510:0", Target: "../iax/wq1.0", Role: idxd.CharLink}}
	return d
}

func same(t *testing.T, want, got []device.Device) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

func TestEachEnabledQueueIsADevice(t *testing.T) {
	same(t, []device.Device{wantDSA(), wantIAA()}, machine(t).Discover(idxd.DSA, idxd.IAA))
}

func TestAFamilyLeavesTheOtherOneAlone(t *testing.T) {
	h := machine(t)
	same(t, []device.Device{wantIAA()}, h.Discover(idxd.IAA))
	same(t, nil, h.Discover(idxd.Family{}))
}

func TestChangesOfFilesChangeWhatTheySay(t *testing.T) {
	const wq = dsaDir + "/dsa0/wq0.0"
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
		"a shared queue has shares": {file(wq+"/mode", "shared"), func(d *device.Device) {
			d.Shared = true
			d.Set("wqMode", device.Text("shared"))
			d.Capacities = []device.Capacity{{Name: "shares", Amount: 8, Default: 1, Min: 1, Step: 1}}
		}},
		"a queue of the kernel's is not ours": {func(h *devicetest.Host) {
			h.File(wq+"/type", "kernel")
			h.Remove(wq + "/dsa!wq0.0")
		}, func(d *device.Device) {
			d.Set("wqType", device.Text("kernel"))
			d.Nodes, d.Links = nil, nil
			d.Taint(device.Unmanaged, "")
		}},
		"engines are those of the queue's group": {func(h *devicetest.Host) {
			h.File(wq+"/group_id", "3")
			h.File(dsaDir+"/dsa0/group0.3/engines", "engine0.2 engine0.3 ")
		}, func(d *device.Device) {
			d.Set("wqGroup", device.Number(3))
			d.Set("wqEngines", device.Number(2))
		}},
		"faults are not waited for": {file(wq+"/block_on_fault", "0"), func(d *device.Device) { d.Set("blockOnFault", device.Flag(false)) }},
		"no limits are known": {func(h *devicetest.Host) {
			h.File(wq+"/max_transfer_size", "lots")
			h.Remove(wq + "/max_batch_size")
		}, func(d *device.Device) {
			delete(d.Attributes, "maxTransferSize")
			delete(d.Attributes, "maxBatchSize")
		}},
		"a long name is cut": {file(wq+"/name", strings.Repeat("x", 100)), func(d *device.Device) {
			d.Set("wqName", device.Text(strings.Repeat("x", 64)))
		}},
		"the firmware does not know the NUMA node": {func(h *devicetest.Host) {
			f := dsa()
			f.Node = -1
			h.Add(f)
		}, func(d *device.Device) { d.NUMANode = topology.None }},
		"there is no node":               {missing(wq + "/dsa!wq0.0"), withoutNodes(device.DriverLost, "no-node")},
		"the node has no numbers":        {file(wq+"/dsa!wq0.0/dev", "511"), withoutNodes(device.DriverLost, "no-node")},
		"the device has halted":          {file(dsaDir+"/dsa0/state", "halted"), taint(device.Unhealthy, "halted")},
		"the device is off":              {file(dsaDir+"/dsa0/state", "disabled"), taint(device.DriverLost, "disabled")},
		"the device's state is unknown":  {file(dsaDir+"/dsa0/state", "unknown"), taint(device.DriverLost, "state-unknown")},
		"the device does not tell":       {missing(dsaDir + "/dsa0/state"), taint(device.DriverLost, "state-unknown")},
		"a bit is set in the errors":     {file(dsaDir+"/dsa0/errors", "00000000,01000000,00000000"), taint(device.Unhealthy, "errors")},
		"an older kernel shows an error": {file(dsaDir+"/dsa0/errors", "0x0000000000000000 0x0000000000000001 "), taint(device.Unhealthy, "errors")},
		"there are no errors at all":     {file(dsaDir+"/dsa0/errors", "0x0000000000000000 0x0000000000000000 "), nil},
		"the errors are not readable":    {file(dsaDir+"/dsa0/errors", "none, 1"), nil},
		"there is no file of errors":     {missing(dsaDir + "/dsa0/errors"), nil},
		"the driver has just gone":       {missing(dsaDir + "/driver"), taint(device.DriverLost, "")},
		"another driver has just come": {func(h *devicetest.Host) {
			h.Link(dsaDir+"/driver", "/sys/bus/pci/drivers/uio_pci_generic")
		}, taint(device.DriverLost, "uio_pci_generic")},
	} {
		t.Run(name, func(t *testing.T) {
			h := machine(t)
			test.change(h)
			want := wantDSA()
			if test.want != nil {
				test.want(&want)
			}
			same(t, []device.Device{want, wantIAA()}, h.Discover(idxd.DSA, idxd.IAA))
		})
	}
}

func withoutNodes(reason device.Reason, value string) func(*device.Device) {
	return func(d *device.Device) {
		d.Nodes, d.Links = nil, nil
		d.Taint(reason, value)
	}
}

func TestSharesAreAsManyAsTheFamilySays(t *testing.T) {
	h := machine(t)
	h.File(dsaDir+"/dsa0/wq0.0/mode", "shared")
	family := idxd.DSA
	family.Shares = 3
	devices := h.Discover(family)
	want := []device.Capacity{{Name: "shares", Amount: 3, Default: 1, Min: 1, Step: 1}}
	if len(devices) != 1 || !cmp.Equal(want, devices[0].Capacities) {
		t.Errorf("devices %+v, want one with capacities %+v", devices, want)
	}
}

// configure puts another queue on the first accelerator, in use and in a group of its own.
func configure(h *devicetest.Host, index string) {
	dir := dsaDir + "/dsa0/wq0." + index
	h.Files(dir, map[string]string{
		"state": "enabled", "group_id": index, "mode": "dedicated", "size": "8", "threshold": "0", "priority": "1",
		"type": "user", "name": "app" + index, "block_on_fault": "0",
	})
	h.Files(dir+"/dsa!wq0."+index, map[string]string{"dev": "511:" + index, "uevent": "DEVNAME=dsa/wq0." + index})
	h.File(dsaDir+"/dsa0/group0."+index+"/engines", "engine0."+index)
}

func names(devices []device.Device) []string {
	var list []string
	for _, d := range devices {
		list = append(list, d.Name)
	}
	return list
}

// There is a sound queue before the bad one and one after it.
func TestABadQueueIsLeftOutAlone(t *testing.T) {
	all := []string{"dsa-0000-6a-01-0-wq0", "dsa-0000-6a-01-0-wq1", "dsa-0000-6a-01-0-wq2"}
	h := machine(t)
	configure(h, "1")
	configure(h, "2")
	host := h.Open()
	if devices, problems := device.Discover(host, idxd.DSA); !slices.Equal(names(devices), all) {
		t.Fatalf("devices %v, problems %v", names(devices), problems)
	}
	for file, bad := range map[string][]string{
		"wq0.1/type":           {"", "mdev", missingFile},
		"wq0.1/state":          {"", "unknown", missingFile},
		"wq0.1/mode":           {"", "exclusive", missingFile},
		"wq0.1/name":           {"", " ", "\xff\xfe", missingFile},
		"wq0.1/group_id":       {"", "-1", "3", "9999999999999999999999", missingFile},
		"wq0.1/size":           {"", "0", "-5", "0x10", missingFile},
		"wq0.1/priority":       {"", "-1", "high", missingFile},
		"wq0.1/threshold":      {"", "-1", "half", missingFile},
		"wq0.1/block_on_fault": {"", "2", "yes", missingFile},
		"group0.1/engines":     {"", "wq0.1", "engine0.1 engine1.0", missingFile},
	} {
		for _, content := range bad {
			t.Run(file+" "+content, func(t *testing.T) {
				defer configure(h, "1")
				if content == missingFile {
					h.Remove(dsaDir + "/dsa0/" + file)
				} else {
					h.File(dsaDir+"/dsa0/"+file, content)
				}
				devices, problems := device.Discover(host, idxd.DSA)
				if got := names(devices); !slices.Equal(got, []string{all[0], all[2]}) {
					t.Errorf("devices %v", got)
				}
				if len(problems) != 1 || !strings.Contains(problems[0].Error(), "wq0.1") {
					t.Errorf("problems %v, want one of wq0.1", problems)
				}
			})
		}
	}
}

func TestAQueueThatIsOffIsNoDevice(t *testing.T) {
	for file, content := range map[string]string{"state": "disabled", "type": "none"} {
		h := machine(t)
		h.File(dsaDir+"/dsa0/wq0.0/"+file, content)
		same(t, []device.Device{wantIAA()}, h.Discover(idxd.DSA, idxd.IAA))
	}
}

const missingFile = "(missing)"

func TestABadVersionCostsTheAcceleratorOnly(t *testing.T) {
	for _, version := range []string{"", "new", strings.Repeat("1", 100)} {
		h := machine(t)
		h.File(dsaDir+"/dsa0/version", version)
		devices, problems := device.Discover(h.Open(), idxd.DSA, idxd.IAA)
		same(t, []device.Device{wantIAA()}, devices)
		if len(problems) != 1 {
			t.Errorf("version %q: problems %v, want one", version, problems)
		}
	}
}

func TestAFunctionWithoutQueuesIsNoDevice(t *testing.T) {
	for name, test := range map[string]struct {
		driver   string
		problems int
	}{
		"unbound":                      {"", 0},
		"bound to another driver":      {"igb_uio", 0},
		"bound to one without devices": {"idxd", 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			f := dsa()
			f.Driver = test.driver
			h.Add(f)
			devices, problems := device.Discover(h.Open(), idxd.DSA)
			if len(devices) != 0 || len(problems) != test.problems {
				t.Errorf("devices %+v, problems %v", devices, problems)
			}
		})
	}
}

func TestAFunctionBoundToVFIOIsHandedOverAsAWhole(t *testing.T) {
	h := devicetest.New(t)
	f := iaa()
	f.Driver = "vfio-pci"
	h.Add(f)
	same(t, []device.Device{{
		Name: "iaa-0000-6a-02-0-vfio", Family: "iaa", Personality: device.VFIO, Function: device.Single,
		Address: "0000:6a:02.0", NUMANode: 0, Root: "pci0000:6a", Driver: "vfio-pci",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x8086"), "deviceID": device.Text("0x0cfe"), "pciClass": device.Text("0x088000"),
			"model": device.Text("Sapphire Rapids IAA"), "iommuGroup": device.Number(111), "iommuGroupSize": device.Number(1),
		},
		Use: device.Use{Owner: "0000:6a:02.0"},
		Nodes: []device.Node{
			{Path: "/dev/vfio/111", Major: 243, Minor: 111, Role: device.VFIOGroup},
			{Path: "/dev/vfio/vfio", Major: 10, Minor: 196, Role: device.VFIOGroup},
		},
	}}, h.Discover(idxd.DSA, idxd.IAA))
}

func TestQueuesOfAnotherDomainAndAnAcceleratorOfTwoDigitsKeepTheirNames(t *testing.T) {
	h := devicetest.New(t)
	f := dsa()
	f.Path = "/sys/devices/pci0001:6a/0001:6a:01.0"
	h.Add(f)
	accelerator(h, f.Path+"/dsa10", "10", "511:0")
	devices := h.Discover(idxd.DSA)
	want := device.Use{Owner: "0001:6a:01.0", Part: "wq0"}
	if len(devices) != 1 || devices[0].Name != "dsa-0001-6a-01-0-wq0" || devices[0].Root != "pci0001:6a" ||
		devices[0].Use != want || devices[0].Nodes[0].Path != "/dev/dsa/wq10.0" {
		t.Errorf("devices %+v, want one of use %+v", devices, want)
	}
}

func TestAQueueIsOneOfItsFunctionsParts(t *testing.T) {
	queue, other, whole := wantDSA().Use, device.Use{Owner: "0000:6a:01.0", Part: "wq1"}, device.Use{Owner: "0000:6a:01.0"}
	if queue.Excludes(other) || !queue.Excludes(whole) || !queue.Excludes(queue) {
		t.Errorf("use %+v", queue)
	}
}

func TestOtherFunctionsOfTheClassAreLeftAlone(t *testing.T) {
	h := devicetest.New(t)
	f := dsa()
	f.Device = 0x0b26
	h.Add(f)
	accelerator(h, dsaDir+"/dsa0", "0", "511:0")
	same(t, nil, h.Discover(idxd.DSA, idxd.IAA))
}

// discoverFailing discovers the first family on a host where a file cannot be read.
func discoverFailing(t *testing.T, h *devicetest.Host, file string, reason error) ([]device.Device, []error) {
	t.Helper()
	return device.Discover(h.OpenFailing(file, reason), idxd.DSA)
}

func TestADeviceInResetKeepsItsQueues(t *testing.T) {
	for _, reason := range []error{syscall.ENODEV, syscall.EIO} {
		for file, value := range map[string]string{"dsa0/state": "state", "dsa0/errors": "errors", "wq0.0/state": "queue"} {
			devices, problems := discoverFailing(t, machine(t), file, reason)
			want := wantDSA()
			want.Taint(device.InReset, value)
			same(t, []device.Device{want}, devices)
			if len(problems) != 0 {
				t.Errorf("%s of %s: %v", reason, file, problems)
			}
		}
	}
	if devices, problems := discoverFailing(t, machine(t), "wq0.0/state", syscall.EACCES); len(devices) != 0 || !errors.Is(problems[0], syscall.EACCES) {
		t.Errorf("devices %+v, problems %v, want none and the reason", devices, problems)
	}
}

// Whatever a file contains, what is published has all that selectors read, and the other
// accelerator does not notice.
func TestNoContentOfAFileIsTrusted(t *testing.T) {
	mandatory := []string{
		"model", "wqMode", "wqType", "wqName", "wqIndex", "wqGroup", "wqSize", "wqPriority", "wqThreshold", "wqEngines",
		"blockOnFault", "deviceVersion",
	}
	garbage := []string{
		"", "\x00", "-1", "0", "1", "2", "0x", "99999999999999999999", "\xff\xfe", "../../../etc", "wq0.0", "kernel", "shared",
		"enabled", "DEVNAME=../../etc/passwd", "1:2:3", "511:-1", strings.Repeat("engine0.0 ", 9000), strings.Repeat("a", 70<<10),
	}
	var files []string
	example := machine(t)
	host := example.Open()
	dir := filepath.Join(example.Dir, filepath.FromSlash(dsaDir), "dsa0")
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(name, example.Dir))
		}
		return err
	})
	if err != nil || len(files) < 30 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		sound, err := os.ReadFile(filepath.Join(example.Dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, content := range garbage {
			example.File(file, content)
			devices, problems := device.Discover(host, idxd.DSA, idxd.IAA)
			if n := len(devices); n == 0 || len(problems) > 1 {
				t.Errorf("%s is %.20q: %d devices, problems %v", file, content, n, problems)
			}
			same(t, []device.Device{wantIAA()}, devices[max(0, len(devices)-1):])
			for _, name := range mandatory {
				if _, ok := devices[0].Attributes[name]; !ok {
					t.Errorf("%s is %.20q: %s has only %v", file, content, devices[0].Name, slices.Sorted(maps.Keys(devices[0].Attributes)))
				}
			}
		}
		example.File(file, strings.TrimSuffix(string(sound), "\n"))
	}
}
