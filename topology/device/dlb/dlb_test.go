package dlb_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/dlb"
)

// balancer is a physical function with one virtual function, in a PCI domain.
func balancer(h *devicetest.Host, domain, first int) devicetest.Function {
	base := fmt.Sprintf("/sys/devices/pci%04x:6d/%04x:6d:00.", domain, domain)
	pf := devicetest.Function{Path: base + "0", Vendor: 0x8086, Device: 0x2710, Class: 0x0b4000, Group: 140 + first, Driver: "dlb2"}
	vf := devicetest.Function{Path: base + "1", Vendor: 0x8086, Device: 0x2711, Class: 0x0b4000, Group: 141 + first, Driver: "dlb2"}
	h.Add(pf, vf)
	h.Virtual(pf, vf, 0)
	h.Files(pf.Path, map[string]string{
		"dev_id": fmt.Sprint(first), "sriov_totalvfs": "16", "sriov_numvfs": "1",
		"total_resources/num_sched_domains": "32", "total_resources/num_ldb_queues": "32",
		"total_resources/num_ldb_ports": "64", "total_resources/num_dir_ports": "64",
		"total_resources/num_ldb_credits": "8192", "total_resources/num_dir_credits": "2048",
		"vf0_resources/num_sched_domains": "16", "vf0_resources/num_dir_ports": "0", "vf0_resources/locked": "1",
	})
	h.File(vf.Path+"/dev_id", fmt.Sprint(first+1))
	h.File(vf.Path+"/total_resources/num_sched_domains", "7")
	for i, f := range []devicetest.Function{pf, vf} {
		node := fmt.Sprintf("dlb%d", first+i)
		h.Char(f.Path, "dlb2/"+node, fmt.Sprintf("507:%d", first+i), node)
	}
	return pf
}

func TestABalancerIsUsedThroughItsNode(t *testing.T) {
	h := devicetest.New(t)
	balancer(h, 0, 0)
	want := []device.Device{{
		Name: "dlb-0000-6d-00-1", Family: "dlb", Personality: device.Kernel, Function: device.Virtual,
		Address: "0000:6d:00.1", NUMANode: 0, Root: "pci0000:6d", Driver: "dlb2",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x8086"), "deviceID": device.Text("0x2711"), "pciClass": device.Text("0x0b4000"),
			"model": device.Text("DLB 2.0"), "devID": device.Number(1),
			"pfBusID": device.Text("0000:6d:00.0"), "vfIndex": device.Number(0),
		},
		Capacities: []device.Capacity{{Name: "domains", Amount: 16}, {Name: "dirPorts"}},
		Use:        device.Use{Owner: "0000:6d:00.0", Part: "vf0"},
		Nodes:      []device.Node{{Path: "/dev/dlb1", Major: 507, Minor: 1}},
	}, {
		Name: "dlb-0000-6d-00-0", Family: "dlb", Personality: device.Kernel, Function: device.Physical,
		Address: "0000:6d:00.0", NUMANode: 0, Root: "pci0000:6d", Driver: "dlb2",
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x8086"), "deviceID": device.Text("0x2710"), "pciClass": device.Text("0x0b4000"),
			"model": device.Text("DLB 2.0"), "devID": device.Number(0),
		},
		Capacities: []device.Capacity{
			{Name: "domains", Amount: 32}, {Name: "ldbQueues", Amount: 32}, {Name: "ldbPorts", Amount: 64},
			{Name: "dirPorts", Amount: 64}, {Name: "ldbCredits", Amount: 8192}, {Name: "dirCredits", Amount: 2048},
		},
		Use:    device.Use{Owner: "0000:6d:00.0"},
		Taints: []device.Taint{{Reason: device.ControlOnly}},
		Nodes:  []device.Node{{Path: "/dev/dlb0", Major: 507}},
	}}
	if diff := cmp.Diff(want, h.Discover(dlb.Family{}), cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

func TestABalancerOfAnotherDomainHasItsOwnNode(t *testing.T) {
	h := devicetest.New(t)
	balancer(h, 0, 0)
	balancer(h, 1, 2)
	want := map[string]string{
		"dlb-0000-6d-00-0": "/dev/dlb0", "dlb-0000-6d-00-1": "/dev/dlb1",
		"dlb-0001-6d-00-0": "/dev/dlb2", "dlb-0001-6d-00-1": "/dev/dlb3",
	}
	got := map[string]string{}
	for _, d := range h.Discover(dlb.Family{}) {
		for _, n := range d.Nodes {
			got[d.Name] += n.Path
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("nodes -want +got:\n%s", diff)
	}
}

func TestABalancerThatCannotBeUsedIsTainted(t *testing.T) {
	for name, test := range map[string]struct {
		driver string
		change func(*devicetest.Host, devicetest.Function)
		want   []device.Taint
	}{
		"in order":        {"dlb2", func(*devicetest.Host, devicetest.Function) {}, nil},
		"unbound":         {"", func(*devicetest.Host, devicetest.Function) {}, []device.Taint{{Reason: device.DriverLost}}},
		"bound to vfio":   {"vfio-pci", func(*devicetest.Host, devicetest.Function) {}, []device.Taint{{Reason: device.DriverLost, Value: "other-driver"}}},
		"bound to others": {"a driver_", func(*devicetest.Host, devicetest.Function) {}, []device.Taint{{Reason: device.DriverLost, Value: "other-driver"}}},
		"without a node":  {"dlb2", func(h *devicetest.Host, f devicetest.Function) { h.Remove(f.Path + "/dlb2") }, []device.Taint{{Reason: device.DriverLost, Value: "no-node"}}},
		"with a garbled node": {
			"dlb2", func(h *devicetest.Host, f devicetest.Function) { h.File(f.Path+"/dlb2/dlb4/dev", "a:b") },
			[]device.Taint{{Reason: device.DriverLost, Value: "no-node"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			f := devicetest.Function{Path: "/sys/devices/pci0000:6d/0000:6d:00.0", Vendor: 0x8086, Device: 0x2714, Class: 0x0b4000, Node: -1, Group: 140, Driver: test.driver}
			h.Add(f)
			h.Char(f.Path, "dlb2/dlb4", "507:4", "dlb4")
			test.change(h, f)
			devices := h.Discover(dlb.Family{})
			if len(devices) != 1 || !cmp.Equal(test.want, devices[0].Taints) {
				t.Fatalf("devices %+v, want one with taints %v", devices, test.want)
			}
			if d := devices[0]; d.Name != "dlb-0000-6d-00-0" || d.Driver != "dlb2" || d.Function != device.Single || d.NUMANode != topology.None {
				t.Errorf("device %+v", d)
			}
		})
	}
}

func TestTheNumberOfABalancerIsThatOfItsNode(t *testing.T) {
	for name, test := range map[string]struct {
		devID    string // no file if empty
		children []string
		want     int64 // none if negative
		wantNode string
	}{
		"both":                            {"3", []string{"dlb3"}, 3, "/dev/dlb3"},
		"no dev_id":                       {"", []string{"dlb3"}, 3, "/dev/dlb3"},
		"a garbled dev_id":                {"x", []string{"dlb3"}, 3, "/dev/dlb3"},
		"a dev_id of -1":                  {"-1", nil, -1, ""},
		"dev_id and no node":              {"3", nil, 3, ""},
		"a node of another number":        {"5", []string{"dlb3"}, 3, "/dev/dlb3"},
		"several nodes":                   {"4", []string{"dlb3", "dlb4"}, 4, "/dev/dlb4"},
		"several nodes and no dev_id":     {"", []string{"dlb3", "dlb4"}, -1, ""},
		"no number":                       {"", []string{"dlb", "dlbx", "dlb03"}, -1, ""},
		"a number larger than any kernel": {"", []string{"dlb99999999999999999999"}, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			f := devicetest.Function{Path: "/sys/devices/pci0000:6d/0000:6d:00.0", Vendor: 0x8086, Device: 0x2710, Class: 0x0b4000, Group: 140, Driver: "dlb2"}
			h.Add(f)
			for _, child := range test.children {
				h.Char(f.Path, "dlb2/"+child, "507:3", child)
			}
			if test.devID != "" {
				h.File(f.Path+"/dev_id", test.devID)
			}
			devices := h.Discover(dlb.Family{})
			if len(devices) != 1 {
				t.Fatalf("devices %+v, want one", devices)
			}
			node := ""
			for _, n := range devices[0].Nodes {
				node += n.Path
			}
			id, ok := devices[0].Attributes["devID"].AsNumber()
			if node != test.wantNode || ok != (test.want >= 0) || ok && id != test.want {
				t.Errorf("number %d (%v) and node %q, want %d and %q", id, ok, node, test.want, test.wantNode)
			}
		})
	}
}

func TestAVirtualFunctionInAVirtualMachineTellsItsOwnResources(t *testing.T) {
	h := devicetest.New(t)
	f := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:05.0", Vendor: 0x8086, Device: 0x2715, Class: 0x0b4000, Group: -1, Driver: "dlb2"}
	h.Add(f)
	h.File(f.Path+"/total_resources/num_sched_domains", "8")
	h.Char(f.Path, "dlb2/dlb0", "507:0", "dlb0")
	devices := h.Discover(dlb.Family{})
	if len(devices) != 1 {
		t.Fatalf("devices %+v, want one", devices)
	}
	d := devices[0]
	if d.Function != device.Virtual || d.Use != (device.Use{Owner: "0000:00:05.0"}) || !cmp.Equal(d.Capacities, []device.Capacity{{Name: "domains", Amount: 8}}) {
		t.Errorf("device %+v, want a virtual function of 8 domains, all of it", d)
	}
}

func TestGarbageCostsAnAttributeOrACapacity(t *testing.T) {
	h := devicetest.New(t)
	pf := balancer(h, 0, 0)
	for file, good := range map[string]string{
		"vendor": "0x8086", "device": "0x2710", "class": "0x0b4000", "numa_node": "0", "dev_id": "0", "sriov_totalvfs": "16",
		"total_resources/num_sched_domains": "32", "total_resources/num_dir_credits": "2048", "vf0_resources/num_sched_domains": "16",
		"dlb2/dlb0/dev": "507:0", "dlb2/dlb0/uevent": "DEVNAME=dlb0",
	} {
		for _, garbage := range []string{"", "\x00\xff\xfe", "18446744073709551615", "DEVNAME=../../etc/passwd"} {
			h.File(pf.Path+"/"+file, garbage)
			want := []string{"dlb-0000-6d-00-1", "dlb-0000-6d-00-0"}
			if file == "vendor" || file == "device" {
				want = want[:1] // It is not known what the function is.
			}
			var got []string
			for _, d := range h.Discover(dlb.Family{}) {
				got = append(got, d.Name)
				for _, c := range d.Capacities {
					if c.Amount > 8192 {
						t.Errorf("with %.20q in %s: capacity %+v", garbage, file, c)
					}
				}
			}
			if !cmp.Equal(want, got) {
				t.Errorf("with %.20q in %s: devices %v, want %v", garbage, file, got, want)
			}
		}
		h.File(pf.Path+"/"+file, good)
	}
}

func TestOthersOfTheSameClassAreNoBalancers(t *testing.T) {
	h := devicetest.New(t)
	h.Add(
		devicetest.Function{Path: "/sys/devices/pci0000:6b/0000:6b:00.0", Vendor: 0x8086, Device: 0x4940, Class: 0x0b4000, Group: 9, Driver: "4xxx"},
		devicetest.Function{Path: "/sys/devices/pci0000:6b/0000:6b:01.0", Vendor: 0x1111, Device: 0x2710, Class: 0x0b4000, Group: 10, Driver: "dlb2"},
	)
	if devices := h.Discover(dlb.Family{}); len(devices) != 0 {
		t.Errorf("devices %+v", devices)
	}
}
