package rebind_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/draplugin/rebind"
)

func TestAFunctionIsGivenAndTakenBackInThisOrder(t *testing.T) {
	for name, test := range map[string]struct {
		prepare        func(*rig)
		address        string
		before         rebind.Binding
		driver         string
		given, restore []string
	}{
		"bound": {
			nil, gpu, rebind.Binding{Driver: "i915"}, "vfio-pci",
			[]string{"save moving", override(gpu, "vfio-pci"), unbind("i915", gpu), bind("vfio-pci", gpu), "save given"},
			[]string{"save moving", unbind("vfio-pci", gpu), override(gpu, "i915"), bind("i915", gpu), override(gpu, "\n"), "save done"},
		},
		"bound, on a kernel with a node for each function": {
			func(g *rig) { g.ServeCdevs() }, gpu, rebind.Binding{Driver: "i915"}, "vfio-pci",
			[]string{"save moving", override(gpu, "vfio-pci"), unbind("i915", gpu), bind("vfio-pci", gpu), "save given"},
			[]string{"save moving", unbind("vfio-pci", gpu), override(gpu, "i915"), bind("i915", gpu), override(gpu, "\n"), "save done"},
		},
		"unbound": {
			func(g *rig) { g.must("drivers/i915/unbind", gpu) }, gpu, rebind.Binding{}, "vfio-pci",
			[]string{"save moving", override(gpu, "vfio-pci"), bind("vfio-pci", gpu), "save given"},
			[]string{"save moving", unbind("vfio-pci", gpu), override(gpu, "\n"), "save done"},
		},
		"bound by an override": {
			func(g *rig) { g.must("devices/"+gpu+"/driver_override", "i915") }, gpu, rebind.Binding{Driver: "i915", Override: "i915"}, "vfio-pci",
			[]string{"save moving", override(gpu, "vfio-pci"), unbind("i915", gpu), bind("vfio-pci", gpu), "save given"},
			[]string{"save moving", unbind("vfio-pci", gpu), override(gpu, "i915"), bind("i915", gpu), "save done"},
		},
		"bound, with the override of another": {
			func(g *rig) { g.must("devices/"+gpu+"/driver_override", "xe") }, gpu, rebind.Binding{Driver: "i915", Override: "xe"}, "vfio-pci",
			[]string{"save moving", override(gpu, "vfio-pci"), unbind("i915", gpu), bind("vfio-pci", gpu), "save given"},
			[]string{"save moving", unbind("vfio-pci", gpu), override(gpu, "i915"), bind("i915", gpu), override(gpu, "xe"), "save done"},
		},
		"unbound, meant for vfio": {
			func(g *rig) {
				g.must("drivers/i915/unbind", gpu)
				g.must("devices/"+gpu+"/driver_override", "vfio-pci")
			}, gpu, rebind.Binding{Override: "vfio-pci"}, "vfio-pci",
			[]string{"save moving", bind("vfio-pci", gpu), "save given"},
			[]string{"save moving", unbind("vfio-pci", gpu), "save done"},
		},
		"bound to vfio already": {
			func(g *rig) {
				g.must("devices/"+gpu+"/driver_override", "vfio-pci")
				g.must("drivers/i915/unbind", gpu)
				g.must("drivers/vfio-pci/bind", gpu)
			}, gpu, rebind.Binding{Driver: "vfio-pci", Override: "vfio-pci"}, "vfio-pci",
			nil, []string{"save done"},
		},
		"a virtual function that binds by itself": {
			func(g *rig) { g.vf(gpu, "1") }, gpuVF, rebind.Binding{Driver: "i915"}, "vfio-pci",
			[]string{"save moving", override(gpuVF, "vfio-pci"), unbind("i915", gpuVF), bind("vfio-pci", gpuVF), "save given"},
			[]string{"save moving", unbind("vfio-pci", gpuVF), override(gpuVF, "i915"), bind("i915", gpuVF), override(gpuVF, "\n"), "save done"},
		},
		"a virtual function that does not": {
			func(g *rig) { g.vf(gpu, "0") }, gpuVF, rebind.Binding{}, "vfio-pci",
			[]string{"save moving", override(gpuVF, "vfio-pci"), bind("vfio-pci", gpuVF), "save given"},
			[]string{"save moving", unbind("vfio-pci", gpuVF), override(gpuVF, "\n"), "save done"},
		},
		// What the override on the way back is for.
		"a virtual function that does not, but was bound": {
			func(g *rig) {
				g.vf(gpu, "0")
				g.must("devices/"+gpuVF+"/driver_override", "i915")
				g.must("drivers/i915/bind", gpuVF)
				g.must("devices/"+gpuVF+"/driver_override", "\n")
			}, gpuVF, rebind.Binding{Driver: "i915"}, "vfio-pci",
			[]string{"save moving", override(gpuVF, "vfio-pci"), unbind("i915", gpuVF), bind("vfio-pci", gpuVF), "save given"},
			[]string{"save moving", unbind("vfio-pci", gpuVF), override(gpuVF, "i915"), bind("i915", gpuVF), override(gpuVF, "\n"), "save done"},
		},
		"beside a bridge and others that are free": {
			func(g *rig) {
				g.File(g.add("0000:39:01.0", 0x352a, 42, "pcieport").Path+"/class", "0x060400")
				g.add("0000:3a:00.2", 0x56c1, 42, "")
				g.add("0000:3a:00.3", 0x56c2, 42, "vfio-pci")
			}, gpu, rebind.Binding{Driver: "i915"}, "vfio-pci",
			[]string{"save moving", override(gpu, "vfio-pci"), unbind("i915", gpu), bind("vfio-pci", gpu), "save given"},
			[]string{"save moving", unbind("vfio-pci", gpu), override(gpu, "i915"), bind("i915", gpu), override(gpu, "\n"), "save done"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, patient)
			if test.prepare != nil {
				test.prepare(g)
			}
			before := g.Tree()
			s := g.give(test.address)
			if diff := cmp.Diff(test.given, g.happened()); diff != "" {
				t.Errorf("giving it -want +got:\n%s", diff)
			}
			after := rebind.Binding{Driver: test.driver, Override: test.driver}
			want := rebind.State{BootID: before[boot], Address: test.address, Before: test.before, After: after, Step: rebind.Given}
			if s != want || len(test.given) > 0 && g.last() != s {
				t.Errorf("state %+v, saved %+v, want %+v", s, g.last(), want)
			}
			if d := g.driver(test.address); d != test.driver {
				t.Errorf("it is bound to %q, want %s", d, test.driver)
			}
			if err := g.Restore(t.Context(), s, false, g.save); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(test.restore, g.happened()); diff != "" {
				t.Errorf("taking it back -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(before, g.Tree()); diff != "" {
				t.Errorf("the host -before +after:\n%s", diff)
			}
			if err := g.Restore(t.Context(), g.last(), false, g.save); err != nil || len(g.happened()) != 0 {
				t.Errorf("taking it back again: %v", err)
			}
		})
	}
}

func TestTheStateIsSavedAsItIsNeeded(t *testing.T) {
	g := newRig(t, patient)
	g.must("devices/"+gpu+"/driver_override", "i915")
	g.give(gpu)
	data, err := json.Marshal(g.saved[0])
	const want = `{"bootID":"6f1c1f6e-8f0a-4d4b-9d38-6a4f3a1f2f10","address":"0000:3a:00.0",` +
		`"before":{"driver":"i915","override":"i915"},"after":{"driver":"vfio-pci","override":"vfio-pci"},"step":"moving"}`
	if err != nil || string(data) != want {
		t.Errorf("state %s, %v, want %s", data, err, want)
	}
	var s rebind.State
	if err := json.Unmarshal(data, &s); err != nil || s != g.saved[0] {
		t.Errorf("read back %+v, %v, want %+v", s, err, g.saved[0])
	}
}

func TestSomeVirtualFunctionsHaveVFIODriversOfTheirOwn(t *testing.T) {
	const xePF, xeVF, qatPF, qatVF = "0000:4a:00.0", "0000:4a:00.1", "0000:6b:00.0", "0000:6b:00.1"
	for name, test := range map[string]struct {
		load            string
		autoprobe       string
		address, driver string
	}{
		"xe":                             {"xe-vfio-pci", "1", xeVF, "xe-vfio-pci"},
		"xe, unbound":                    {"xe-vfio-pci", "0", xeVF, "xe-vfio-pci"},
		"xe without the driver":          {"", "1", xeVF, "vfio-pci"},
		"a physical function of xe":      {"xe-vfio-pci", "", xePF, "vfio-pci"},
		"QAT":                            {"qat_vfio_pci", "0", qatVF, "qat_vfio_pci"},
		"QAT without the driver":         {"", "0", qatVF, "vfio-pci"},
		"QAT with the driver of xe":      {"xe-vfio-pci", "0", qatVF, "vfio-pci"},
		"a virtual function of another":  {"xe-vfio-pci", "1", gpuVF, "vfio-pci"},
		"a virtual function, QAT's here": {"qat_vfio_pci", "1", gpuVF, "vfio-pci"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, patient)
			g.add(xePF, 0xe211, 50, "xe")
			g.File(g.add(qatPF, 0x4940, 60, "4xxx").Path+"/sriov_vf_device", "4941")
			if test.load != "" {
				g.File(bus+"drivers/"+test.load+"/bind", "")
				g.File(bus+"drivers/"+test.load+"/unbind", "")
			}
			if test.autoprobe != "" {
				g.vf(test.address[:len(test.address)-1]+"0", test.autoprobe)
			}
			before := g.Tree()
			s := g.give(test.address)
			if d := g.driver(test.address); d != test.driver || s.After.Driver != test.driver {
				t.Errorf("it is bound to %q, state %+v, want %s", d, s, test.driver)
			}
			if err := g.Restore(t.Context(), s, false, g.save); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(before, g.Tree()); diff != "" {
				t.Errorf("the host -before +after:\n%s", diff)
			}
		})
	}
}

func TestWhatCannotBeGivenIsRefusedBeforeTheFirstWrite(t *testing.T) {
	const path = "/sys/devices/pci0000:37/0000:37:01.0/" + gpu
	for name, test := range map[string]struct {
		change func(*rig)
		want   string
	}{
		"no IOMMU":        {func(g *rig) { g.Remove(path + "/iommu_group") }, "it is in no IOMMU group: switch the IOMMU on"},
		"group of no one": {func(g *rig) { g.Remove("/sys/kernel/iommu_groups/42/devices") }, "the functions of its IOMMU group 42 cannot be read"},
		"another member is in use": {
			func(g *rig) { g.add("0000:3a:00.2", 0x4f90, 42, "snd_hda_intel") },
			"0000:3a:00.2 of the same IOMMU group 42 has the driver snd_hda_intel: take 0000:3a:00.2 from its driver first",
		},
		"another member of no known class is in use": {
			func(g *rig) { g.Remove(g.add("0000:3a:00.2", 0x4f90, 42, "snd_hda_intel").Path + "/class") },
			"0000:3a:00.2 of the same IOMMU group 42 has the driver snd_hda_intel",
		},
		"a member is a bridge to another kind of bus": {
			func(g *rig) { g.File(g.add("0000:3a:00.2", 0x4f90, 42, "lpc_ich").Path+"/class", "0x060100") },
			"0000:3a:00.2 of the same IOMMU group 42 has the driver lpc_ich",
		},
		"bound to vfio, but another member is in use": {
			func(g *rig) {
				g.must("devices/"+gpu+"/driver_override", "vfio-pci")
				g.must("drivers/i915/unbind", gpu)
				g.must("drivers/vfio-pci/bind", gpu)
				g.add("0000:3a:00.2", 0x4f90, 42, "snd_hda_intel")
			},
			"0000:3a:00.2 of the same IOMMU group 42 has the driver snd_hda_intel",
		},
		"virtual functions":  {func(g *rig) { g.vf(gpu, "1") }, "1 of its virtual functions are switched on"},
		"a bridge":           {func(g *rig) { g.File(path+"/class", "0x060400") }, "it is a bridge"},
		"module not loaded":  {func(g *rig) { g.Remove(bus + "drivers/vfio-pci") }, "the driver vfio-pci is not loaded: run modprobe vfio-pci on the host"},
		"on the denylist":    {func(g *rig) { g.File(path+"/device", "0x37c9") }, "denylist for flaws of the hardware: load vfio-pci with disable_denylist=1"},
		"no such function":   {func(g *rig) { g.Remove(bus + "devices/" + gpu) }, "there is no such function"},
		"boot is not known":  {func(g *rig) { g.Remove(boot) }, "boot_id cannot be read"},
		"boot has no number": {func(g *rig) { g.File(boot, "") }, "boot_id cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, patient)
			test.change(g)
			before := g.Tree()
			_, err := g.ToVFIO(t.Context(), gpu, g.save)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), gpu) {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if events := g.happened(); len(events) != 0 {
				t.Errorf("it writes and saves: %q", events)
			}
			if diff := cmp.Diff(before, g.Tree()); diff != "" {
				t.Errorf("the host -before +after:\n%s", diff)
			}
		})
	}
}

func TestTheDenylistIsNotInForceEverywhere(t *testing.T) {
	g := newRig(t, patient)
	g.File("/sys/devices/pci0000:37/0000:37:01.0/"+gpu+"/device", "0x0b25")
	g.File("/sys/module/vfio_pci/parameters/disable_denylist", "Y")
	g.give(gpu)
}

func TestOnlyTheKernelsAddressesAreTaken(t *testing.T) {
	g := newRig(t, patient)
	for _, address := range []string{"", "3a:00.0", "0000:3A:00.0", "../../" + gpu, gpu + "/", "0000:3a:00.0\n"} {
		if _, err := g.ToVFIO(t.Context(), address, g.save); err == nil {
			t.Errorf("%q is given", address)
		}
		if err := g.Restore(t.Context(), rebind.State{BootID: "6f1c1f6e-8f0a-4d4b-9d38-6a4f3a1f2f10", Address: address}, false, g.save); err == nil {
			t.Errorf("%q is taken back", address)
		}
	}
	if events := g.happened(); len(events) != 0 {
		t.Errorf("it writes and saves: %q", events)
	}
}

func TestWhateverWriteFailsTheFunctionIsAsBefore(t *testing.T) {
	for n, what := range []string{1: "driver_override", 2: "unbind", 3: "bind"} {
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.EINVAL, syscall.EBUSY, syscall.EACCES, syscall.ENODEV} {
			if what == "" || what == "unbind" && errno == syscall.ENODEV {
				continue
			}
			t.Run(fmt.Sprintf("%s %v", what, errno), func(t *testing.T) {
				g := newRig(t, patient)
				g.File("/sys/devices/pci0000:37/0000:37:01.0/"+gpu+"/reset", "")
				before := g.Tree()
				g.Refuse(func(i int, _, _ string) bool { return i == n }, errno)
				s, err := g.ToVFIO(t.Context(), gpu, g.save)
				failed, ok := errors.AsType[*rebind.WriteError](err)
				if !ok || !errors.Is(err, errno) || !strings.HasSuffix(failed.File, "/"+what) || failed.Remedy == "" || failed.Address != gpu {
					t.Errorf("error %v", err)
				}
				if wantSys := errno == syscall.EACCES; ok && wantSys != strings.Contains(failed.Remedy, "/sys") {
					t.Errorf("remedy %q", failed.Remedy)
				}
				if s.Step != rebind.Done || g.last() != s {
					t.Errorf("state %+v, saved %+v, want one that is done", s, g.last())
				}
				if diff := cmp.Diff(before, g.Tree()); diff != "" {
					t.Errorf("the host -before +after:\n%s", diff)
				}
				for _, event := range g.happened() {
					if event == unbind("vfio-pci", gpu) || strings.Contains(event, "/reset") {
						t.Errorf("%q, of a function that nobody had", event)
					}
				}
			})
		}
	}
}

func TestAFunctionThatHasLostItsDriverMeanwhileIsGivenAllTheSame(t *testing.T) {
	for name, lose := range map[string]func(*rig){
		"unbound": func(g *rig) { g.must("drivers/i915/unbind", gpu) },
		"unloaded": func(g *rig) {
			g.must("drivers/i915/unbind", gpu)
			g.Remove(bus + "drivers/i915")
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, patient)
			g.meanwhile = func(n int, _, _ string) error {
				if n == 2 {
					lose(g)
				}
				return nil
			}
			g.give(gpu)
		})
	}
}

func TestADriverThatVanishesIsAModuleThatIsNotLoaded(t *testing.T) {
	g := newRig(t, patient)
	before := g.Tree()
	g.meanwhile = func(n int, _, _ string) error {
		if n == 3 {
			g.Remove(bus + "drivers/vfio-pci/bind")
		}
		return nil
	}
	_, err := g.ToVFIO(t.Context(), gpu, g.save)
	if missing, ok := errors.AsType[*rebind.ModuleError](err); !ok || missing.Driver != "vfio-pci" {
		t.Errorf("error %v", err)
	}
	delete(before, bus+"drivers/vfio-pci/bind")
	if diff := cmp.Diff(before, g.Tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}
}

func TestModulesOfDrivers(t *testing.T) {
	for driver, module := range map[string]string{"vfio-pci": "vfio-pci", "i915": "i915", "4xxx": "qat_4xxx", "c6xxvf": "qat_c6xxvf"} {
		if got := (&rebind.ModuleError{Driver: driver}).Module(); got != module {
			t.Errorf("module of %s is %s, want %s", driver, got, module)
		}
	}
}

func TestAnUndoingThatFailsIsDoneLater(t *testing.T) {
	// The write to bind is refused, and then one of those that undo the others: the
	// override for the way back, the bind, and the override of before.
	for _, n := range []int{4, 5, 6} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			g := newRig(t, patient)
			before := g.Tree()
			g.Refuse(func(i int, _, _ string) bool { return i == 3 }, syscall.EINVAL)
			g.Refuse(func(i int, _, _ string) bool { return i == n }, syscall.EIO)
			s, err := g.ToVFIO(t.Context(), gpu, g.save)
			if !errors.Is(err, syscall.EINVAL) || !errors.Is(err, syscall.EIO) {
				t.Errorf("error %v, want both", err)
			}
			if s.Step != rebind.Moving || g.last() != s {
				t.Errorf("state %+v, saved %+v, want one that is on the way", s, g.last())
			}
			g.open(patient)
			if err := g.Restore(t.Context(), g.last(), false, g.save); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(before, g.Tree()); diff != "" {
				t.Errorf("the host -before +after:\n%s", diff)
			}
		})
	}
}

// TestAfterACrashAnywhereTheFunctionCanBeTakenBack ends the process after each write and
// before each saving, on the way there and back.
func TestAfterACrashAnywhereTheFunctionCanBeTakenBack(t *testing.T) {
	crashed := errors.New("crashed")
	for n := range 11 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			g := newRig(t, patient)
			before := g.Tree()
			dead, steps := false, 0
			step := func() error {
				dead = dead || steps == n
				steps++
				if dead {
					return crashed
				}
				return nil
			}
			g.meanwhile = func(int, string, string) error { return step() }
			g.failSave = func(rebind.State) error { return step() }
			if s, err := g.ToVFIO(t.Context(), gpu, g.save); err == nil {
				_ = g.Restore(t.Context(), s, false, g.save)
			}
			if !dead {
				t.Fatal("nothing is left to be interrupted: the test covers too little")
			}
			g.meanwhile, g.failSave = nil, nil
			g.open(patient)
			if s := g.last(); s.Address != "" {
				if err := g.Restore(t.Context(), s, false, g.save); err != nil {
					t.Error(err)
				}
				if g.last().Step != rebind.Done {
					t.Errorf("saved %+v, want that it is done", g.last())
				}
			}
			if diff := cmp.Diff(before, g.Tree()); diff != "" {
				t.Errorf("the host -before +after:\n%s", diff)
			}
		})
	}
}

func TestNothingIsDoneThatCouldNotBeSaved(t *testing.T) {
	full := errors.New("disk full")
	g := newRig(t, patient)
	before := g.Tree()
	g.failSave = func(rebind.State) error { return full }
	if _, err := g.ToVFIO(t.Context(), gpu, g.save); !errors.Is(err, full) || len(g.happened()) != 0 {
		t.Errorf("error %v, and writes, want none", err)
	}

	g.failSave = func(s rebind.State) error {
		if s.Step == rebind.Given {
			return full
		}
		return nil
	}
	s, err := g.ToVFIO(t.Context(), gpu, g.save)
	if !errors.Is(err, full) || s.Step != rebind.Done {
		t.Errorf("state %+v, error %v", s, err)
	}
	if diff := cmp.Diff(before, g.Tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}

	g.failSave = nil
	s = g.give(gpu)
	given := g.Tree()
	g.happened()
	g.failSave = func(rebind.State) error { return full }
	if err := g.Restore(t.Context(), s, false, g.save); !errors.Is(err, full) || len(g.happened()) != 0 {
		t.Errorf("error %v, and writes, want none", err)
	}
	if diff := cmp.Diff(given, g.Tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}
}

func TestWhatDoesNotAppearInTimeIsNamed(t *testing.T) {
	const path = "/sys/devices/pci0000:37/0000:37:01.0/" + gpu
	for name, test := range map[string]struct {
		hide    string
		missing string
	}{
		"driver": {path + "/driver", "sys/bus/pci/devices/" + gpu + "/driver"},
		"group":  {"/sys/class/vfio/42", "sys/class/vfio/42/dev"},
		"node":   {path + "/vfio-dev", "sys/bus/pci/devices/" + gpu + "/vfio-dev"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, rebind.Limits{Write: time.Minute, Wait: 50 * time.Millisecond})
			g.ServeCdevs()
			g.after = func(n int) {
				if n == 3 {
					g.Remove(test.hide)
				}
			}
			_, err := g.ToVFIO(t.Context(), gpu, g.save)
			late, ok := errors.AsType[*rebind.WaitError](err)
			if !ok || late.Missing != test.missing || late.Err != nil || late.Limit != 50*time.Millisecond {
				t.Errorf("error %v, want that %s is missing", err, test.missing)
			}
			if test.hide == path+"/driver" {
				return // the function looks unbound, and is not
			}
			if d := g.driver(gpu); d != "i915" || g.last().Step != rebind.Done {
				t.Errorf("bound to %q, saved %+v, want all as before", d, g.last())
			}
		})
	}
}

func TestWhatAppearsLateIsWaitedFor(t *testing.T) {
	g := newRig(t, patient)
	late := make(chan struct{})
	g.after = func(n int) {
		if n == 3 {
			g.Remove("/sys/class/vfio/42")
			go func() {
				defer close(late)
				time.Sleep(100 * time.Millisecond)
				g.Link("/sys/class/vfio/42", "/sys/devices/virtual/vfio/42")
			}()
		}
	}
	g.give(gpu)
	if _, ok := g.Tree()["/sys/class/vfio/42"]; !ok {
		t.Error("it does not wait for the group's node")
	}
	<-late
}

func TestACallThatIsCalledOffIsUndone(t *testing.T) {
	g := newRig(t, patient)
	before := g.Tree()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.ToVFIO(ctx, gpu, g.save); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]string{"save moving", "save done"}, g.happened()); diff != "" {
		t.Error(diff)
	}

	ctx, cancel = context.WithCancel(t.Context())
	g.writes = 0
	g.after = func(n int) {
		if n == 3 {
			g.Remove("/sys/class/vfio/42")
			cancel()
		}
	}
	if _, err := g.ToVFIO(ctx, gpu, g.save); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(before, g.Tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}
}

func TestAWriteThatBlocksIsReportedAndNotRepeated(t *testing.T) {
	t.Parallel()
	g := newRig(t, patient)
	before := g.Tree()
	s := g.give(gpu)
	g.open(hasty)
	g.happened()
	release := g.Hold(42)

	err := g.Restore(t.Context(), s, false, g.save)
	stuck, ok := errors.AsType[*rebind.StuckError](err)
	if !ok || stuck.Address != gpu || stuck.File != "sys/bus/pci/drivers/vfio-pci/unbind" || time.Since(stuck.Since) < hasty.Write {
		t.Fatalf("error %v", err)
	}
	if !errors.Is(g.Stuck(gpu), stuck) || g.Stuck("0000:4a:00.0") != nil {
		t.Errorf("stuck is %v, and of another %v", g.Stuck(gpu), g.Stuck("0000:4a:00.0"))
	}
	for range 3 {
		for _, state := range []rebind.State{s, g.last()} {
			if err := g.Restore(t.Context(), state, false, g.save); !errors.Is(err, stuck) {
				t.Errorf("error %v, want the same", err)
			}
		}
		if _, err := g.ToVFIO(t.Context(), gpu, g.save); !errors.Is(err, stuck) {
			t.Errorf("error %v, want the same", err)
		}
	}
	if diff := cmp.Diff([]string{"save moving", unbind("vfio-pci", gpu)}, g.happened()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	release()
	g.answered(gpu)
	if err := g.Restore(t.Context(), g.last(), false, g.save); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{override(gpu, "i915"), bind("i915", gpu), override(gpu, "\n"), "save done"}, g.happened()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(before, g.Tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}
}

func TestAnotherProcessMeetsTheSameBlockedWrite(t *testing.T) {
	t.Parallel()
	g := newRig(t, patient)
	before := g.Tree()
	s := g.give(gpu)
	release := g.Hold(42)
	for range 2 {
		g.open(hasty)
		err := g.Restore(t.Context(), s, false, g.save)
		if _, ok := errors.AsType[*rebind.StuckError](err); !ok {
			t.Errorf("error %v", err)
		}
		s = g.last()
	}
	release()
	g.open(patient)
	if err := g.Restore(t.Context(), s, false, g.save); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, g.Tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}
}

func TestABlockedFunctionDoesNotKeepOthers(t *testing.T) {
	t.Parallel()
	const other = "0000:4a:00.0"
	g := newRig(t, hasty)
	g.add(other, 0xe211, 50, "xe")
	s := g.give(gpu)
	g.Hold(42)
	if err := g.Restore(t.Context(), s, false, g.save); g.Stuck(gpu) == nil {
		t.Fatalf("error %v, and not stuck", err)
	}
	g.give(other)
}

func TestWhateverWriteBlocksTheFunctionStaysUnderWay(t *testing.T) {
	for n, what := range []string{"driver_override", "unbind", "bind"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, hasty)
			letGo := make(chan struct{})
			g.meanwhile = func(i int, _, _ string) error {
				if i == n+1 {
					<-letGo
				}
				return nil
			}
			before := g.Tree()
			s, err := g.ToVFIO(t.Context(), gpu, g.save)
			if _, ok := errors.AsType[*rebind.StuckError](err); !ok || s.Step != rebind.Moving || g.last() != s {
				t.Errorf("error %v, state %+v, saved %+v", err, s, g.last())
			}
			want := []string{"save moving", override(gpu, "vfio-pci"), unbind("i915", gpu), bind("vfio-pci", gpu)}
			if diff := cmp.Diff(want[:n+2], g.happened()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			close(letGo)
			g.answered(gpu)
			g.open(patient)
			if err := g.Restore(t.Context(), s, false, g.save); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(before, g.Tree()); diff != "" {
				t.Errorf("the host -before +after:\n%s", diff)
			}
		})
	}
}

func TestAResetThatBlocksIsTheLastWrite(t *testing.T) {
	t.Parallel()
	g := newRig(t, hasty)
	g.File("/sys/devices/pci0000:37/0000:37:01.0/"+gpu+"/reset", "")
	s := g.give(gpu)
	g.happened()
	letGo := make(chan struct{})
	g.meanwhile = func(_ int, name, _ string) error {
		if strings.HasSuffix(name, "/reset") {
			<-letGo
		}
		return nil
	}
	err := g.Restore(t.Context(), s, true, g.save)
	if stuck, ok := errors.AsType[*rebind.StuckError](err); !ok || !strings.HasSuffix(stuck.File, "/reset") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]string{"save moving", unbind("vfio-pci", gpu), "devices/" + gpu + "/reset 1"}, g.happened()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	close(letGo)
	g.answered(gpu)
}

func TestWhatOthersHaveChangedIsLeftToThem(t *testing.T) {
	to := func(g *rig, driver string) {
		g.must("drivers/vfio-pci/unbind", gpu)
		g.must("devices/"+gpu+"/driver_override", driver)
		g.must("drivers/"+driver+"/bind", gpu)
	}
	for name, test := range map[string]struct {
		change func(*rig)
		now    rebind.Binding
		gone   bool
	}{
		"another driver": {func(g *rig) {
			g.File(bus+"drivers/uio_pci_generic/bind", "")
			to(g, "uio_pci_generic")
		}, rebind.Binding{Driver: "uio_pci_generic", Override: "uio_pci_generic"}, false},
		"another driver, without override": {func(g *rig) {
			to(g, "xe")
			g.must("devices/"+gpu+"/driver_override", "\n")
		}, rebind.Binding{Driver: "xe"}, false},
		"no driver":        {func(g *rig) { g.must("drivers/vfio-pci/unbind", gpu) }, rebind.Binding{Override: "vfio-pci"}, false},
		"another override": {func(g *rig) { g.must("devices/"+gpu+"/driver_override", "nvme") }, rebind.Binding{Driver: "vfio-pci", Override: "nvme"}, false},
		"no function":      {func(g *rig) { g.Remove(bus + "devices/" + gpu) }, rebind.Binding{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, patient)
			s := g.give(gpu)
			test.change(g)
			left := g.Tree()
			g.happened()
			err := g.Restore(t.Context(), s, true, g.save)
			changed, ok := errors.AsType[*rebind.ChangedError](err)
			if !ok || changed.Now != test.now || changed.Gone != test.gone || changed.State != s {
				t.Errorf("error %v, want one that tells of %+v", err, test.now)
			}
			if diff := cmp.Diff([]string{"save done"}, g.happened()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(left, g.Tree()); diff != "" {
				t.Errorf("the host -before +after:\n%s", diff)
			}
		})
	}
}

func TestWhatOthersHavePutBackIsFine(t *testing.T) {
	for name, test := range map[string]struct {
		override string
		want     []string
	}{
		"entirely":               {"\n", []string{"save done"}},
		"but for the override":   {"vfio-pci", []string{"save moving", override(gpu, "\n"), "save done"}},
		"with the override kept": {"i915", []string{"save moving", override(gpu, "\n"), "save done"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, patient)
			before := g.Tree()
			s := g.give(gpu)
			g.must("drivers/vfio-pci/unbind", gpu)
			g.must("devices/"+gpu+"/driver_override", "i915")
			g.must("drivers/i915/bind", gpu)
			g.must("devices/"+gpu+"/driver_override", test.override)
			g.happened()
			if err := g.Restore(t.Context(), s, true, g.save); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(test.want, g.happened()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(before, g.Tree()); diff != "" {
				t.Errorf("the host -before +after:\n%s", diff)
			}
		})
	}
}

func TestWhatNobodyGaveIsNotTakenBack(t *testing.T) {
	g := newRig(t, patient)
	g.must("devices/"+gpu+"/driver_override", "vfio-pci")
	g.must("drivers/i915/unbind", gpu)
	g.must("drivers/vfio-pci/bind", gpu)
	s := g.give(gpu)
	g.must("devices/"+gpu+"/driver_override", "\n")
	if err := g.Restore(t.Context(), s, true, g.save); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"save done"}, g.happened()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAChangeDuringGivingIsLeftToWhoMadeIt(t *testing.T) {
	g := newRig(t, patient)
	g.meanwhile = func(n int, _, _ string) error {
		if n == 3 {
			g.must("devices/"+gpu+"/driver_override", "xe")
			g.must("drivers/xe/bind", gpu)
		}
		return nil
	}
	s, err := g.ToVFIO(t.Context(), gpu, g.save)
	if _, ok := errors.AsType[*rebind.ChangedError](err); !ok || !errors.Is(err, syscall.ENODEV) || s.Step != rebind.Done {
		t.Errorf("state %+v, error %v", s, err)
	}
	if d := g.driver(gpu); d != "xe" {
		t.Errorf("bound to %q", d)
	}
}

func TestAfterTheMachineHasStartedAgainNothingIsRestored(t *testing.T) {
	g := newRig(t, patient)
	s := g.give(gpu)
	g.happened()
	g.File(boot, "0d6c1b62-5d8e-4b63-8d0e-2f0e7d4b7a11")
	if err := g.Restore(t.Context(), s, true, g.save); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"save done"}, g.happened()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestNothingIsRestoredWhileTheBootIsNotKnown(t *testing.T) {
	g := newRig(t, patient)
	s := g.give(gpu)
	g.happened()
	anonymous := s
	anonymous.BootID = ""
	if err := g.Restore(t.Context(), anonymous, false, g.save); err == nil {
		t.Error("a state of no boot is restored")
	}
	g.Remove(boot)
	if err := g.Restore(t.Context(), s, false, g.save); err == nil {
		t.Error("a state is restored in a boot that is not known")
	}
	if events := g.happened(); len(events) != 0 {
		t.Errorf("it writes and saves: %q", events)
	}
}

func TestAFunctionIsResetWhileItHasNoDriver(t *testing.T) {
	const file = "/sys/devices/pci0000:37/0000:37:01.0/" + gpu + "/reset"
	back := []string{override(gpu, "i915"), bind("i915", gpu), override(gpu, "\n"), "save done"}
	for name, test := range map[string]struct {
		can   bool
		fails bool
		want  []string
	}{
		"that can be":    {true, false, slices.Concat([]string{"save moving", unbind("vfio-pci", gpu), "devices/" + gpu + "/reset 1"}, back)},
		"that cannot be": {false, false, slices.Concat([]string{"save moving", unbind("vfio-pci", gpu)}, back)},
		"that fails to":  {true, true, slices.Concat([]string{"save moving", unbind("vfio-pci", gpu), "devices/" + gpu + "/reset 1"}, back)},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, patient)
			if test.can {
				g.File(file, "")
			}
			before := g.Tree()
			s := g.give(gpu)
			g.happened()
			g.Refuse(func(_ int, path, _ string) bool { return test.fails && strings.HasSuffix(path, "/reset") }, syscall.ENOTTY)
			err := g.Restore(t.Context(), s, true, g.save)
			if errors.Is(err, syscall.ENOTTY) != test.fails || (err != nil) != test.fails {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(test.want, g.happened()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(before, g.Tree()); diff != "" {
				t.Errorf("the host -before +after:\n%s", diff)
			}
		})
	}
}

func TestAFunctionThatHadNoDriverIsResetEvenIfItIsFoundUnbound(t *testing.T) {
	g := newRig(t, patient)
	g.File("/sys/devices/pci0000:37/0000:37:01.0/"+gpu+"/reset", "")
	g.must("drivers/i915/unbind", gpu)
	before := g.Tree()
	s := g.give(gpu)
	s.Step = rebind.Moving
	g.must("drivers/vfio-pci/unbind", gpu)
	g.happened()
	if err := g.Restore(t.Context(), s, true, g.save); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"devices/" + gpu + "/reset 1", override(gpu, "\n"), "save done"}, g.happened()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(before, g.Tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}
}

func TestAFunctionWhoseDriverIsNotLoadedAnyMoreIsRestoredWhenItIs(t *testing.T) {
	g := newRig(t, patient)
	before := g.Tree()
	s := g.give(gpu)
	g.Remove(bus + "drivers/i915")
	err := g.Restore(t.Context(), s, false, g.save)
	if missing, ok := errors.AsType[*rebind.ModuleError](err); !ok || missing.Driver != "i915" || !strings.Contains(err.Error(), "modprobe i915") || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if d := g.driver(gpu); d != "" || g.last().Step != rebind.Moving {
		t.Errorf("bound to %q, saved %+v", d, g.last())
	}
	g.File(bus+"drivers/i915/bind", "")
	g.File(bus+"drivers/i915/unbind", "")
	if err := g.Restore(t.Context(), g.last(), false, g.save); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, g.Tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}
}
