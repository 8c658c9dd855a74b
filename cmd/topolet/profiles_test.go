package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/profile"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
)

const (
	graphics       = "0000:3a:00.0"
	graphicsDevice = "gpu-0000-3a-00-0"
	firstVF        = "gpu-0000-3a-00-1"
)

// profileRig is a node with a graphics card.
type profileRig struct {
	*testing.T
	*devicetest.Kernel
	root     fs.FS
	ledger   *allocator.Ledger
	watch    *deviceWatch
	stateDir string
	// meanwhile is called before a write.
	meanwhile func()
	writes    int
	// events are those of the node.
	events []string
}

// Warn implements warner.
func (r *profileRig) Warn(_ context.Context, reason, message string) {
	r.events = append(r.events, reason+": "+message)
}

func newProfileRig(t *testing.T) *profileRig {
	t.Helper()
	h := devicetest.New(t)
	r := &profileRig{T: t, Kernel: devicetest.NewKernel(h), stateDir: t.TempDir()}
	f := devicetest.Function{Path: "/sys/devices/pci0000:37/" + graphics, Vendor: 0x8086, Device: 0x56c0, Class: 0x038000, Group: 42}
	h.Add(f)
	h.Files(f.Path, map[string]string{"sriov_totalvfs": "4", "sriov_numvfs": "0", "sriov_vf_device": "56c0", "sriov_drivers_autoprobe": "1", "sriov_offset": "1", "sriov_stride": "1"})
	r.Load(devicetest.Driver{Name: "i915", IDs: []int{0x808656c0}, VFs: true, Probe: func(f devicetest.Function) error {
		n := f.Path[len(f.Path)-1] - '0'
		h.Char(f.Path, fmt.Sprintf("drm/card%d", n), fmt.Sprintf("226:%d", n), fmt.Sprintf("dri/card%d", n))
		h.File(f.Path+"/drm/card"+fmt.Sprint(n)+"/lmem_total_bytes", "1024")
		return nil
	}})
	root, err := topology.OpenRoot(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() }) //nolint:errcheck // only read
	r.root = root
	m := h.Open().Machine
	r.ledger, err = allocator.NewLedger(m, allocator.Policy{ReservedCPUs: allocator.DefaultReserved(m)}, allocator.FileStore{Path: t.TempDir() + "/checkpoint"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	config := v1alpha1.Configuration{Devices: []v1alpha1.DeviceFamily{{Family: "gpu"}}}
	r.watch = newDeviceWatch(root, familiesOf(config, nil, nil), func(string) error { return nil })
	r.watch.tell(t.Context(), r.ledger)
	return r
}

// Write implements sysfs.Writer.
func (r *profileRig) Write(_ context.Context, name, data string) error {
	r.writes++
	if r.meanwhile != nil {
		r.meanwhile()
	}
	return r.Kernel.Write("/"+name, data)
}

// start is another process, whose profile wants so many virtual functions, or which has none.
func (r *profileRig) start(vfs int) *profiles {
	r.Helper()
	var list []profile.Profile
	if vfs >= 0 {
		list = []profile.Profile{{Name: "devices[0].profiles[0]", Family: "gpu", Profile: v1alpha1.Profile{VirtualFunctions: &vfs}}}
	}
	p, err := newProfiles(r.Context(), r.stateDir, r.root, r, r.ledger, r.watch, r, list)
	if err != nil {
		r.Fatal(err)
	}
	return p
}

func (r *profileRig) vfs() string {
	return r.Tree()["/sys/devices/pci0000:37/"+graphics+"/sriov_numvfs"]
}

func (r *profileRig) grant(name string) error {
	_, err := r.ledger.Grant(allocator.Claim{UID: "u", Namespace: "prod", Name: "db"}, []allocator.Request{{Name: "dev", Domain: name}})
	return err
}

func TestProfilesAreAppliedAndRestored(t *testing.T) {
	r := newProfileRig(t)
	if !r.start(2).apply(t.Context()) || r.vfs() != "2" {
		t.Errorf("there are %s virtual functions, want 2", r.vfs())
	}
	// They are there to be given away at once.
	if d, ok := r.ledger.Inventory().Device(firstVF); !ok || len(d.Taints) != 0 {
		t.Errorf("%s: %+v", firstVF, d)
	}
	if d, ok := r.ledger.Inventory().Device(graphicsDevice); !ok || !d.Tainted(device.ControlOnly) || d.Tainted(device.DriverLost) {
		t.Errorf("%s: %+v", graphicsDevice, d)
	}
	writes := r.writes
	if r.start(2).apply(t.Context()) || r.writes != writes {
		t.Error("another process writes")
	}
	if !r.start(-1).apply(t.Context()) || r.vfs() != "0" {
		t.Errorf("there are %s virtual functions without a profile", r.vfs())
	}
	if _, ok := r.ledger.Inventory().Device(firstVF); ok {
		t.Errorf("%s can be given away", firstVF)
	}
	if p := r.start(-1); p != nil || p.apply(t.Context()) {
		t.Error("something is left to be restored")
	}
}

func TestAProfileWaitsForClaims(t *testing.T) {
	r := newProfileRig(t)
	r.start(2).apply(t.Context())
	if err := r.grant(firstVF); err != nil {
		t.Fatal(err)
	}
	p, writes := r.start(3), r.writes
	if p.apply(t.Context()) || r.writes != writes {
		t.Error("a function in use is changed")
	}
	r.watch.tell(t.Context(), r.ledger)
	for _, d := range r.ledger.Inventory().Devices {
		if want := d.Personality != device.Monitor; d.Tainted(device.ProfilePending) != want || d.Tainted(device.DriverLost) {
			t.Errorf("%s has the taints %v", d.Name, d.Taints)
		}
	}
	if len(p.said) != 1 || !p.said[graphics+": Pending: claim prod/db has device "+firstVF] {
		t.Errorf("people are told %v", p.said)
	}
	if err := r.ledger.Release("u"); err != nil {
		t.Fatal(err)
	}
	if !p.apply(t.Context()) || r.vfs() != "3" {
		t.Errorf("there are %s virtual functions, want 3", r.vfs())
	}
	r.watch.tell(t.Context(), r.ledger)
	if d, _ := r.ledger.Inventory().Device(firstVF); len(d.Taints) != 0 {
		t.Errorf("%s has the taints %v", firstVF, d.Taints)
	}
}

func TestNobodyIsGivenAFunctionThatIsBeingChanged(t *testing.T) {
	r := newProfileRig(t)
	tried := false
	r.meanwhile = func() {
		tried = true
		// Others look at the devices at any time.
		r.watch.tell(t.Context(), r.ledger)
		if _, lost := errors.AsType[*allocator.DriverLostError](r.grant(graphicsDevice)); !lost {
			t.Error("it is given away")
		}
	}
	if !r.start(1).apply(t.Context()) || !tried {
		t.Error("nothing is written")
	}
	if err := r.grant(firstVF); err != nil {
		t.Error(err)
	}
}

func TestAFunctionThatFailsIsAvailableAsBefore(t *testing.T) {
	r := newProfileRig(t)
	p := r.start(5)
	if p.apply(t.Context()) || len(p.said) != 1 {
		t.Errorf("people are told %v", p.said)
	}
	p.apply(t.Context()) // They are told once.
	if len(r.events) != 1 || !strings.HasPrefix(r.events[0], "ProfileFailed: devices[0].profiles[0] cannot be applied: "+graphics+": ") {
		t.Errorf("the node's events are %q", r.events)
	}
	if err := r.grant(graphicsDevice); err != nil {
		t.Error(err)
	}
}

func TestAFileOfStatesThatCannotBeUsedIsKept(t *testing.T) {
	for _, text := range []string{"{", `{"version":2,"states":[]}`, ""} {
		r := newProfileRig(t)
		file := filepath.Join(r.stateDir, profilesName)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if !r.start(1).apply(t.Context()) {
			t.Error("the profile is not applied")
		}
		aside, err := os.ReadFile(file + "-unusable")
		if err != nil || string(aside) != text {
			t.Errorf("kept: %q, %v", aside, err)
		}
		states, err := loadProfileStates(file)
		if err != nil || len(states) != 1 || !strings.Contains(states[0].Address, graphics) {
			t.Errorf("states %+v, %v", states, err)
		}
	}
}
