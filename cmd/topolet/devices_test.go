package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/npu"
)

func TestDevicesAreLookedAtAgain(t *testing.T) {
	h := devicetest.New(t)
	f := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:0b.0", Vendor: 0x8086, Device: 0x7d1d, Class: 0x120000, Group: 9, Driver: "intel_vpu"}
	h.Add(f)
	h.Char(f.Path, "accel/accel0", "261:0", "accel/accel0")
	h.File(f.Path+"/aer_dev_fatal", "Undefined 0\nTOTAL_ERR_FATAL 2")
	root, err := topology.OpenRoot(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // only read
	var w *deviceWatch
	stateDir := t.TempDir()
	start := func() {
		w = newDeviceWatch(root, []device.Family{npu.Family{}}, nil)
		w.remember(t.Context(), stateDir)
	}
	start()
	look := func(wantChange bool, want ...device.Taint) {
		t.Helper()
		m, err := topology.Discover(root)
		if err != nil {
			t.Fatal(err)
		}
		if changed := w.look(t.Context(), m, func() []allocator.Grant { return nil }); changed != wantChange {
			t.Errorf("changed: %t, want %t", changed, wantChange)
		}
		if len(w.devices) != 1 || len(w.devices[0].Taints) != len(want) || len(want) > 0 && w.devices[0].Taints[0] != want[0] {
			t.Errorf("devices %+v, want one with taints %+v", w.devices, want)
		}
	}

	look(true)
	look(false)
	h.File(f.Path+"/aer_dev_fatal", "Undefined 0\nTOTAL_ERR_FATAL 3")
	broken := device.Taint{Reason: device.Unhealthy, Value: "aer-fatal"}
	look(true, broken)
	look(false, broken)
	start() // another process does not forget it
	look(true, broken)
	h.File("/proc/sys/kernel/random/boot_id", "another-boot")
	start() // what counted in the run of the machine before is of no use
	look(true)
	h.File(f.Path+"/aer_dev_fatal", "Undefined 0\nTOTAL_ERR_FATAL 0")
	look(false)
	h.File(f.Path+"/aer_dev_fatal", "Undefined 0\nTOTAL_ERR_FATAL 1")
	look(true, broken)
	for _, content := range []string{"{", `{"version":2,"bootID":"another-boot","fatal":{"0000:00:0b.0":1}}`, `{"version":1,"bootID":"another-boot"}`} {
		if err := os.WriteFile(filepath.Join(stateDir, errorCountsName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		start()
		look(true)
	}
	h.Remove(f.Path + "/driver")
	look(true, device.Taint{Reason: device.DriverLost})
}

func TestErrorCountsThatCannotBeSavedAreSavedLater(t *testing.T) {
	h := devicetest.New(t)
	stateDir := filepath.Join(t.TempDir(), "state")
	c, err := loadErrorCounts(stateDir, os.DirFS(h.Dir))
	if err != nil {
		t.Fatal(err)
	}
	c.rose("0000:00:0b.0", 1)
	if err := c.save(); err == nil {
		t.Error("a file in a folder that is not there is saved")
	}
	if err := os.Mkdir(stateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	if c, err = loadErrorCounts(stateDir, os.DirFS(h.Dir)); err != nil || !c.rose("0000:00:0b.0", 2) {
		t.Errorf("the counts are %v, %v", c.Fatal, err)
	}
}

func TestEveryFamilyOfTheConfigurationExists(t *testing.T) {
	names := []string{"pci", "gpu", "gaudi", "qat", "dsa", "iaa", "dlb", "fpga", "sgx", "npu", "nic", "nvme"}
	text := "apiVersion: topolet.dev/v1alpha1\nkind: Configuration\ndevices:\n"
	for _, name := range names {
		text += "- family: " + name + "\n"
		if name == "pci" {
			text += "  entries: [{name: foo, match: {vendor: \"0x1234\"}, expose: chardev}]\n"
		}
	}
	config, err := v1alpha1.DecodeConfiguration([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	families := familiesOf(config, nil, nil)
	var got []string
	for _, f := range families {
		got = append(got, f.Name())
	}
	// Entries select what no other family knows.
	if want := append(names[1:], "pci"); !slices.Equal(got, want) {
		t.Errorf("families %v, want %v", got, want)
	}
}

func TestACardWhoseInterfaceIsWithItsClaimIsNotBroken(t *testing.T) {
	use := device.Use{Owner: "0000:17:00.0"}
	away := device.Device{Name: "nic-0", Family: "nic", Personality: device.Kernel, Use: use, Taints: []device.Taint{{Reason: device.DriverLost, Value: "no-interface"}}}
	twin := away
	twin.Name, twin.Personality = "nic-0-vfio", device.VFIO
	grants := []allocator.Grant{{Parts: []allocator.Part{{
		Request: allocator.Request{Domain: "nic-0"}, Hardware: &allocator.Hardware{Family: "nic", Use: use, Interfaces: []string{"eth1"}},
	}}}}
	if seen := atHome([]device.Device{away, twin}, nil); len(seen[0].Taints) != 1 || len(seen[1].Taints) != 1 {
		t.Error("a card that nobody has is not tainted")
	}
	seen := atHome([]device.Device{away, twin}, grants)
	if len(seen[0].Taints) != 0 || !slices.Equal(seen[0].Interfaces, []string{"eth1"}) {
		t.Errorf("the claim's card is %+v", seen[0])
	}
	if len(seen[1].Taints) != 0 || len(seen[1].Interfaces) != 0 {
		t.Errorf("the claim's card to be handed over is %+v", seen[1])
	}
	if len(away.Taints) != 1 {
		t.Error("the picture itself was changed")
	}
}
