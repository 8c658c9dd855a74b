package nic_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/nic"
)

const (
	heading = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
	uplink  = "\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0"
)

// host has no default route.
func host(t *testing.T) *devicetest.Host {
	h := devicetest.New(t)
	h.Link("/proc/net", "/proc/self/net")
	h.File("/proc/self/net/route", heading)
	return h
}

// netdev puts a network interface below a function or a device of it.
func netdev(h *devicetest.Host, parent, name string, files map[string]string) {
	dir := parent + "/net/" + name
	h.Files(dir, map[string]string{"mtu": "1500", "type": "1", "operstate": "up", "dev_port": "0"})
	h.Files(dir, files)
	h.Link(dir+"/device", parent)
	h.Link("/sys/class/net/"+name, dir)
}

// rdmaCard is an Ethernet card of which the function is an RDMA device too.
func rdmaCard(h *devicetest.Host) devicetest.Function {
	const bridge = "/sys/devices/pci0000:37/0000:37:01.0"
	f := devicetest.Function{Path: bridge + "/0000:3b:00.0", Vendor: 0x15b3, Device: 0x101d, Class: 0x020000, Group: 50, Driver: "mlx5_core"}
	h.Add(devicetest.Bridge(bridge, 0), f)
	h.Files(f.Path, map[string]string{"sriov_totalvfs": "8", "sriov_numvfs": "0"})
	netdev(h, f.Path, "ens1f0np0", map[string]string{
		"address": "0c:42:a1:00:00:01", "speed": "100000",
		"phys_port_name": "p0", "phys_switch_id": "0100000000a1420c",
	})
	h.File(f.Path+"/infiniband/mlx5_0/node_type", "1: CA")
	h.Char(f.Path, "infiniband_verbs/uverbs0", "231:192", "infiniband/uverbs0")
	h.Char(f.Path, "infiniband_mad/umad0", "231:0", "infiniband/umad0")
	h.Char(f.Path, "infiniband_mad/issm0", "231:64", "infiniband/issm0")
	h.Char("/sys/devices/virtual", "misc/rdma_cm", "10:122", "infiniband/rdma_cm")
	return f
}

func rdmaDevice() device.Device {
	return device.Device{
		Name: "nic-0000-3b-00-0", Family: "nic", Personality: device.Kernel, Function: device.Physical,
		Address: "0000:3b:00.0", NUMANode: 0, Root: "pci0000:37", Driver: "mlx5_core",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x15b3"), "deviceID": device.Text("0x101d"), "pciClass": device.Text("0x020000"),
			"ifName": device.Text("ens1f0np0"), "mac": device.Text("0c:42:a1:00:00:01"), "linkType": device.Text("ethernet"),
			"speedMbps": device.Number(100000), "switchID": device.Text("0100000000a1420c"),
			"rdma": device.Flag(true), "rdmaDevice": device.Text("mlx5_0"),
		},
		Use: device.Use{Owner: "0000:3b:00.0"},
		Nodes: []device.Node{
			{Path: "/dev/infiniband/issm0", Major: 231, Minor: 64, Role: nic.SubnetManager},
			{Path: "/dev/infiniband/rdma_cm", Major: 10, Minor: 122, Role: nic.RDMA},
			{Path: "/dev/infiniband/umad0", Major: 231, Role: nic.RDMA},
			{Path: "/dev/infiniband/uverbs0", Major: 231, Minor: 192, Role: nic.RDMA},
		},
		Interfaces: []string{"ens1f0np0"},
	}
}

// plainCard is a card without RDMA that has two virtual functions: one with its driver,
// one with none.
func plainCard(h *devicetest.Host) (pf devicetest.Function, vfs [2]devicetest.Function) {
	const bridge = "/sys/devices/pci0000:00/0000:00:1c.0"
	pf = devicetest.Function{Path: bridge + "/0000:02:00.0", Vendor: 0x8086, Device: 0x10c9, Class: 0x020000, Node: 1, Group: 10, Driver: "igb"}
	h.Add(devicetest.Bridge(bridge, 1), pf)
	h.Files(pf.Path, map[string]string{"sriov_totalvfs": "7", "sriov_numvfs": "2"})
	netdev(h, pf.Path, "eth0", map[string]string{"address": "52:54:00:00:00:01", "speed": "1000"})
	for i := range vfs {
		vfs[i] = devicetest.Function{Path: bridge + "/0000:02:10." + []string{"0", "2"}[i], Vendor: 0x8086, Device: 0x10ca, Class: 0x020000, Node: 1, Group: 11 + i}
		vfs[i].Driver = []string{"igbvf", ""}[i]
		h.Add(vfs[i])
		h.Virtual(pf, vfs[i], i)
	}
	netdev(h, vfs[0].Path, "eth1", map[string]string{"address": "00:00:00:00:00:00", "speed": "-1", "operstate": "down"})
	return pf, vfs
}

func plainDevices() []device.Device {
	ids := func(deviceID string) map[string]device.Value {
		return map[string]device.Value{"vendorID": device.Text("0x8086"), "deviceID": device.Text(deviceID), "pciClass": device.Text("0x020000"), "rdma": device.Flag(false)}
	}
	devices := []device.Device{
		{Name: "nic-0000-02-10-0", Address: "0000:02:10.0", Function: device.Virtual, Driver: "igbvf", Use: device.Use{Owner: "0000:02:00.0", Part: "vf0"}, Attributes: ids("0x10ca")},
		{Name: "nic-0000-02-10-2", Address: "0000:02:10.2", Function: device.Virtual, Use: device.Use{Owner: "0000:02:00.0", Part: "vf1"}, Attributes: ids("0x10ca")},
		{Name: "nic-0000-02-00-0", Address: "0000:02:00.0", Function: device.Physical, Driver: "igb", Use: device.Use{Owner: "0000:02:00.0"}, Attributes: ids("0x10c9")},
	}
	for i := range devices {
		devices[i].Family, devices[i].Personality, devices[i].NUMANode, devices[i].Root = "nic", device.Kernel, 1, "pci0000:00"
	}
	for i := range 2 {
		devices[i].Set("pfBusID", device.Text("0000:02:00.0"))
		devices[i].Set("vfIndex", device.Number(int64(i)))
	}
	devices[0].Set("ifName", device.Text("eth1"))
	devices[0].Set("linkType", device.Text("ethernet"))
	devices[0].Interfaces, devices[2].Interfaces = []string{"eth1"}, []string{"eth0"}
	devices[1].Taint(device.DriverLost, "")
	devices[2].Set("ifName", device.Text("eth0"))
	devices[2].Set("linkType", device.Text("ethernet"))
	devices[2].Set("mac", device.Text("52:54:00:00:00:01"))
	devices[2].Set("speedMbps", device.Number(1000))
	devices[2].Taint(device.ControlOnly, "")
	return devices
}

func check(t *testing.T, want, got []device.Device) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

func TestACardWithRDMAHasNodesAndAnInterface(t *testing.T) {
	h := host(t)
	rdmaCard(h)
	check(t, []device.Device{rdmaDevice()}, h.Discover(nic.Family{}))
}

func TestVirtualFunctionsAreCardsAndPartsOfThePhysicalOne(t *testing.T) {
	h := host(t)
	plainCard(h)
	check(t, plainDevices(), h.Discover(nic.Family{}))
}

func TestACardIsDescribedAsFarAsItsFilesGo(t *testing.T) {
	without := func(d *device.Device, names ...string) {
		for _, name := range names {
			delete(d.Attributes, name)
		}
	}
	const net = "/net/ens1f0np0/"
	for name, test := range map[string]struct {
		change func(*devicetest.Host, devicetest.Function)
		want   func(*device.Device)
	}{
		"the firmware does not tell the node": {
			func(h *devicetest.Host, f devicetest.Function) {
				for _, dir := range []string{f.Path, "/sys/devices/pci0000:37/0000:37:01.0"} {
					h.Files(dir, map[string]string{"numa_node": "-1", "local_cpulist": "0-127"})
				}
			},
			func(d *device.Device) { d.NUMANode = topology.None },
		},
		"there is no link": {
			func(h *devicetest.Host, f devicetest.Function) {
				h.File(f.Path+net+"speed", "-1")
				h.File(f.Path+net+"operstate", "down")
			},
			func(d *device.Device) { without(d, "speedMbps") },
		},
		"all files of the interface are garbled": {
			func(h *devicetest.Host, f devicetest.Function) {
				for _, file := range []string{"address", "speed", "type", "mtu", "operstate", "dev_port", "phys_port_name"} {
					h.File(f.Path+net+file, "\x00garbage\xff")
				}
				h.File(f.Path+net+"phys_switch_id", strings.Repeat("a", 70))
			},
			func(d *device.Device) {
				without(d, "mac", "speedMbps", "linkType")
				d.Set("switchID", device.Text(strings.Repeat("a", 64)))
			},
		},
		"all files of the interface are missing": {
			func(h *devicetest.Host, f devicetest.Function) {
				for _, file := range []string{"address", "speed", "type", "mtu", "operstate", "dev_port", "phys_port_name", "phys_switch_id"} {
					h.Remove(f.Path + net + file)
				}
			},
			func(d *device.Device) { without(d, "mac", "speedMbps", "linkType", "switchID") },
		},
		"it is an InfiniBand card": {
			func(h *devicetest.Host, f devicetest.Function) {
				h.Files(f.Path+net, map[string]string{"type": "32", "address": "00:00:10:49:fe:80:00:00:00:00:00:00:0c:42:a1:03:00:00:00:01"})
			},
			func(d *device.Device) {
				d.Set("linkType", device.Text("infiniband"))
				d.Set("mac", device.Text("00:00:10:49:fe:80:00:00:00:00:00:00:0c:42:a1:03:00:00:00:01"))
			},
		},
		"it has RDMA only": {
			func(h *devicetest.Host, f devicetest.Function) { h.Remove(f.Path + "/net"); h.Remove("/sys/class/net") },
			func(d *device.Device) {
				without(d, "ifName", "mac", "linkType", "speedMbps", "switchID")
				d.Interfaces = nil
			},
		},
		"it has RDMA only and no module for user space": {
			func(h *devicetest.Host, f devicetest.Function) {
				for _, dir := range []string{"/net", "/infiniband_verbs", "/infiniband_mad"} {
					h.Remove(f.Path + dir)
				}
				h.Remove("/sys/class/net")
			},
			func(d *device.Device) {
				without(d, "ifName", "mac", "linkType", "speedMbps", "switchID")
				d.Nodes, d.Interfaces = nil, nil
				d.Taint(device.DriverLost, "no-node")
			},
		},
		"it has no module for RDMA in user space": {
			func(h *devicetest.Host, f devicetest.Function) {
				h.Remove(f.Path + "/infiniband_verbs")
				h.Remove(f.Path + "/infiniband_mad")
			},
			func(d *device.Device) { d.Nodes = nil },
		},
		"a node does not tell its numbers": {
			func(h *devicetest.Host, f devicetest.Function) {
				h.File(f.Path+"/infiniband_mad/umad0/dev", "231")
				h.Remove("/sys/devices/virtual/misc/rdma_cm/dev")
			},
			func(d *device.Device) { d.Nodes = []device.Node{d.Nodes[0], d.Nodes[3]} },
		},
		"it has ports that stand for virtual functions": {
			func(h *devicetest.Host, f devicetest.Function) {
				for _, port := range []string{"pf0vf0", "c1pf0sf88"} {
					netdev(h, f.Path, "ens1f0"+port[:4], map[string]string{"phys_port_name": port, "phys_switch_id": "0100000000a1420c"})
				}
			},
			func(*device.Device) {},
		},
		"it has two ports": {
			func(h *devicetest.Host, f devicetest.Function) {
				netdev(h, f.Path, "ens1a", map[string]string{"dev_port": "1", "address": "0c:42:a1:00:00:02"})
			},
			func(d *device.Device) { d.Interfaces = []string{"ens1f0np0", "ens1a"} },
		},
		"the interface is with somebody else": {
			func(h *devicetest.Host, f devicetest.Function) {
				for _, dir := range []string{"/net", "/infiniband", "/infiniband_verbs", "/infiniband_mad"} {
					h.Remove(f.Path + dir)
				}
				h.Remove("/sys/class/net")
			},
			func(d *device.Device) {
				without(d, "ifName", "mac", "linkType", "speedMbps", "switchID", "rdmaDevice")
				d.Set("rdma", device.Flag(false))
				d.Nodes, d.Interfaces = nil, nil
				d.Taint(device.DriverLost, "no-interface")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			test.change(h, rdmaCard(h))
			want := rdmaDevice()
			test.want(&want)
			check(t, []device.Device{want}, h.Discover(nic.Family{}))
		})
	}
}

func TestACardIsAwayIfNothingButItsInterfaceIsMissing(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*devicetest.Host, devicetest.Function)
		want   bool
	}{
		"its interface is here": {func(*devicetest.Host, devicetest.Function) {}, false},
		"its interface is missing": {func(h *devicetest.Host, f devicetest.Function) {
			h.Remove(f.Path + "/net")
			h.Remove("/sys/class/net")
		}, true},
		"its driver is missing too": {func(h *devicetest.Host, f devicetest.Function) {
			h.Remove(f.Path + "/net")
			h.Remove("/sys/class/net")
			h.Remove(f.Path + "/driver")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			f := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:05.0", Vendor: 0x8086, Device: 0x10c9, Class: 0x020000, Group: 10, Driver: "igb"}
			h.Add(f)
			netdev(h, f.Path, "eth0", nil)
			test.change(h, f)
			if devices := h.Discover(nic.Family{}); len(devices) != 1 || nic.IsAway(devices[0]) != test.want {
				t.Errorf("devices %+v, want one that is away: %v", devices, test.want)
			}
		})
	}
}

func TestACardOfAnotherDomainIsNamedByIt(t *testing.T) {
	h := host(t)
	f := devicetest.Function{Path: "/sys/devices/pci0001:00/0001:00:00.0", Vendor: 0x8086, Device: 0x10c9, Class: 0x020000, Group: 10, Driver: "igb"}
	h.Add(f)
	netdev(h, f.Path, "eth0", nil)
	if devices := h.Discover(nic.Family{}); len(devices) != 1 || devices[0].Name != "nic-0001-00-00-0" || devices[0].Root != "pci0001:00" {
		t.Errorf("devices %+v", devices)
	}
}

func TestACardBoundToVFIOIsHandedOver(t *testing.T) {
	h := devicetest.New(t) // Without proc: what is bound to vfio has no interface to ask about.
	f := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:05.0", Vendor: 0x8086, Device: 0x10c9, Class: 0x020000, Group: 10, Driver: "vfio-pci"}
	h.Add(f)
	check(t, []device.Device{{
		Name: "nic-0000-00-05-0-vfio", Family: "nic", Personality: device.VFIO, Function: device.Single,
		Address: "0000:00:05.0", Root: "pci0000:00", Driver: "vfio-pci",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x8086"), "deviceID": device.Text("0x10c9"), "pciClass": device.Text("0x020000"),
			"iommuGroup": device.Number(10), "iommuGroupSize": device.Number(1),
		},
		Use: device.Use{Owner: "0000:00:05.0"},
		Nodes: []device.Node{
			{Path: "/dev/vfio/10", Major: 243, Minor: 10, Role: device.VFIOGroup},
			{Path: "/dev/vfio/vfio", Major: 10, Minor: 196, Role: device.VFIOGroup},
		},
	}}, h.Discover(nic.Family{}))
}

func TestACardThatTheHostUsesIsNotPublished(t *testing.T) {
	devices := plainDevices() // two virtual functions and their physical one
	for name, test := range map[string]struct {
		change func(h *devicetest.Host, pf devicetest.Function, vfs [2]devicetest.Function)
		want   []device.Device
	}{
		"the physical function has the default route": {func(h *devicetest.Host, _ devicetest.Function, _ [2]devicetest.Function) {
			h.File("/proc/self/net/route", heading+"\neth0"+uplink)
		}, devices[:2]},
		"a virtual function has the default route": {func(h *devicetest.Host, _ devicetest.Function, _ [2]devicetest.Function) {
			h.File("/proc/self/net/route", heading+"\neth1"+uplink)
		}, devices[1:2]},
		"the physical function is in a bond": {func(h *devicetest.Host, pf devicetest.Function, _ [2]devicetest.Function) {
			h.Link(pf.Path+"/net/eth0/master", "/sys/devices/virtual/net/bond0")
		}, devices[:2]},
		"a port that stands for a virtual function is in a bridge": {func(h *devicetest.Host, pf devicetest.Function, _ [2]devicetest.Function) {
			netdev(h, pf.Path, "eth0_0", map[string]string{"phys_port_name": "pf0vf0", "phys_switch_id": "01"})
			h.Link(pf.Path+"/net/eth0_0/master", "/sys/devices/virtual/net/ovs-system")
		}, devices[:2]},
		"another card has the default route": {func(h *devicetest.Host, _ devicetest.Function, _ [2]devicetest.Function) {
			h.File("/proc/self/net/route", heading+"\neth2"+uplink)
		}, devices},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			pf, vfs := plainCard(h)
			test.change(h, pf, vfs)
			check(t, test.want, h.Discover(nic.Family{}))
		})
	}
}

func TestAnInterfaceOfABusBelowTheFunctionIsTheFunctions(t *testing.T) {
	for name, test := range map[string]struct {
		routes string
		want   int
	}{
		"it is idle":                {heading, 1},
		"it has the default routes": {heading + "\neth0" + uplink, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			f := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:03.0", Vendor: 0x1af4, Device: 0x1041, Class: 0x020000, Group: -1, Driver: "virtio-pci"}
			h.Add(f)
			netdev(h, f.Path+"/virtio0", "eth0", nil)
			h.File("/proc/self/net/route", test.routes)
			devices := h.Discover(nic.Family{})
			if len(devices) != test.want {
				t.Fatalf("devices %+v, want %d", devices, test.want)
			}
			if len(devices) == 1 && (devices[0].Attributes["ifName"] != device.Text("eth0") || len(devices[0].Taints) > 0) {
				t.Errorf("device %+v, want one of eth0 without taints", devices[0])
			}
		})
	}
}

func TestWithoutRoutesOnlyCardsWithoutAnInterfaceArePublished(t *testing.T) {
	h := host(t)
	_, vfs := plainCard(h)
	h.Remove("/proc/self")
	devices, problems := device.Discover(h.Open(), nic.Family{})
	if len(devices) != 1 || devices[0].Address != vfs[1].Address() {
		t.Errorf("devices %+v, want the virtual function without a driver", devices)
	}
	if len(problems) != 2 || !strings.Contains(problems[0].Error(), "0000:02:00.0 is left out") || !strings.Contains(problems[0].Error(), "proc/net/route") {
		t.Errorf("problems %v, want one for each card with an interface", problems)
	}
}

func TestTheStateOfTheInterfaceIsATaint(t *testing.T) {
	for name, test := range map[string]struct {
		family nic.Family
		state  string
		err    error
		want   []device.Taint
	}{
		"up":                                   {nic.Family{TaintDown: true}, "up", nil, nil},
		"unknown, as some drivers do not tell": {nic.Family{TaintDown: true}, "unknown", nil, nil},
		"down, which is no fault":              {nic.Family{}, "down", nil, nil},
		"down, which is a fault":               {nic.Family{TaintDown: true}, "down", nil, []device.Taint{{Reason: device.Unhealthy, Value: "link-down"}}},
		"a lower one is down":                  {nic.Family{TaintDown: true}, "lowerlayerdown", nil, []device.Taint{{Reason: device.Unhealthy, Value: "link-down"}}},
		"in reset":                             {nic.Family{}, "up", syscall.ENODEV, []device.Taint{{Reason: device.InReset}}},
		"in reset, by another error":           {nic.Family{}, "up", syscall.EIO, []device.Taint{{Reason: device.InReset}}},
		"not known":                            {nic.Family{TaintDown: true}, "up", syscall.EINVAL, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t)
			f := rdmaCard(h)
			h.File(f.Path+"/net/ens1f0np0/operstate", test.state)
			host := h.Open()
			if test.err != nil {
				host = h.OpenFailing("/operstate", test.err)
			}
			want := rdmaDevice()
			want.Taints = test.want
			devices, problems := device.Discover(host, test.family)
			check(t, []device.Device{want}, devices)
			if len(problems) > 0 {
				t.Error(problems)
			}
		})
	}
}

func TestNoFaultInAFilePublishesAnUplink(t *testing.T) {
	h := host(t)
	pf, _ := plainCard(h)
	h.File("/proc/self/net/route", heading+"\neth0"+uplink)
	for _, dir := range []string{pf.Path, "/proc/self"} {
		for file, content := range h.Contents(dir) {
			for fault, cause := range devicetest.Faults {
				cause(h, file)
				devices, _ := device.Discover(h.Open(), nic.Family{})
				if slices.ContainsFunc(devices, func(d device.Device) bool { return d.Address == pf.Address() }) {
					t.Errorf("the uplink is published when %s is %s", file, fault)
				}
			}
			h.File(file, content)
		}
	}
}

func TestOtherFunctionsAreNoCards(t *testing.T) {
	h := host(t)
	h.Add(
		devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:05.0", Vendor: 0x8086, Device: 0x4940, Class: 0x0b4000, Group: 10, Driver: "4xxx"},
		devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:06.0", Vendor: 0x15b3, Device: 0xc2d3, Class: 0x080100, Group: 11},
	)
	if devices := h.Discover(nic.Family{}); len(devices) != 0 {
		t.Errorf("devices %+v", devices)
	}
}
