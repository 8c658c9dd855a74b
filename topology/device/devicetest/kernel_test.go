package devicetest_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology/device/devicetest"
)

const (
	devices = "/sys/bus/pci/devices/"
	drivers = "/sys/bus/pci/drivers/"
)

// graphics is a host with a graphics card and the driver that it is bound to.
func graphics(t *testing.T) (*devicetest.Kernel, devicetest.Function) {
	t.Helper()
	h := devicetest.New(t)
	k := devicetest.NewKernel(h)
	gpu := devicetest.Function{Path: "/sys/devices/pci0000:37/0000:37:01.0/0000:3a:00.0", Vendor: 0x8086, Device: 0x56c0, Class: 0x038000, Group: 42, Driver: "i915"}
	h.Add(gpu)
	h.Char(gpu.Path, "drm/card1", "226:1", "dri/card1")
	h.Files(gpu.Path, map[string]string{
		"sriov_totalvfs": "31", "sriov_numvfs": "0", "sriov_vf_device": "56c0", "sriov_offset": "1", "sriov_stride": "1",
		"sriov_drivers_autoprobe": "1", "reset": "", "aer_dev_fatal": "TOTAL_ERR_FATAL 0",
	})
	k.Load(devicetest.Driver{Name: "i915", IDs: []int{0x808656c0}, VFs: true, Probe: func(f devicetest.Function) error {
		card := map[string]string{"0": "1", "1": "2", "2": "3"}[f.Path[len(f.Path)-1:]]
		h.Char(f.Path, "drm/card"+card, "226:"+card, "dri/card"+card)
		return nil
	}})
	return k, gpu
}

// step is a write and what it has to return.
type step struct {
	path, data string
	want       error
}

func write(t *testing.T, k *devicetest.Kernel, steps ...step) {
	t.Helper()
	for _, s := range steps {
		if err := k.Write(s.path, s.data); !errors.Is(err, s.want) || (err == nil) != (s.want == nil) {
			t.Fatalf("write %.40q to %s: %v, want %v", s.data, s.path, err, s.want)
		}
	}
}

// want looks at files: an empty text is that there is none.
func want(t *testing.T, k *devicetest.Kernel, files map[string]string) {
	t.Helper()
	tree := k.Tree()
	for name, content := range files {
		if got, ok := tree[name]; got != content || ok != (content != "") {
			t.Errorf("%s is %q, %v, want %q", name, got, ok, content)
		}
	}
}

func TestADriverOverrideReadsBack(t *testing.T) {
	for data, reads := range map[string]string{
		"vfio-pci": "vfio-pci", "vfio-pci\n": "vfio-pci", "\n": "(null)", "": "before", strings.Repeat("x", 4094): strings.Repeat("x", 4094),
	} {
		k, gpu := graphics(t)
		file := devices + gpu.Address() + "/driver_override"
		write(t, k, step{file, "before", nil}, step{file, data, nil})
		want(t, k, map[string]string{gpu.Path + "/driver_override": reads})
	}
	k, gpu := graphics(t)
	write(t, k, step{devices + gpu.Address() + "/driver_override", strings.Repeat("x", 4095), syscall.EINVAL})
	want(t, k, map[string]string{gpu.Path + "/driver_override": "(null)"})
}

func TestAFunctionGoesToVFIOAndBack(t *testing.T) {
	k, gpu := graphics(t)
	before := k.Tree()
	override := devices + gpu.Address() + "/driver_override"
	write(t, k,
		step{override, "vfio-pci", nil},
		step{drivers + "i915/unbind", gpu.Address(), nil},
	)
	want(t, k, map[string]string{
		gpu.Path + "/driver": "", drivers + "i915/" + gpu.Address(): "", gpu.Path + "/drm/card1/dev": "", "/sys/class/drm/card1": "",
		gpu.Path + "/aer_dev_fatal": "TOTAL_ERR_FATAL 0", gpu.Path + "/vendor": "0x8086",
	})
	write(t, k, step{drivers + "vfio-pci/bind", gpu.Address() + "\n", nil})
	want(t, k, map[string]string{
		gpu.Path + "/driver":                  "-> ../../../../bus/pci/drivers/vfio-pci",
		drivers + "vfio-pci/" + gpu.Address(): "-> ../../../../devices/pci0000:37/0000:37:01.0/0000:3a:00.0",
		"/sys/class/vfio/42":                  "-> ../../devices/virtual/vfio/42",
		"/sys/devices/virtual/vfio/42/uevent": "MAJOR=243\nMINOR=42\nDEVNAME=vfio/42",
		gpu.Path + "/vfio-dev/vfio0/dev":      "",
		drivers + "i915/" + gpu.Address():     "",
		gpu.Path + "/driver_override":         "vfio-pci",
	})
	write(t, k,
		step{drivers + "vfio-pci/unbind", gpu.Address(), nil},
		step{override, "\n", nil},
		step{drivers + "i915/bind", gpu.Address(), nil},
	)
	if diff := cmp.Diff(before, k.Tree()); diff != "" {
		t.Errorf("the host is another than before:\n%s", diff)
	}
}

func TestWritesToDriversAreRefused(t *testing.T) {
	const address = "0000:3a:00.0"
	for name, test := range map[string]struct {
		change func(*devicetest.Kernel, devicetest.Function)
		step
	}{
		"unbind from another driver":   {nil, step{drivers + "vfio-pci/unbind", address, syscall.ENODEV}},
		"unbind of no function":        {nil, step{drivers + "i915/unbind", "0000:3a:00.7", syscall.ENODEV}},
		"unbind of what is no address": {nil, step{drivers + "i915/unbind", "../devices/" + address, syscall.ENODEV}},
		"bind without a match":         {unbound, step{drivers + "vfio-pci/bind", address, syscall.ENODEV}},
		"bind against the override": {func(k *devicetest.Kernel, f devicetest.Function) {
			unbound(k, f)
			k.File(f.Path+"/driver_override", "vfio-pci")
		}, step{drivers + "i915/bind", address, syscall.ENODEV}},
		"bind of a bound function": {nil, step{drivers + "i915/bind", address, syscall.EBUSY}},
		"bind of a bound function to another": {func(k *devicetest.Kernel, f devicetest.Function) {
			k.File(f.Path+"/driver_override", "vfio-pci")
		}, step{drivers + "vfio-pci/bind", address, syscall.EBUSY}},
		"bind that fails to probe": {func(k *devicetest.Kernel, f devicetest.Function) {
			k.Load(devicetest.Driver{Name: "broken", IDs: []int{0x808656c0}, Probe: func(f devicetest.Function) error {
				k.File(f.Path+"/half", "made")
				return syscall.EIO
			}})
			unbound(k, f)
		}, step{drivers + "broken/bind", address, syscall.EIO}},
		"vfio without an IOMMU group": {func(k *devicetest.Kernel, f devicetest.Function) {
			forVFIO(k, f)
			k.Remove(f.Path + "/iommu_group")
		}, step{drivers + "vfio-pci/bind", address, syscall.EINVAL}},
		"vfio with virtual functions": {func(k *devicetest.Kernel, f devicetest.Function) {
			forVFIO(k, f)
			k.File(f.Path+"/sriov_numvfs", "2")
		}, step{drivers + "vfio-pci/bind", address, syscall.EBUSY}},
		"vfio of a denied function": {func(k *devicetest.Kernel, f devicetest.Function) {
			forVFIO(k, f)
			k.File(f.Path+"/device", "0x37c9")
		}, step{drivers + "vfio-pci/bind", address, syscall.EINVAL}},
		"vfio of a denied function with the list in force": {func(k *devicetest.Kernel, f devicetest.Function) {
			forVFIO(k, f)
			k.File(f.Path+"/device", "0x0b25")
			k.File("/sys/module/vfio_pci/parameters/disable_denylist", "N")
		}, step{drivers + "vfio-pci/bind", address, syscall.EINVAL}},
		"a module that is not loaded":    {nil, step{drivers + "xe/bind", address, syscall.ENOENT}},
		"a file that is not there":       {nil, step{devices + address + "/sriov_vf_total_msix", "1", syscall.ENOENT}},
		"a file that nobody writes":      {nil, step{devices + address + "/numa_node", "1", syscall.EACCES}},
		"a file of another directory":    {nil, step{"/proc/sys/kernel/random/boot_id", "1", syscall.EACCES}},
		"a directory":                    {nil, step{devices + address, "1", syscall.EISDIR}},
		"another file of a driver":       {func(k *devicetest.Kernel, _ devicetest.Function) { k.File(drivers+"i915/new_id", "") }, step{drivers + "i915/new_id", "8086 1", syscall.EACCES}},
		"a reset that is none":           {nil, step{devices + address + "/reset", "0", syscall.EINVAL}},
		"a reset of what has none":       {func(k *devicetest.Kernel, f devicetest.Function) { k.Remove(f.Path + "/reset") }, step{devices + address + "/reset", "1", syscall.ENOENT}},
		"an autoprobe that is no choice": {nil, step{devices + address + "/sriov_drivers_autoprobe", "maybe", syscall.EINVAL}},
	} {
		t.Run(name, func(t *testing.T) {
			k, gpu := graphics(t)
			if test.change != nil {
				test.change(k, gpu)
			}
			before := k.Tree()
			write(t, k, test.step)
			if diff := cmp.Diff(before, k.Tree()); diff != "" {
				t.Errorf("a write that fails changes the host:\n%s", diff)
			}
		})
	}
}

func unbound(k *devicetest.Kernel, f devicetest.Function) {
	_ = k.Write(drivers+f.Driver+"/unbind", f.Address())
}

func forVFIO(k *devicetest.Kernel, f devicetest.Function) {
	unbound(k, f)
	k.File(f.Path+"/driver_override", "vfio-pci")
}

func TestTheDenylistCanBeDisabled(t *testing.T) {
	k, gpu := graphics(t)
	forVFIO(k, gpu)
	k.File(gpu.Path+"/device", "0x37c9")
	k.File("/sys/module/vfio_pci/parameters/disable_denylist", "Y")
	write(t, k, step{drivers + "vfio-pci/bind", gpu.Address(), nil})
}

func TestAnotherVFIODriverHasNoDenylist(t *testing.T) {
	k, gpu := graphics(t)
	unbound(k, gpu)
	k.Load(devicetest.Driver{Name: "qat_vfio_pci"})
	k.File(gpu.Path+"/device", "0x37c9")
	k.File(gpu.Path+"/driver_override", "qat_vfio_pci")
	write(t, k, step{drivers + "qat_vfio_pci/bind", gpu.Address(), nil})
	want(t, k, map[string]string{"/sys/class/vfio/42": "-> ../../devices/virtual/vfio/42"})
}

func TestADriverTakesWhatItIsForWhenItIsLoaded(t *testing.T) {
	k, gpu := graphics(t)
	unbound(k, gpu)
	bound := func() string { return k.Tree()[gpu.Path+"/driver"] }
	k.Load(devicetest.Driver{Name: "other", IDs: []int{0x808656c1}})
	if bound() != "" {
		t.Errorf("a driver for others takes the function: %s", bound())
	}
	k.File(gpu.Path+"/driver_override", "other2")
	k.Load(devicetest.Driver{Name: "xe", IDs: []int{0x808656c0}})
	if bound() != "" {
		t.Errorf("a driver that the override does not name takes the function: %s", bound())
	}
	k.Load(devicetest.Driver{Name: "other2"})
	if bound() != "-> ../../../../bus/pci/drivers/other2" {
		t.Errorf("driver %q, want the one that the override names", bound())
	}
}

func TestAGroupsNodeGoesWithItsLastFunction(t *testing.T) {
	k, gpu := graphics(t)
	k.ServeCdevs()
	audio := gpu
	audio.Path, audio.Device, audio.Driver = "/sys/devices/pci0000:37/0000:37:01.0/0000:3a:00.7", 0x4f90, ""
	k.Add(audio)
	for _, f := range []devicetest.Function{gpu, audio} {
		forVFIO(k, f)
		write(t, k, step{drivers + "vfio-pci/bind", f.Address(), nil})
	}
	want(t, k, map[string]string{
		gpu.Path + "/vfio-dev/vfio0/uevent": "MAJOR=511\nMINOR=0\nDEVNAME=vfio/devices/vfio0",
		audio.Path + "/vfio-dev/vfio1/dev":  "511:1",
		"/sys/class/vfio-dev/vfio1":         "-> ../../devices/pci0000:37/0000:37:01.0/0000:3a:00.7/vfio-dev/vfio1",
		"/sys/class/misc/iommu":             "-> ../../devices/virtual/misc/iommu",
	})
	write(t, k, step{drivers + "vfio-pci/unbind", gpu.Address(), nil})
	want(t, k, map[string]string{
		"/sys/devices/virtual/vfio/42/dev": "243:42", gpu.Path + "/vfio-dev/vfio0/dev": "", "/sys/class/vfio-dev/vfio0": "", audio.Path + "/vfio-dev/vfio1/dev": "511:1",
	})
	write(t, k, step{drivers + "vfio-pci/unbind", audio.Address(), nil})
	want(t, k, map[string]string{"/sys/devices/virtual/vfio/42/dev": "", "/sys/class/vfio/42": ""})
}

// eventually waits for what another goroutine does.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestUnbindingAFunctionBlocksWhileItsGroupIsOpen(t *testing.T) {
	k, gpu := graphics(t)
	k.ServeCdevs()
	forVFIO(k, gpu)
	write(t, k, step{drivers + "vfio-pci/bind", gpu.Address(), nil})
	release := k.Hold(42)
	done := make(chan error, 2)
	go func() { done <- k.Write(drivers+"vfio-pci/unbind", gpu.Address()) }()
	eventually(t, "the links to the driver to go", func() bool { return k.Tree()[gpu.Path+"/driver"] == "" })
	// What asks for the same function waits as well; others do not.
	go func() { done <- k.Write(devices+gpu.Address()+"/driver_override", "\n") }()
	eventually(t, "the second write", func() bool { return len(k.Journal()) == 4 })
	other := devicetest.Function{Path: "/sys/devices/pci0000:37/0000:37:01.0/0000:3b:00.0", Vendor: 0x8086, Device: 0x56c1, Group: 43}
	k.Add(other)
	write(t, k, step{devices + other.Address() + "/driver_override", "vfio-pci", nil})
	for _, e := range k.Journal()[2:4] {
		if !errors.Is(e.Err, devicetest.ErrBlocked) {
			t.Errorf("%+v does not block", e)
		}
	}
	want(t, k, map[string]string{
		"/sys/class/vfio/42": "-> ../../devices/virtual/vfio/42", gpu.Path + "/vfio-dev/vfio0/dev": "", gpu.Path + "/driver_override": "vfio-pci",
	})
	release()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	want(t, k, map[string]string{"/sys/class/vfio/42": "", gpu.Path + "/driver_override": "(null)"})
	if e := k.Journal()[2]; e.Err != nil {
		t.Errorf("journal %+v after the end", e)
	}
}

func TestAHeldGroupIsLetGoAtTheEndOfTheTest(t *testing.T) {
	done := make(chan error, 1)
	t.Run("inner", func(t *testing.T) {
		k, gpu := graphics(t)
		forVFIO(k, gpu)
		write(t, k, step{drivers + "vfio-pci/bind", gpu.Address(), nil})
		k.Hold(42)
		go func() { done <- k.Write(drivers+"vfio-pci/unbind", gpu.Address()) }()
		eventually(t, "the write", func() bool { return len(k.Journal()) == 3 })
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTheJournalHasAllWrites(t *testing.T) {
	k, gpu := graphics(t)
	file := devices + gpu.Address() + "/driver_override"
	k.Refuse(devicetest.Nth(2), syscall.EIO)
	k.Refuse(devicetest.Matching("i915/unbind"), syscall.ENOMEM)
	write(t, k,
		step{file, "a", nil},
		step{file, "b", syscall.EIO},
		step{drivers + "i915/unbind", gpu.Address(), syscall.ENOMEM},
		step{"/sys/none", "c", syscall.ENOENT},
	)
	journal := []devicetest.Entry{
		{Path: file, Data: "a"}, {Path: file, Data: "b", Err: syscall.EIO},
		{Path: drivers + "i915/unbind", Data: gpu.Address(), Err: syscall.ENOMEM}, {Path: "/sys/none", Data: "c", Err: syscall.ENOENT},
	}
	if got := k.Journal(); !slices.Equal(got, journal) {
		t.Errorf("journal %+v, want %+v", got, journal)
	}
	want(t, k, map[string]string{gpu.Path + "/driver_override": "a", gpu.Path + "/driver": "-> ../../../../bus/pci/drivers/i915"})
	if _, ok := errors.AsType[*fs.PathError](k.Write("/sys/none", "d")); !ok {
		t.Error("the error is not that of os.File")
	}
}
