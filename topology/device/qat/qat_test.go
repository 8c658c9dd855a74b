package qat_test

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/qat"
)

const root = "/sys/devices/pci0000:6b"

// fourthGeneration is a physical function with its files.
func fourthGeneration(h *devicetest.Host, path string, group int) devicetest.Function {
	pf := devicetest.Function{Path: path, Vendor: 0x8086, Device: 0x4940, Class: 0x0b4000, Group: group, Driver: "4xxx"}
	h.Add(pf)
	h.Files(pf.Path, map[string]string{
		"sriov_totalvfs": "16", "sriov_numvfs": "0", "sriov_vf_device": "4941", "sriov_drivers_autoprobe": "0",
		"qat/state": "up", "qat/cfg_services": "sym;asym", "qat/num_rps": "64", "qat/auto_reset": "off", "qat/pm_idle_enabled": "1",
		"qat_ras/errors_correctable": "0", "qat_ras/errors_nonfatal": "0", "qat_ras/errors_fatal": "0",
	})
	h.File(debug(pf)+"/heartbeat/status", "0\n\x00")
	return pf
}

func debug(pf devicetest.Function) string { return "/sys/kernel/debug/qat_4xxx_" + pf.Address() }

// virtual makes the function's two first virtual functions: one that is bound to vfio,
// and one without a driver.
func virtual(h *devicetest.Host, pf devicetest.Function) {
	base := strings.TrimSuffix(pf.Path, "0")
	vfio := devicetest.Function{Path: base + "1", Vendor: 0x8086, Device: 0x4941, Class: 0x0b4000, Group: pf.Group + 10, Driver: "vfio-pci"}
	unbound := devicetest.Function{Path: base + "2", Vendor: 0x8086, Device: 0x4941, Class: 0x0b4000, Group: pf.Group + 11}
	h.Add(vfio, unbound)
	h.Virtual(pf, vfio, 0)
	h.Virtual(pf, unbound, 1)
	h.File(pf.Path+"/sriov_numvfs", "16")
}

func attributes(deviceID string, others map[string]device.Value) map[string]device.Value {
	all := map[string]device.Value{
		"vendorID": device.Text("0x8086"), "deviceID": device.Text(deviceID), "pciClass": device.Text("0x0b4000"),
		"model": device.Text("QAT 4xxx"), "generation": device.Number(4),
		"services": device.Text("asym;sym"), "servicesKnown": device.Flag(true),
		"sym": device.Flag(true), "asym": device.Flag(true), "dc": device.Flag(false), "dcc": device.Flag(false), "decomp": device.Flag(false),
	}
	maps.Copy(all, others)
	return all
}

func TestVirtualFunctionsAreGivenAwayAndThePhysicalOneIsListed(t *testing.T) {
	h := devicetest.New(t)
	virtual(h, fourthGeneration(h, root+"/0000:6b:00.0", 120))
	want := []device.Device{{
		Name: "qat-0000-6b-00-0", Family: "qat", Personality: device.Kernel, Function: device.Physical,
		Address: "0000:6b:00.0", NUMANode: 0, Root: "pci0000:6b", Driver: "4xxx",
		Attributes: attributes("0x4940", nil),
		Use:        device.Use{Owner: "0000:6b:00.0"},
		Taints:     []device.Taint{{Reason: device.ControlOnly}},
	}, {
		Name: "qat-0000-6b-00-1-vfio", Family: "qat", Personality: device.VFIO, Function: device.Virtual,
		Address: "0000:6b:00.1", NUMANode: 0, Root: "pci0000:6b", Driver: "vfio-pci",
		Attributes: attributes("0x4941", map[string]device.Value{
			"pfBusID": device.Text("0000:6b:00.0"), "vfIndex": device.Number(0),
			"iommuGroup": device.Number(130), "iommuGroupSize": device.Number(1),
		}),
		Use: device.Use{Owner: "0000:6b:00.0", Part: "vf0"},
		Nodes: []device.Node{
			{Path: "/dev/vfio/130", Major: 243, Minor: 130, Role: device.VFIOGroup},
			{Path: "/dev/vfio/vfio", Major: 10, Minor: 196, Role: device.VFIOGroup},
		},
		Variables: []device.Variable{{Name: "QAT", Value: "0000:6b:00.1", Numbered: true, Role: device.LegacyEnv}},
	}, {
		Name: "qat-0000-6b-00-2-vfio", Family: "qat", Personality: device.VFIO, Function: device.Virtual,
		Address: "0000:6b:00.2", NUMANode: 0, Root: "pci0000:6b", Driver: "vfio-pci",
		Attributes: attributes("0x4941", map[string]device.Value{
			"pfBusID": device.Text("0000:6b:00.0"), "vfIndex": device.Number(1),
		}),
		Use:    device.Use{Owner: "0000:6b:00.0", Part: "vf1"},
		Taints: []device.Taint{{Reason: device.DriverLost}},
	}}
	if diff := cmp.Diff(want, h.Discover(qat.Family{}), cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

func TestServicesAreASet(t *testing.T) {
	const known, unknown = true, false
	for name, test := range map[string]struct {
		file, config string // none if empty
		want         string
		wantKnown    bool
		wantFlags    []string
		wantProblem  bool
	}{
		"in the other order":                        {"sym;asym", "", "asym;sym", known, []string{"sym", "asym"}, false},
		"one":                                       {"dcc", "", "dcc", known, []string{"dcc"}, false},
		"three":                                     {"sym;decomp;dc", "", "dc;decomp;sym", known, []string{"sym", "dc", "decomp"}, false},
		"twice the same":                            {"dc;sym;dc", "", "dc;sym", known, []string{"dc", "sym"}, false},
		"a word of a newer driver":                  {"sym;quantum-9", "", "quantum-9;sym", known, []string{"sym"}, false},
		"spaces and an empty word":                  {" dc ; ;sym;", "", "dc;sym", known, []string{"dc", "sym"}, false},
		"nothing":                                   {"\t", "", "", unknown, nil, false},
		"garbage":                                   {"sym;\x00\xff!", "", "", unknown, nil, true},
		"more than an attribute holds":              {strings.Repeat("abcdefgh;", 3) + strings.Repeat("z", 64), "", "", unknown, nil, true},
		"only in the configuration":                 {"", "[KERNEL]\nNumberCyInstances = 2\n[GENERAL]\nServicesEnabled = dc;sym\nHeartbeatTimer = 500", "dc;sym", known, []string{"dc", "sym"}, false},
		"the file before the configuration":         {"asym", "ServicesEnabled = dc", "asym", known, []string{"asym"}, false},
		"garbage is not made up for":                {"!", "ServicesEnabled = dc", "", unknown, nil, true},
		"a configuration that does not say":         {"", "[GENERAL]\nServicesEnabledToo = dc\nServicesEnabled", "", unknown, nil, false},
		"a driver that says nothing (generation 2)": {"", "", "", unknown, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			pf := fourthGeneration(h, root+"/0000:6b:00.0", 120)
			virtual(h, pf)
			h.File(pf.Path+"/qat/cfg_services", test.file)
			if test.file == "" {
				h.Remove(pf.Path + "/qat/cfg_services")
			}
			if test.config != "" {
				h.File(debug(pf)+"/dev_cfg", test.config)
			}
			devices, problems := device.Discover(h.Open(), qat.Family{})
			if len(problems) > 1 || (len(problems) == 1) != test.wantProblem {
				t.Errorf("problems %v, want one: %v", problems, test.wantProblem)
			}
			if len(devices) != 3 {
				t.Fatalf("%d devices, want 3", len(devices))
			}
			for _, d := range devices {
				want := map[string]device.Value{"services": device.Text(test.want), "servicesKnown": device.Flag(test.wantKnown)}
				for _, word := range []string{"sym", "asym", "dc", "dcc", "decomp"} {
					want[word] = device.Flag(slices.Contains(test.wantFlags, word))
				}
				for attribute, v := range want {
					if got, ok := d.Attributes[attribute]; got != v || !ok {
						t.Errorf("%s of %s is %v, want %v", attribute, d.Name, got, v)
					}
				}
			}
		})
	}
}

func TestThePhysicalFunctionsHealthIsThatOfAllItsVirtualOnes(t *testing.T) {
	for name, test := range map[string]struct {
		// change is done to one of two accelerators.
		change func(*devicetest.Host, devicetest.Function)
		want   []device.Taint
	}{
		"well": {func(*devicetest.Host, devicetest.Function) {}, nil},
		"down": {
			func(h *devicetest.Host, pf devicetest.Function) { h.File(pf.Path+"/qat/state", "down") },
			[]device.Taint{{Reason: device.Unhealthy, Value: "state-down"}},
		},
		"a state of a newer driver": {
			func(h *devicetest.Host, pf devicetest.Function) { h.File(pf.Path+"/qat/state", "a b/c") },
			[]device.Taint{{Reason: device.Unhealthy, Value: "state-unknown"}},
		},
		"no state": {
			func(h *devicetest.Host, pf devicetest.Function) { h.Remove(pf.Path + "/qat/state") }, nil,
		},
		"fatal errors": {
			func(h *devicetest.Host, pf devicetest.Function) { h.File(pf.Path+"/qat_ras/errors_fatal", "2") },
			[]device.Taint{{Reason: device.Unhealthy, Value: "fatal-errors"}},
		},
		"other errors": {
			func(h *devicetest.Host, pf devicetest.Function) { h.File(pf.Path+"/qat_ras/errors_nonfatal", "2") }, nil,
		},
		"no heartbeat": {
			func(h *devicetest.Host, pf devicetest.Function) { h.File(debug(pf)+"/heartbeat/status", "-1\n\x00") },
			[]device.Taint{{Reason: device.Unhealthy, Value: "heartbeat"}},
		},
		"no heartbeat, again": {
			func(h *devicetest.Host, pf devicetest.Function) {
				h.File(debug(pf)+"/heartbeat/status", "-1")
				h.File(debug(pf)+"/heartbeat/queries_failed", "3")
			},
			[]device.Taint{{Reason: device.Unhealthy, Value: "heartbeat"}},
		},
		"a heartbeat that somebody has just asked for": {
			func(h *devicetest.Host, pf devicetest.Function) {
				h.File(debug(pf)+"/heartbeat/status", "-1")
				h.File(debug(pf)+"/heartbeat/queries_failed", "0")
			}, nil,
		},
		"a heartbeat that came back": {
			func(h *devicetest.Host, pf devicetest.Function) {
				h.File(debug(pf)+"/heartbeat/queries_failed", "3")
			}, nil,
		},
		"no debugfs": {
			func(h *devicetest.Host, _ devicetest.Function) { h.Remove("/sys/kernel/debug") }, nil,
		},
		"several": {
			func(h *devicetest.Host, pf devicetest.Function) {
				h.File(pf.Path+"/qat/state", "down")
				h.File(debug(pf)+"/heartbeat/status", "-1")
			},
			[]device.Taint{{Reason: device.Unhealthy, Value: "state-down"}},
		},
		"driver gone": {
			func(h *devicetest.Host, pf devicetest.Function) { h.Remove(pf.Path + "/driver") },
			[]device.Taint{{Reason: device.DriverLost, Value: "pf"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			h.Add(devicetest.Bridge(root+"/0000:6b:01.0", 0))
			changed := fourthGeneration(h, root+"/0000:6b:01.0/0000:6c:00.0", 120)
			other := fourthGeneration(h, "/sys/devices/pci0001:6b/0001:6c:00.0", 140)
			virtual(h, changed)
			virtual(h, other)
			test.change(h, changed)
			seen := 0
			for _, d := range h.Discover(qat.Family{}) {
				if d.Personality != device.VFIO || len(d.Nodes) == 0 {
					continue
				}
				seen++
				want := test.want
				if strings.HasPrefix(d.Address, "0001:") {
					want = nil
					if known := d.Attributes["servicesKnown"]; known != device.Flag(true) {
						t.Errorf("servicesKnown of %s is %v", d.Name, known)
					}
				}
				if !cmp.Equal(want, d.Taints) {
					t.Errorf("taints of %s are %v, want %v", d.Name, d.Taints, want)
				}
			}
			if seen != 2 {
				t.Errorf("%d virtual functions, want one of each", seen)
			}
		})
	}
}

// watched is a host that is asked before a file is opened.
type watched struct {
	fs.ReadLinkFS
	open func(name string) error
}

func (w watched) Open(name string) (fs.File, error) {
	if err := w.open(name); err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return w.ReadLinkFS.Open(name)
}

// watch discovers the devices, and has open called with each file that is opened.
func watch(t *testing.T, h *devicetest.Host, open func(name string) error) []device.Device {
	t.Helper()
	dir, err := topology.OpenRoot(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	devices, problems := device.Discover(device.NewHost(watched{dir, open}, h.Open().Machine), qat.Family{})
	if len(devices) != 3 || len(problems) != 0 {
		t.Fatalf("devices %+v and problems %v, want 3 and none", devices, problems)
	}
	return devices
}

func TestAnAcceleratorInResetIsKept(t *testing.T) {
	for err, want := range map[syscall.Errno][]device.Taint{
		syscall.ENODEV: {{Reason: device.InReset}},
		syscall.EIO:    {{Reason: device.InReset}},
		syscall.EACCES: nil,
	} {
		t.Run(err.Error(), func(t *testing.T) {
			h := devicetest.New(t)
			virtual(h, fourthGeneration(h, root+"/0000:6b:00.0", 120))
			devices := watch(t, h, func(name string) error {
				if strings.HasSuffix(name, "/qat/state") {
					return err
				}
				return nil
			})
			if !cmp.Equal(want, devices[1].Taints) {
				t.Errorf("taints of %s are %v, want %v", devices[1].Name, devices[1].Taints, want)
			}
		})
	}
}

func TestTheHeartbeatIsAskedForOnce(t *testing.T) {
	h := devicetest.New(t)
	virtual(h, fourthGeneration(h, root+"/0000:6b:00.0", 120))
	asked := 0
	watch(t, h, func(name string) error {
		if strings.HasSuffix(name, "/heartbeat/status") {
			asked++
		}
		return nil
	})
	if asked != 1 {
		t.Errorf("asked %d times: the driver fails the second one", asked)
	}
}

func TestAFunctionIsWhatItsDriverMakesOfIt(t *testing.T) {
	vf := devicetest.Function{Path: root + "/0000:6b:00.1", Vendor: 0x8086, Device: 0x37c9, Class: 0x0b4000, Node: -1, Group: 30}
	pf := devicetest.Function{Path: root + "/0000:6b:00.0", Vendor: 0x8086, Device: 0x37c8, Class: 0x0b4000, Node: -1, Group: 20}
	lost := func(value string) []device.Taint { return []device.Taint{{Reason: device.DriverLost, Value: value}} }
	control := device.Taint{Reason: device.ControlOnly}
	for name, test := range map[string]struct {
		function     devicetest.Function
		driver       string
		wantName     string
		wantDriver   string
		wantFunction device.Function
		want         []device.Taint
	}{
		"a virtual function of the kernel's":         {vf, "c6xxvf", "qat-0000-6b-00-1", "c6xxvf", device.Virtual, nil},
		"a virtual function for others":              {vf, "vfio-pci", "qat-0000-6b-00-1-vfio", "vfio-pci", device.Virtual, nil},
		"a virtual function with vfio but no node":   {vf, "qat_vfio_pci", "qat-0000-6b-00-1-vfio", "qat_vfio_pci", device.Virtual, lost("no-node")},
		"a virtual function that nobody drives":      {vf, "", "qat-0000-6b-00-1-vfio", "vfio-pci", device.Virtual, lost("")},
		"a virtual function with somebody's driver":  {vf, "igb_uio", "qat-0000-6b-00-1-vfio", "vfio-pci", device.Virtual, lost("other-driver")},
		"a virtual function of another generation's": {vf, "c3xxxvf", "qat-0000-6b-00-1-vfio", "vfio-pci", device.Virtual, lost("other-driver")},
		"a physical function":                        {pf, "c6xx", "qat-0000-6b-00-0", "c6xx", device.Single, []device.Taint{control}},
		"a physical function that nobody drives":     {pf, "", "qat-0000-6b-00-0", "c6xx", device.Single, []device.Taint{control, lost("")[0]}},
		"a physical function with an odd driver":     {pf, "a driver_", "qat-0000-6b-00-0", "c6xx", device.Single, []device.Taint{control, lost("other-driver")[0]}},
		"a physical function for others":             {pf, "vfio-pci", "qat-0000-6b-00-0-vfio", "vfio-pci", device.Single, []device.Taint{control}},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			test.function.Driver = test.driver
			h.Add(test.function)
			devices := h.Discover(qat.Family{})
			if len(devices) != 1 {
				t.Fatalf("devices %+v, want one", devices)
			}
			d := devices[0]
			if d.Name != test.wantName || d.Driver != test.wantDriver || d.Function != test.wantFunction || !cmp.Equal(test.want, d.Taints) {
				t.Errorf("%s with driver %s, function %s, taints %v; want %+v", d.Name, d.Driver, d.Function, d.Taints, test)
			}
			// No virtual function of this host has a physical one, as in a virtual machine.
			if d.Use != (device.Use{Owner: d.Address}) || d.NUMANode != topology.None {
				t.Errorf("use %+v on node %d, want all of %s on none", d.Use, d.NUMANode, d.Address)
			}
			if known, ok := d.Attributes["servicesKnown"]; known != device.Flag(false) || !ok {
				t.Errorf("servicesKnown is %v", known)
			}
		})
	}
}

func TestAPhysicalFunctionWithoutVirtualOnesIsForControlOnly(t *testing.T) {
	h := devicetest.New(t)
	fourthGeneration(h, root+"/0000:6b:00.0", 120)
	devices := h.Discover(qat.Family{})
	if len(devices) != 1 || !cmp.Equal(devices[0].Taints, []device.Taint{{Reason: device.ControlOnly}}) {
		t.Errorf("devices %+v, want one for control only", devices)
	}
}

func TestModelsHaveTheirGenerationAndDriver(t *testing.T) {
	for _, test := range []struct {
		pf, vf     uint16
		driver     string
		generation int64
	}{
		{0x0434, 0x0442, "dh895xcc", 2},
		{0x0435, 0x0443, "dh895xcc", 2},
		{0x37c8, 0x37c9, "c6xx", 2},
		{0x19e2, 0x19e3, "c3xxx", 2},
		{0x6f54, 0x6f55, "d15xx", 2},
		{0x18a0, 0x18a1, "c4xxx", 3},
		{0x4940, 0x4941, "4xxx", 4},
		{0x4942, 0x4943, "4xxx", 4},
		{0x4944, 0x4945, "4xxx", 4},
		{0x4946, 0x4947, "420xx", 4},
		{0x4948, 0x4949, "6xxx", 6},
	} {
		t.Run(fmt.Sprintf("%04x", test.pf), func(t *testing.T) {
			h := devicetest.New(t)
			pf := devicetest.Function{Path: root + "/0000:6b:00.0", Vendor: 0x8086, Device: test.pf, Class: 0x0b4000, Group: -1, Driver: test.driver}
			vf := devicetest.Function{Path: root + "/0000:6b:00.1", Vendor: 0x8086, Device: test.vf, Class: 0x0b4000, Group: -1, Driver: test.driver + "vf"}
			h.Add(pf, vf)
			h.Virtual(pf, vf, 0)
			h.File(pf.Path+"/qat/cfg_services", "dc")
			devices := h.Discover(qat.Family{})
			if len(devices) != 2 {
				t.Fatalf("devices %+v, want two", devices)
			}
			// Parts come before wholes.
			if devices[0].Driver != test.driver+"vf" || len(devices[0].Taints) != 0 || devices[1].Driver != test.driver || len(devices[1].Taints) != 1 {
				t.Errorf("drivers %s %v and %s %v", devices[0].Driver, devices[0].Taints, devices[1].Driver, devices[1].Taints)
			}
			for _, d := range devices {
				if d.Attributes["generation"] != device.Number(test.generation) || d.Attributes["services"] != device.Text("dc") {
					t.Errorf("attributes of %s are %v", d.Name, d.Attributes)
				}
			}
		})
	}
}

func TestGarbageCostsNoOtherDevice(t *testing.T) {
	h := devicetest.New(t)
	pf := fourthGeneration(h, root+"/0000:6b:00.0", 120)
	virtual(h, pf)
	for file, good := range map[string]string{
		pf.Path + "/vendor":               "0x8086",
		pf.Path + "/device":               "0x4940",
		pf.Path + "/class":                "0x0b4000",
		pf.Path + "/numa_node":            "0",
		pf.Path + "/sriov_totalvfs":       "16",
		pf.Path + "/sriov_numvfs":         "16",
		pf.Path + "/qat/state":            "up",
		pf.Path + "/qat/cfg_services":     "sym;asym",
		pf.Path + "/qat_ras/errors_fatal": "0",
		debug(pf) + "/heartbeat/status":   "0",
		debug(pf) + "/dev_cfg":            "[GENERAL]",
	} {
		for _, garbage := range []string{"", "\x00\xff\xfe", "99999999999999999999", strings.Repeat("x;", 50000)} {
			h.File(file, garbage)
			want := []string{"qat-0000-6b-00-0", "qat-0000-6b-00-1-vfio", "qat-0000-6b-00-2-vfio"}
			if strings.HasSuffix(file, "/vendor") || strings.HasSuffix(file, "/device") {
				want = want[1:] // It is not known what the function is.
			}
			devices, _ := device.Discover(h.Open(), qat.Family{})
			var got []string
			for _, d := range devices {
				got = append(got, d.Name)
			}
			if !cmp.Equal(want, got) {
				t.Errorf("with %.20q in %s: devices %v, want %v", garbage, file, got, want)
			}
		}
		h.File(file, good)
	}
}

func TestOthersOfTheSameClassAreNoQAT(t *testing.T) {
	h := devicetest.New(t)
	h.Add(
		devicetest.Function{Path: root + "/0000:6b:00.0", Vendor: 0x8086, Device: 0x2710, Class: 0x0b4000, Group: 9, Driver: "dlb2"},
		devicetest.Function{Path: root + "/0000:6b:01.0", Vendor: 0x1111, Device: 0x4940, Class: 0x0b4000, Group: 10, Driver: "4xxx"},
	)
	if devices := h.Discover(qat.Family{}); len(devices) != 0 {
		t.Errorf("devices %+v", devices)
	}
}
