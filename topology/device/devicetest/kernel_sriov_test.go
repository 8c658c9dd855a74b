package devicetest_test

import (
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device/devicetest"
)

func TestVirtualFunctionsAppearAndVanish(t *testing.T) {
	k, gpu := graphics(t)
	before := k.Tree()
	numvfs := devices + gpu.Address() + "/sriov_numvfs"
	write(t, k, step{numvfs, "2", nil})
	vf := "/sys/devices/pci0000:37/0000:37:01.0/0000:3a:00.2"
	want(t, k, map[string]string{
		gpu.Path + "/sriov_numvfs": "2", gpu.Path + "/virtfn0": "-> ../0000:3a:00.1", gpu.Path + "/virtfn1": "-> ../0000:3a:00.2", gpu.Path + "/virtfn2": "",
		vf + "/physfn": "-> ../0000:3a:00.0", vf + "/device": "0x56c0", vf + "/class": "0x038000", vf + "/numa_node": "0",
		vf + "/iommu_group": "-> ../../../../kernel/iommu_groups/1", vf + "/driver": "-> ../../../../bus/pci/drivers/i915",
		vf + "/drm/card3/dev": "226:3", vf + "/driver_override": "(null)",
	})
	if _, ok := k.Tree()[vf+"/reset"]; !ok {
		t.Error("the virtual function cannot be reset, unlike the physical one")
	}
	write(t, k, step{numvfs, "0", nil})
	if diff := cmp.Diff(before, k.Tree()); diff != "" {
		t.Errorf("the host is another than before:\n%s", diff)
	}
}

func TestDiscoveryFindsTheKernelsVirtualFunctions(t *testing.T) {
	k, gpu := graphics(t)
	write(t, k, step{devices + gpu.Address() + "/sriov_numvfs", "3", nil})
	machine := k.Open().Machine
	vfs := 0
	for _, f := range machine.PCI.Functions {
		if f.PhysicalFunction != topology.None && f.Driver == "i915" && f.IOMMUGroup >= 0 {
			vfs++
		}
	}
	if vfs != 3 {
		t.Errorf("%d virtual functions, want 3", vfs)
	}
}

func TestTheNumberOfVirtualFunctionsIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*devicetest.Kernel, devicetest.Function)
		data   string
		want   error
	}{
		"above the total":            {nil, "32", syscall.ERANGE},
		"no number":                  {nil, "two", syscall.EINVAL},
		"negative":                   {nil, "-1", syscall.EINVAL},
		"with a space":               {nil, "2 ", syscall.EINVAL},
		"too long a number":          {nil, "65536", syscall.EINVAL},
		"as before":                  {func(k *devicetest.Kernel, f devicetest.Function) { unbound(k, f) }, "0", nil},
		"without a driver":           {unbound, "1", syscall.ENOENT},
		"above the total, no driver": {unbound, "32", syscall.ERANGE},
		"with a driver that does not": {func(k *devicetest.Kernel, f devicetest.Function) {
			unbound(k, f)
			k.File(f.Path+"/driver_override", "plain")
			k.Load(devicetest.Driver{Name: "plain"})
		}, "1", syscall.ENOENT},
		"with a driver for vfio":      {func(k *devicetest.Kernel, f devicetest.Function) { forVFIO(k, f); bindVFIO(k, f) }, "1", syscall.ENOENT},
		"from one number to another":  {func(k *devicetest.Kernel, f devicetest.Function) { vfs(k, f, "2") }, "3", syscall.EBUSY},
		"from one number to the same": {func(k *devicetest.Kernel, f devicetest.Function) { vfs(k, f, "2") }, "0x2\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			k, gpu := graphics(t)
			if test.change != nil {
				test.change(k, gpu)
			}
			before := k.Tree()
			write(t, k, step{devices + gpu.Address() + "/sriov_numvfs", test.data, test.want})
			if diff := cmp.Diff(before, k.Tree()); diff != "" {
				t.Errorf("the host is another than before:\n%s", diff)
			}
		})
	}
}

func bindVFIO(k *devicetest.Kernel, f devicetest.Function) {
	_ = k.Write(drivers+"vfio-pci/bind", f.Address())
}

func vfs(k *devicetest.Kernel, f devicetest.Function, n string) {
	_ = k.Write(devices+f.Address()+"/sriov_numvfs", n)
}

func TestWithoutAutoprobeAVirtualFunctionNeedsAnOverride(t *testing.T) {
	k, gpu := graphics(t)
	write(t, k, step{devices + gpu.Address() + "/sriov_drivers_autoprobe", "0", nil})
	vfs(k, gpu, "1")
	vf := "0000:3a:00.1"
	driver := "/sys/devices/pci0000:37/0000:37:01.0/" + vf + "/driver"
	want(t, k, map[string]string{driver: ""})
	write(t, k,
		step{drivers + "i915/bind", vf, syscall.ENODEV},
		step{devices + vf + "/driver_override", "i915", nil},
		step{drivers + "i915/bind", vf, nil},
		step{devices + vf + "/driver_override", "\n", nil},
	)
	want(t, k, map[string]string{driver: "-> ../../../../bus/pci/drivers/i915"})
	// Of the physical function it is not asked.
	unbound(k, gpu)
	write(t, k, step{drivers + "i915/bind", gpu.Address(), nil})
}

func TestVirtualFunctionsOfADriverlessKindStayUnbound(t *testing.T) {
	k, gpu := graphics(t)
	k.File(gpu.Path+"/sriov_vf_device", "56cf")
	vfs(k, gpu, "1")
	want(t, k, map[string]string{"/sys/devices/pci0000:37/0000:37:01.0/0000:3a:00.1/driver": "", "/sys/devices/pci0000:37/0000:37:01.0/0000:3a:00.1/device": "0x56cf"})
}

func TestVirtualFunctionsCountOnThroughDevicesAndBuses(t *testing.T) {
	k, gpu := graphics(t)
	k.Files(gpu.Path, map[string]string{"sriov_offset": "6", "sriov_stride": "125"})
	vfs(k, gpu, "3")
	want(t, k, map[string]string{
		gpu.Path + "/virtfn0": "-> ../0000:3a:00.6", gpu.Path + "/virtfn1": "-> ../0000:3a:10.3", gpu.Path + "/virtfn2": "-> ../0000:3b:00.0",
	})
}

func TestVirtualFunctionsGoWithTheDriverOfThePhysicalOne(t *testing.T) {
	k, gpu := graphics(t)
	vfs(k, gpu, "2")
	unbound(k, gpu)
	want(t, k, map[string]string{gpu.Path + "/sriov_numvfs": "0", gpu.Path + "/virtfn0": "", "/sys/bus/pci/devices/0000:3a:00.1": ""})
}

func TestRemovingAVirtualFunctionThatIsInUseBlocks(t *testing.T) {
	k, gpu := graphics(t)
	vfs(k, gpu, "2")
	vf := devicetest.Function{Path: "/sys/devices/pci0000:37/0000:37:01.0/0000:3a:00.2", Driver: "i915"}
	forVFIO(k, vf)
	bindVFIO(k, vf)
	release := k.Hold(1)
	done := make(chan error, 2)
	go func() { done <- k.Write(devices+gpu.Address()+"/sriov_numvfs", "0") }()
	eventually(t, "the first one to go", func() bool { return k.Tree()[gpu.Path+"/virtfn1"] == "" })
	go func() { done <- k.Write(drivers+"i915/unbind", gpu.Address()) }()
	eventually(t, "the second write", func() bool { return len(k.Journal()) == 5 })
	want(t, k, map[string]string{gpu.Path + "/sriov_numvfs": "2", gpu.Path + "/driver": "-> ../../../../bus/pci/drivers/i915"})
	release()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	want(t, k, map[string]string{gpu.Path + "/sriov_numvfs": "0", gpu.Path + "/driver": "", "/sys/bus/pci/devices/0000:3a:00.2": "", "/sys/class/vfio/1": ""})
}

// crypto is a host with a QAT device.
func crypto(t *testing.T, driver string) (*devicetest.Kernel, devicetest.Function) {
	t.Helper()
	h := devicetest.New(t)
	k := devicetest.NewKernel(h)
	qat := devicetest.Function{Path: "/sys/devices/pci0000:6b/0000:6b:00.0", Vendor: 0x8086, Device: 0x4940, Class: 0x0b4000, Group: 120, Driver: driver}
	h.Add(qat)
	h.Files(qat.Path, map[string]string{"sriov_totalvfs": "16", "sriov_numvfs": "0", "sriov_vf_device": "4941", "sriov_drivers_autoprobe": "0"})
	h.Files(qat.Path+"/qat", map[string]string{"state": "up", "cfg_services": "sym;asym", "num_rps": "64", "auto_reset": "off", "pm_idle_enabled": "1"})
	k.Load(devicetest.Driver{Name: driver, IDs: []int{0x80864940}, VFs: true})
	return k, qat
}

func TestQATEnablesAllVirtualFunctionsOrNone(t *testing.T) {
	k, qat := crypto(t, "4xxx")
	numvfs := devices + qat.Address() + "/sriov_numvfs"
	write(t, k, step{qatFile("state"), "down", nil}, step{numvfs, "3", nil})
	want(t, k, map[string]string{qat.Path + "/sriov_numvfs": "16", qat.Path + "/virtfn15": "-> ../0000:6b:02.0", qat.Path + "/qat/state": "up", "/sys/devices/pci0000:6b/0000:6b:02.0/device": "0x4941"})
	write(t, k, step{numvfs, "3", syscall.EBUSY}, step{numvfs, "16", nil}, step{numvfs, "0", nil})
	want(t, k, map[string]string{qat.Path + "/sriov_numvfs": "0", qat.Path + "/virtfn15": "", qat.Path + "/qat/state": "up"})
	write(t, k, step{numvfs, "1", nil}, step{qatFile("state"), "down", nil})
	want(t, k, map[string]string{qat.Path + "/sriov_numvfs": "0", qat.Path + "/virtfn0": "", qat.Path + "/qat/state": "down"})
	k.Remove(qat.Path + "/iommu_group")
	write(t, k, step{numvfs, "16", syscall.EINVAL})
}

func qatFile(name string) string { return devices + "0000:6b:00.0/qat/" + name }

func TestSettingsOfQAT(t *testing.T) {
	for name, test := range map[string]struct {
		driver, state, file, data string
		want                      error
		reads                     string
	}{
		"down":                     {"4xxx", "up", "state", "down\n", nil, "down"},
		"down again":               {"4xxx", "down", "state", "down", nil, "down"},
		"up":                       {"4xxx", "down", "state", "up", nil, "up"},
		"another state":            {"4xxx", "up", "state", "off", syscall.EINVAL, "up"},
		"services":                 {"4xxx", "down", "cfg_services", "asym;sym", nil, "asym;sym"},
		"one service":              {"4xxx", "down", "cfg_services", "dc", nil, "dc"},
		"chained compression":      {"4xxx", "down", "cfg_services", "dcc", nil, "dcc"},
		"chained with another":     {"4xxx", "down", "cfg_services", "dcc;sym", syscall.EINVAL, "sym;asym"},
		"services while up":        {"4xxx", "up", "cfg_services", "dc", syscall.EINVAL, "sym;asym"},
		"an unknown service":       {"4xxx", "down", "cfg_services", "sym;tea", syscall.EINVAL, "sym;asym"},
		"the same service twice":   {"4xxx", "down", "cfg_services", "sym;sym", syscall.EINVAL, "sym;asym"},
		"three services":           {"4xxx", "down", "cfg_services", "sym;asym;dc", syscall.EINVAL, "sym;asym"},
		"three, generation 6":      {"6xxx", "down", "cfg_services", "sym;asym;dc", nil, "sym;asym;dc"},
		"decompression":            {"4xxx", "down", "cfg_services", "decomp", syscall.EINVAL, "sym;asym"},
		"decompression, 6":         {"6xxx", "down", "cfg_services", "decomp;dc", nil, "decomp;dc"},
		"idle":                     {"4xxx", "down", "pm_idle_enabled", "n", nil, "0"},
		"idle while up":            {"4xxx", "up", "pm_idle_enabled", "0", syscall.EINVAL, "1"},
		"idle that is no choice":   {"4xxx", "down", "pm_idle_enabled", "2", syscall.EINVAL, "1"},
		"automatic reset":          {"4xxx", "up", "auto_reset", "on", nil, "on"},
		"automatic reset off":      {"4xxx", "up", "auto_reset", "off", nil, "off"},
		"automatic reset, neither": {"4xxx", "up", "auto_reset", "x", syscall.EINVAL, "off"},
		"a file that tells":        {"4xxx", "down", "num_rps", "1", syscall.EACCES, "64"},
	} {
		t.Run(name, func(t *testing.T) {
			k, qat := crypto(t, test.driver)
			k.File(qat.Path+"/qat/state", test.state)
			write(t, k, step{qatFile(test.file), test.data, test.want})
			want(t, k, map[string]string{qat.Path + "/qat/" + test.file: test.reads})
		})
	}
}
