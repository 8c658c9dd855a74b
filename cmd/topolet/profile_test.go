package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/test/expect"
	"github.com/topolet/topolet/topology/device/devicetest"
)

// card is a network card that can have virtual functions.
func card(h *devicetest.Host) devicetest.Function {
	f := devicetest.Function{Path: "/sys/devices/pci0000:37/0000:3b:00.0", Vendor: 0x15b3, Device: 0x101d, Class: 0x020000, Group: 50, Driver: "mlx5_core"}
	h.Add(f)
	h.Files(f.Path, map[string]string{"sriov_totalvfs": "8", "sriov_numvfs": "0", "sriov_vf_device": "101e", "sriov_drivers_autoprobe": "1", "sriov_offset": "1", "sriov_stride": "1"})
	return f
}

const cardProfile = `apiVersion: topolet.dev/v1alpha1
kind: Configuration
devices:
  - family: nic
    profiles:
      - match: {busIDs: ["0000:3b:00.0"]}
        virtualFunctions: 2
`

func TestProfileShowsWhatWouldBeWrittenAndWritesNothing(t *testing.T) {
	h := devicetest.New(t)
	card(h)
	config := write(t, "config.yaml", cardProfile)
	before := h.Tree()
	out, err := execute("profile", "--config", config, "--root", h.Dir)
	const want = `0000:3b:00.0 (devices[0].profiles[0]):
  echo '2'          > /sys/bus/pci/devices/0000:3b:00.0/sriov_numvfs  # switch the virtual functions on
`
	if err != nil || out != want {
		t.Errorf("got %v:\n%s\nwant:\n%s", err, out, want)
	}
	if diff := cmp.Diff(before, h.Tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}
}

func TestProfileSaysThatThereIsNothingToDo(t *testing.T) {
	h := devicetest.New(t)
	f := card(h)
	h.File(f.Path+"/sriov_numvfs", "2")
	for text, want := range map[string]string{
		cardProfile: "0000:3b:00.0 (devices[0].profiles[0]): there is nothing to do\n",
		"apiVersion: topolet.dev/v1alpha1\nkind: Configuration\ndevices: [{family: gpu, profiles: [{virtualFunctions: 1}]}]\n": "devices[0].profiles[0]: no function of family gpu matches that is bound to its driver\n",
	} {
		if out, err := execute("profile", "--config", write(t, "config.yaml", text), "--root", h.Dir); err != nil || out != want {
			t.Errorf("got %v:\n%s\nwant:\n%s", err, out, want)
		}
	}
	none := write(t, "config.yaml", "apiVersion: topolet.dev/v1alpha1\nkind: Configuration\n")
	if out, err := execute("profile", "--config", none, "--root", h.Dir); err != nil || out != none+" has no profiles: nothing is changed\n" {
		t.Errorf("got %v:\n%s", err, out)
	}
}

func TestProfileRefuses(t *testing.T) {
	config := write(t, "config.yaml", cardProfile)
	_, err := execute("profile")
	expect.Error(t, err, "--config is empty", "set it to the configuration file")
	_, err = execute("profile", "--config", config, "--root", t.TempDir())
	expect.Error(t, err, "--root")
	_, err = execute("profile", "--config", config+"-none")
	expect.Error(t, err, "configuration file")
}
