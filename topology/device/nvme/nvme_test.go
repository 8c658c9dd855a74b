package nvme_test

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/nvme"
)

const (
	rootOnly = "22 1 0:21 / /sys rw,nosuid shared:2 - sysfs sysfs rw"
	noSwaps  = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority"
)

// host has no disk mounted.
func host(t *testing.T) *devicetest.Host {
	h := devicetest.New(t)
	h.File("/proc/self/mountinfo", rootOnly)
	h.File("/proc/swaps", noSwaps)
	return h
}

// disk is where a block device is, and its numbers.
type disk struct{ dir, numbers, nsid string }

func (d disk) add(h *devicetest.Host) {
	name := path.Base(d.dir)
	h.Files(d.dir, map[string]string{
		"dev": d.numbers, "nsid": d.nsid, "size": "3750748848", "ro": "0", "hidden": "0",
		"uevent":                   "MAJOR=259\nMINOR=0\nDEVNAME=" + name + "\nDEVTYPE=disk\nDISKSEQ=9",
		"queue/logical_block_size": "512", "wwid": "eui.002538b22140" + d.nsid,
	})
	h.Link(d.dir+"/subsystem", "/sys/class/block")
	h.Link("/sys/class/block/"+name, d.dir)
}

// partition adds the first partition of a disk.
func (d disk) partition(h *devicetest.Host, numbers string) string {
	dir := d.dir + "/" + path.Base(d.dir) + "p1"
	h.Files(dir, map[string]string{"dev": numbers, "partition": "1", "size": "2048"})
	h.Link("/sys/class/block/"+path.Base(dir), dir)
	return dir
}

// controller puts the node of a controller and what it says below a function.
func controller(h *devicetest.Host, f devicetest.Function, name string) string {
	h.Char(f.Path, "nvme/"+name, "240:"+strings.TrimPrefix(name, "nvme"), name)
	h.Files(f.Path+"/nvme/"+name, map[string]string{
		"model": "SAMSUNG MZWLJ1T9HBJR-00007              ", "serial": "S64GNE0R123456      ", "firmware_rev": "EPK9CB5Q",
		"state": "live", "transport": "pcie", "cntlid": "1", "subsysnqn": "nqn.1994-11.com.samsung:nvme:PM1733:2.5-inch:S64GNE0R123456",
	})
	return f.Path + "/nvme/" + name
}

var behindVMD = devicetest.Function{
	Path:   "/sys/devices/pci0000:00/0000:00:0e.0/pci10000:00/10000:00:02.0/10000:01:00.0",
	Vendor: 0x144d, Device: 0xa80a, Class: 0x010802, Group: 5, Driver: "nvme",
}

// single is a disk behind a VMD with one namespace, as the kernel shows it without
// multipath.
func single(h *devicetest.Host) disk {
	vmd := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:0e.0", Vendor: 0x8086, Device: 0x201d, Class: 0x010400, Group: 5, Driver: "vmd"}
	h.Add(vmd, devicetest.Bridge(vmd.Path+"/pci10000:00/10000:00:02.0", 0), behindVMD)
	dir := controller(h, behindVMD, "nvme0")
	d := disk{dir + "/nvme0n1", "259:0", "1"}
	d.add(h)
	h.Char(dir, "ng0n1", "241:0", "ng0n1")
	return d
}

func singleDevices() []device.Device {
	common := device.Device{
		Family: "nvme", Personality: device.Kernel, Function: device.Single, Address: "10000:01:00.0", Root: "pci0000:00", Driver: "nvme",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x144d"), "deviceID": device.Text("0xa80a"), "pciClass": device.Text("0x010802"),
			"model": device.Text("SAMSUNG MZWLJ1T9HBJR-00007"), "serial": device.Text("S64GNE0R123456"), "firmware": device.Text("EPK9CB5Q"),
			"vmdRoot": device.Text("pci10000:00"),
		},
		Capacities: []device.Capacity{{Name: "size", Amount: 1920383410176, Bytes: true}},
	}
	block := device.Node{Path: "/dev/nvme0n1", Block: true, Major: 259}
	part, whole := common, common
	part.Name, part.Use, part.Nodes = "nvme-10000-01-00-0-ns1", device.Use{Owner: "10000:01:00.0", Part: "ns1"}, []device.Node{block}
	part.Attributes = maps.Clone(common.Attributes)
	part.Set("wwid", device.Text("eui.002538b221401"))
	part.Set("blockSize", device.Number(512))
	whole.Name, whole.Use = "nvme-10000-01-00-0", device.Use{Owner: "10000:01:00.0"}
	whole.Nodes = []device.Node{
		{Path: "/dev/ng0n1", Major: 241, Role: nvme.Generic},
		{Path: "/dev/nvme0", Major: 240, Role: nvme.Controller},
		block,
	}
	return []device.Device{part, whole}
}

func check(t *testing.T, want, got []device.Device) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

func names(devices []device.Device) []string {
	var found []string
	for _, d := range devices {
		found = append(found, d.Name)
	}
	return found
}

func TestADiskIsItsNamespacesAndItsController(t *testing.T) {
	h := host(t)
	single(h)
	check(t, singleDevices(), h.Discover(nvme.Family{}))
}

func TestADiskIsDescribedAsFarAsItsFilesGo(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*devicetest.Host, disk)
		want   func(part, whole *device.Device)
	}{
		"the controller does not say what it is": {
			func(h *devicetest.Host, d disk) {
				for _, file := range []string{"model", "serial", "firmware_rev", "transport", "subsysnqn"} {
					h.Remove(path.Dir(d.dir) + "/" + file)
				}
			},
			func(part, whole *device.Device) {
				for _, d := range []*device.Device{part, whole} {
					delete(d.Attributes, "serial")
					delete(d.Attributes, "firmware")
					d.Set("model", device.Text("Unknown"))
				}
			},
		},
		"the namespace does not say what it is": {
			func(h *devicetest.Host, d disk) {
				for _, file := range []string{"size", "wwid", "queue"} {
					h.Remove(d.dir + "/" + file)
				}
			},
			func(part, whole *device.Device) {
				part.Capacities, whole.Capacities = nil, nil
				delete(part.Attributes, "wwid")
				delete(part.Attributes, "blockSize")
			},
		},
		"what the namespace says is garbled": {
			func(h *devicetest.Host, d disk) {
				h.Files(d.dir, map[string]string{"size": "18446744073709551615", "queue/logical_block_size": "-512", "wwid": "nvme.144d-" + strings.Repeat("61", 40) + "-00000001"})
			},
			func(part, whole *device.Device) {
				part.Capacities, whole.Capacities = nil, nil
				delete(part.Attributes, "wwid") // Cut off it would be that of other namespaces too.
				delete(part.Attributes, "blockSize")
			},
		},
		"it has no generic node": {
			func(h *devicetest.Host, d disk) { h.Remove(path.Dir(d.dir) + "/ng0n1") },
			func(_, whole *device.Device) { whole.Nodes = whole.Nodes[1:] },
		},
		"the kernel counts disks otherwise than controllers": {
			func(h *devicetest.Host, d disk) {
				h.Remove(d.dir)
				h.Remove("/sys/class/block/nvme0n1")
				disk{path.Dir(d.dir) + "/nvme3n1", "259:0", "1"}.add(h)
			},
			func(part, whole *device.Device) {
				part.Nodes[0].Path, whole.Nodes[2].Path = "/dev/nvme3n1", "/dev/nvme3n1"
			},
		},
		"the controller has no node": {
			func(h *devicetest.Host, d disk) { h.Remove(path.Dir(d.dir) + "/dev") },
			func(_, whole *device.Device) {
				whole.Nodes = []device.Node{whole.Nodes[0], whole.Nodes[2]}
				whole.Taint(device.DriverLost, "no-node")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			test.change(h, single(h))
			want := singleDevices()
			test.want(&want[0], &want[1])
			check(t, want, h.Discover(nvme.Family{}))
		})
	}
}

func TestTheStateOfTheControllerIsATaintOfAllItsDevices(t *testing.T) {
	for state, want := range map[string][]device.Taint{
		"live":             nil,
		"new":              {{Reason: device.InReset, Value: "new"}},
		"resetting":        {{Reason: device.InReset, Value: "resetting"}},
		"connecting":       {{Reason: device.InReset, Value: "connecting"}},
		"deleting":         {{Reason: device.Gone, Value: "deleting"}},
		"deleting (no IO)": {{Reason: device.Gone, Value: "deleting"}},
		"dead":             {{Reason: device.Unhealthy, Value: "dead"}},
		"?-state":          {{Reason: device.Unhealthy, Value: "unknown-state"}},
		"":                 {{Reason: device.Unhealthy, Value: "unknown-state"}},
	} {
		t.Run("state "+state, func(t *testing.T) {
			h := host(t)
			d := single(h)
			h.File(path.Dir(d.dir)+"/state", state)
			wanted := singleDevices()
			wanted[0].Taints, wanted[1].Taints = want, want
			check(t, wanted, h.Discover(nvme.Family{}))
		})
	}
}

func TestAControllerWhoseStateCannotBeReadIsTainted(t *testing.T) {
	for err, want := range map[syscall.Errno]device.Taint{
		syscall.ENODEV: {Reason: device.InReset},
		syscall.EIO:    {Reason: device.InReset},
		syscall.ENOENT: {Reason: device.Unhealthy, Value: "no-state"},
	} {
		t.Run(err.Error(), func(t *testing.T) {
			h := host(t)
			single(h)
			devices, problems := device.Discover(h.OpenFailing("/nvme0/state", err), nvme.Family{})
			wanted := singleDevices()
			wanted[0].Taints, wanted[1].Taints = []device.Taint{want}, []device.Taint{want}
			check(t, wanted, devices)
			if len(problems) > 0 {
				t.Error(problems)
			}
		})
	}
}

func TestAFunctionWithoutItsDriverIsTainted(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*devicetest.Host)
		want   device.Taint
	}{
		"unbound": {func(h *devicetest.Host) {
			h.Remove(behindVMD.Path + "/driver")
			h.Remove(behindVMD.Path + "/nvme")
		}, device.Taint{Reason: device.DriverLost}},
		"bound to another driver": {func(h *devicetest.Host) {
			h.Link(behindVMD.Path+"/driver", "/sys/bus/pci/drivers/uio_pci_generic")
			h.Remove(behindVMD.Path + "/nvme")
		}, device.Taint{Reason: device.DriverLost, Value: "uio_pci_generic"}},
		"bound but no controller": {func(h *devicetest.Host) { h.Remove(behindVMD.Path + "/nvme") }, device.Taint{Reason: device.DriverLost, Value: "no-controller"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			single(h)
			h.Remove("/sys/class/block")
			h.Remove("/proc") // Without a driver there are no disks to ask about.
			test.change(h)
			want := device.Device{
				Name: "nvme-10000-01-00-0", Family: "nvme", Personality: device.Kernel, Function: device.Single, Address: "10000:01:00.0", Root: "pci0000:00", Driver: "nvme",
				Attributes: map[string]device.Value{
					"vendorID": device.Text("0x144d"), "deviceID": device.Text("0xa80a"), "pciClass": device.Text("0x010802"), "vmdRoot": device.Text("pci10000:00"),
				},
				Use: device.Use{Owner: "10000:01:00.0"}, Taints: []device.Taint{test.want},
			}
			check(t, []device.Device{want}, h.Discover(nvme.Family{}))
		})
	}
}

func TestAFunctionBoundToVFIOIsHandedOver(t *testing.T) {
	h := devicetest.New(t) // Without proc: what is bound to vfio has no disks to ask about.
	f := behindVMD
	f.Driver = "vfio-pci"
	h.Add(f)
	check(t, []device.Device{{
		Name: "nvme-10000-01-00-0-vfio", Family: "nvme", Personality: device.VFIO, Function: device.Single, Address: "10000:01:00.0", Root: "pci0000:00", Driver: "vfio-pci",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x144d"), "deviceID": device.Text("0xa80a"), "pciClass": device.Text("0x010802"), "vmdRoot": device.Text("pci10000:00"),
			"iommuGroup": device.Number(5), "iommuGroupSize": device.Number(1),
		},
		Use: device.Use{Owner: "10000:01:00.0"},
		Nodes: []device.Node{
			{Path: "/dev/vfio/5", Major: 243, Minor: 5, Role: device.VFIOGroup},
			{Path: "/dev/vfio/vfio", Major: 10, Minor: 196, Role: device.VFIOGroup},
		},
	}}, h.Discover(nvme.Family{}))
}

// twoNamespaces is a controller of its own domain with two namespaces, without multipath.
func twoNamespaces(h *devicetest.Host) (disks [2]disk) {
	f := devicetest.Function{Path: "/sys/devices/pci0001:00/0001:01:00.0", Vendor: 0x1b36, Device: 0x0010, Class: 0x010802, Node: -1, Group: 8, Driver: "nvme"}
	h.Add(f)
	dir := controller(h, f, "nvme0")
	for i := range disks {
		disks[i] = disk{dir + fmt.Sprintf("/nvme0n%d", i+1), fmt.Sprintf("259:%d", i), fmt.Sprint(i + 1)}
		disks[i].add(h)
	}
	return disks
}

func TestWhatTheHostUsesIsNotPublished(t *testing.T) {
	all := []string{"nvme-0001-01-00-0-ns1", "nvme-0001-01-00-0-ns2", "nvme-0001-01-00-0"}
	for name, test := range map[string]struct {
		change func(*devicetest.Host, [2]disk)
		want   []string
	}{
		"nothing": {func(*devicetest.Host, [2]disk) {}, all},
		"a namespace is mounted": {func(h *devicetest.Host, _ [2]disk) {
			h.File("/proc/self/mountinfo", "29 1 259:0 / / rw - ext4 /dev/root rw")
		}, all[1:2]},
		"both namespaces are mounted": {func(h *devicetest.Host, _ [2]disk) {
			h.File("/proc/self/mountinfo", "29 1 259:0 / / rw - ext4 /dev/root rw\n30 29 259:1 / /data rw - ext4 /dev/root rw")
		}, nil},
		"a partition is mounted": {func(h *devicetest.Host, disks [2]disk) {
			disks[1].partition(h, "259:7")
			h.File("/proc/1/mountinfo", "29 1 259:7 / / rw - ext4 /dev/root rw")
		}, all[:1]},
		"a partition is swap space": {func(h *devicetest.Host, disks [2]disk) {
			disks[1].partition(h, "259:7")
			h.File("/proc/swaps", noSwaps+"\n/dev/nvme0n2p1 partition 8388604 0 -2")
		}, all[:1]},
		"a namespace is in a RAID": {func(h *devicetest.Host, disks [2]disk) {
			h.Link(disks[0].dir+"/holders/md0", "/sys/devices/virtual/block/md0")
		}, all[1:2]},
		"a partition is in a volume group": {func(h *devicetest.Host, disks [2]disk) {
			h.Link(disks[0].partition(h, "259:7")+"/holders/dm-0", "/sys/devices/virtual/block/dm-0")
		}, all[1:2]},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			test.change(h, twoNamespaces(h))
			if diff := cmp.Diff(test.want, names(h.Discover(nvme.Family{}))); diff != "" {
				t.Errorf("devices -want +got:\n%s", diff)
			}
		})
	}
}

func TestWhatIsNotKnownCostsAsLittleAsPossible(t *testing.T) {
	for name, test := range map[string]struct {
		change   func(*devicetest.Host, [2]disk)
		want     []string
		problems []string
	}{
		"the mounts": {
			func(h *devicetest.Host, _ [2]disk) { h.Remove("/proc") }, nil,
			[]string{"controller 0001:01:00.0 is left out as a whole", "namespace nvme0n1 of 0001:01:00.0 and", "namespace nvme0n2 of 0001:01:00.0 and"},
		},
		"the numbers of a namespace": {
			func(h *devicetest.Host, disks [2]disk) { h.File(disks[0].dir+"/dev", "x") }, []string{"nvme-0001-01-00-0-ns2"},
			[]string{"controller 0001:01:00.0 is left out as a whole", "namespace nvme0n1 of 0001:01:00.0 and"},
		},
		"the name of a namespace's node": {
			func(h *devicetest.Host, disks [2]disk) { h.File(disks[0].dir+"/uevent", "DEVNAME=../nvme0n1") }, []string{"nvme-0001-01-00-0-ns2"},
			[]string{"namespace nvme0n1 of 0001:01:00.0 and the controller as a whole are left out"},
		},
		"the number of a namespace": {
			func(h *devicetest.Host, disks [2]disk) { h.File(disks[0].dir+"/nsid", "0x1") }, []string{"nvme-0001-01-00-0-ns2", "nvme-0001-01-00-0"},
			[]string{"namespace nvme0n1 of 0001:01:00.0 is left out"},
		},
		"that it is on this machine": {
			func(h *devicetest.Host, disks [2]disk) { h.File(path.Dir(disks[0].dir)+"/transport", "tcp") }, nil,
			[]string{"controller 0001:01:00.0 is left out: its transport is \"tcp\""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			test.change(h, twoNamespaces(h))
			devices, problems := device.Discover(h.Open(), nvme.Family{})
			if diff := cmp.Diff(test.want, names(devices)); diff != "" {
				t.Errorf("devices -want +got:\n%s", diff)
			}
			if len(problems) != len(test.problems) {
				t.Fatalf("problems %v, want %q", problems, test.problems)
			}
			for i, want := range test.problems {
				if !strings.Contains(problems[i].Error(), want) {
					t.Errorf("problem %v, want one with %q", problems[i], want)
				}
			}
		})
	}
}

// multipath is a subsystem with two controllers, of which both have namespace 1 and the
// second one has namespace 2 as well.
func multipath(h *devicetest.Host) (functions [2]devicetest.Function) {
	const subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0"
	for i := range functions {
		functions[i] = devicetest.Function{Path: fmt.Sprintf("/sys/devices/pci0000:17/0000:17:0%d.0", i+1), Vendor: 0x1b36, Device: 0x0010, Class: 0x010802, Group: 20 + i, Driver: "nvme"}
		h.Add(functions[i])
		name := fmt.Sprintf("nvme%d", i)
		dir := controller(h, functions[i], name)
		h.Link(subsystem+"/"+name, dir)
		for n := 1; n <= i+1; n++ {
			hidden := fmt.Sprintf("%s/nvme0c%dn%d", dir, i, n)
			h.Files(hidden, map[string]string{"hidden": "1", "size": "3750748848", "nsid": fmt.Sprint(n)})
			h.Link("/sys/class/block/"+path.Base(hidden), hidden)
		}
	}
	for n := 1; n <= 2; n++ {
		disk{fmt.Sprintf("%s/nvme0n%d", subsystem, n), fmt.Sprintf("259:%d", n), fmt.Sprint(n)}.add(h)
		h.Char(subsystem, fmt.Sprintf("ng0n%d", n), fmt.Sprintf("241:%d", n), fmt.Sprintf("ng0n%d", n))
	}
	return functions
}

func TestAControllerAloneWithMultipathHasTheDisksOfItsSubsystem(t *testing.T) {
	h := host(t)
	functions := multipath(h)
	h.Remove("/sys/bus/pci/devices/" + functions[0].Address())
	h.Remove(functions[0].Path)
	h.Remove("/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0")
	devices := h.Discover(nvme.Family{})
	if diff := cmp.Diff([]string{"nvme-0000-17-02-0-ns1", "nvme-0000-17-02-0-ns2", "nvme-0000-17-02-0"}, names(devices)); diff != "" {
		t.Fatalf("devices -want +got:\n%s", diff)
	}
	block := func(n int64) device.Node {
		return device.Node{Path: fmt.Sprintf("/dev/nvme0n%d", n), Block: true, Major: 259, Minor: n}
	}
	generic := func(n int64) device.Node {
		return device.Node{Path: fmt.Sprintf("/dev/ng0n%d", n), Major: 241, Minor: n, Role: nvme.Generic}
	}
	for i, want := range [][]device.Node{
		{block(1)},
		{block(2)},
		{generic(1), generic(2), block(1), block(2), {Path: "/dev/nvme1", Major: 240, Minor: 1, Role: nvme.Controller}},
	} {
		if diff := cmp.Diff(want, devices[i].Nodes); diff != "" {
			t.Errorf("nodes of %s -want +got:\n%s", devices[i].Name, diff)
		}
	}
	if devices[0].Attributes["wwid"] != device.Text("eui.002538b221401") || devices[2].Capacities[0].Amount != 2*1920383410176 {
		t.Errorf("devices %+v", devices)
	}
}

func TestASharedNamespaceIsPublishedOnce(t *testing.T) {
	withoutMultipath := func(h *devicetest.Host) {
		for i := range 2 {
			f := devicetest.Function{Path: fmt.Sprintf("/sys/devices/pci0000:17/0000:17:0%d.0", i+1), Vendor: 0x1b36, Device: 0x0010, Class: 0x010802, Group: 20 + i, Driver: "nvme"}
			h.Add(f)
			dir := controller(h, f, fmt.Sprintf("nvme%d", i))
			for n := 1; n <= i+1; n++ {
				disk{fmt.Sprintf("%s/nvme%dn%d", dir, i, n), fmt.Sprintf("259:%d", 10*i+n), fmt.Sprint(n)}.add(h)
			}
		}
	}
	for name, test := range map[string]struct {
		make func(*devicetest.Host)
		// mounts are those of a host that has the shared namespace mounted.
		mounts string
	}{
		"with multipath":    {func(h *devicetest.Host) { multipath(h) }, "29 1 259:1 / / rw - ext4 /dev/root rw"},
		"without multipath": {withoutMultipath, "29 1 259:11 / / rw - ext4 /dev/root rw"},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			test.make(h)
			if diff := cmp.Diff([]string{"nvme-0000-17-01-0-ns1", "nvme-0000-17-02-0-ns2"}, names(h.Discover(nvme.Family{}))); diff != "" {
				t.Errorf("devices -want +got:\n%s", diff)
			}
			h.File("/proc/self/mountinfo", test.mounts)
			if diff := cmp.Diff([]string{"nvme-0000-17-02-0-ns2"}, names(h.Discover(nvme.Family{}))); diff != "" {
				t.Errorf("devices of a host that uses it -want +got:\n%s", diff)
			}
		})
	}
}

func TestAnotherControllersNamespaceOfTheSameNameIsAnotherOne(t *testing.T) {
	h := host(t)
	single(h)
	disks := twoNamespaces(h)
	h.Remove(disks[1].dir)
	h.Remove("/sys/class/block/nvme0n2")
	h.File(path.Dir(disks[0].dir)+"/subsysnqn", "nqn.2019-08.org.qemu:other")
	want := []string{"nvme-0001-01-00-0-ns1", "nvme-10000-01-00-0-ns1", "nvme-0001-01-00-0", "nvme-10000-01-00-0"}
	if diff := cmp.Diff(want, names(h.Discover(nvme.Family{}))); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

func TestTheSizeOfTheWholeIsThatOfAllNamespacesOrUnknown(t *testing.T) {
	h := host(t)
	disks := twoNamespaces(h)
	want := []device.Capacity{{Name: "size", Amount: 2 * 1920383410176, Bytes: true}}
	if devices := h.Discover(nvme.Family{}); len(devices) != 3 || !cmp.Equal(want, devices[2].Capacities) {
		t.Errorf("devices %+v, want a whole with %+v", devices, want)
	}
	h.File(disks[1].dir+"/size", "x")
	if devices := h.Discover(nvme.Family{}); len(devices) != 3 || len(devices[2].Capacities) > 0 {
		t.Errorf("devices %+v, want a whole without capacities", devices)
	}
}

func TestAWayToADiskThatIsNotThereLeavesTheControllerOut(t *testing.T) {
	for name, change := range map[string]func(*devicetest.Host){
		"the disk":           func(h *devicetest.Host) { h.Remove("/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n2") },
		"the controller":     func(h *devicetest.Host) { h.Remove("/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme1") },
		"the whole of it":    func(h *devicetest.Host) { h.Remove("/sys/devices/virtual/nvme-subsystem") },
		"the disk's numbers": func(h *devicetest.Host) { h.File("/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n2/dev", "") },
	} {
		t.Run("the subsystem does not show "+name, func(t *testing.T) {
			h := host(t)
			multipath(h)
			change(h)
			devices, problems := device.Discover(h.Open(), nvme.Family{})
			if len(problems) == 0 {
				t.Error("there is no problem")
			}
			for _, d := range devices {
				if d.Address == "0000:17:02.0" {
					t.Errorf("device %+v", d)
				}
			}
		})
	}
}

func TestADiskWithoutBlocksIsUsedThroughItsController(t *testing.T) {
	h := host(t)
	d := single(h)
	h.Remove(d.dir + "/dev")
	h.File(d.dir+"/hidden", "1")
	devices := h.Discover(nvme.Family{})
	if len(devices) != 1 || devices[0].Name != "nvme-10000-01-00-0" || len(devices[0].Nodes) != 2 || len(devices[0].Capacities) > 0 {
		t.Errorf("devices %+v, want the controller with its own node and the generic one", devices)
	}
}

func TestAControllerWithManyNamespacesIsGivenAwayAsAWhole(t *testing.T) {
	for count, want := range map[int]int{32: 33, 33: 1} {
		t.Run(fmt.Sprint(count, " namespaces"), func(t *testing.T) {
			h := host(t)
			dir := path.Dir(single(h).dir)
			for n := 2; n <= count; n++ {
				disk{fmt.Sprintf("%s/nvme0n%d", dir, n), fmt.Sprintf("259:%d", n), fmt.Sprint(n)}.add(h)
			}
			if devices := h.Discover(nvme.Family{}); len(devices) != want || devices[want-1].Use.Part != "" {
				t.Errorf("%d devices %v, want %d", len(devices), names(devices), want)
			}
		})
	}
}

func TestAVirtualFunctionIsAPartWithoutParts(t *testing.T) {
	h := host(t)
	pf := devicetest.Function{Path: "/sys/devices/pci0000:17/0000:17:01.0", Vendor: 0x1b36, Device: 0x0010, Class: 0x010802, Group: 20, Driver: "nvme"}
	vf := pf
	vf.Path, vf.Group = "/sys/devices/pci0000:17/0000:17:01.1", 21
	h.Add(pf, vf)
	h.File(pf.Path+"/sriov_totalvfs", "1")
	h.Virtual(pf, vf, 0)
	disk{controller(h, pf, "nvme0") + "/nvme0n1", "259:1", "1"}.add(h)
	own := disk{controller(h, vf, "nvme1") + "/nvme1n2", "259:2", "2"}
	own.add(h)
	devices := h.Discover(nvme.Family{})
	if diff := cmp.Diff([]string{"nvme-0000-17-01-0-ns1", "nvme-0000-17-01-1", "nvme-0000-17-01-0"}, names(devices)); diff != "" {
		t.Fatalf("devices -want +got:\n%s", diff)
	}
	for i, want := range []struct {
		part   string
		taints []device.Taint
	}{{"ns1", nil}, {"vf0", nil}, {"", []device.Taint{{Reason: device.ControlOnly}}}} {
		if d := devices[i]; d.Use != (device.Use{Owner: pf.Address(), Part: want.part}) || !slices.Equal(d.Taints, want.taints) {
			t.Errorf("%s is %+v with taints %v, want part %q with %v", d.Name, d.Use, d.Taints, want.part, want.taints)
		}
	}
	h.Link(own.dir+"/holders/md0", "/sys/devices/virtual/block/md0")
	if diff := cmp.Diff([]string{"nvme-0000-17-01-0-ns1"}, names(h.Discover(nvme.Family{}))); diff != "" {
		t.Errorf("devices of a host that uses the virtual function -want +got:\n%s", diff)
	}
	h.Link(pf.Path+"/driver", "/sys/bus/pci/drivers/vfio-pci")
	h.Remove(pf.Path + "/nvme")
	h.Remove("/sys/class/block/nvme0n1")
	if devices := h.Discover(nvme.Family{}); len(devices) != 0 {
		t.Errorf("devices %+v with the physical function bound to vfio", devices)
	}
}

func TestNoFaultInAFilePublishesAMountedDisk(t *testing.T) {
	for name, test := range map[string]struct {
		add     func(*devicetest.Host)
		mounted string
		dirs    []string
	}{
		"without multipath": {func(h *devicetest.Host) { twoNamespaces(h) }, "/dev/nvme0n2", []string{"/sys/devices/pci0001:00", "/proc/self"}},
		"with multipath":    {func(h *devicetest.Host) { multipath(h) }, "/dev/nvme0n1", []string{"/sys/devices/pci0000:17", "/sys/devices/virtual", "/proc/self"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			test.add(h)
			h.File("/proc/self/mountinfo", "29 1 259:1 / / rw - ext4 /dev/root rw")
			for _, dir := range test.dirs {
				for file, content := range h.Contents(dir) {
					for fault, cause := range devicetest.Faults {
						cause(h, file)
						devices, _ := device.Discover(h.Open(), nvme.Family{})
						for _, d := range devices {
							if slices.ContainsFunc(d.Nodes, func(n device.Node) bool { return n.Path == test.mounted }) {
								t.Errorf("%s has the mounted disk when %s is %s", d.Name, file, fault)
							}
						}
					}
					h.File(file, content)
				}
			}
		})
	}
}

func TestOtherDisksAreLeftAlone(t *testing.T) {
	h := host(t)
	h.Add(
		devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:17.0", Vendor: 0x8086, Device: 0xa352, Class: 0x010601, Group: 10, Driver: "ahci"},
		devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:18.0", Vendor: 0x1b36, Device: 0x0010, Class: 0x010803, Group: 11, Driver: "nvme"},
	)
	if devices := h.Discover(nvme.Family{}); len(devices) != 0 {
		t.Errorf("devices %+v", devices)
	}
}
