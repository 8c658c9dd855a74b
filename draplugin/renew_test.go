package draplugin

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology/device"
)

const ownGPU = "gpu-0000-40-00-0"

// rebound has the driver of the claim's GPU be bound anew, under other names.
func (r *handoverRig) rebound(t *testing.T) {
	t.Helper()
	dir := "/sys/devices/pci0000:37/0000:40:00.0"
	for _, name := range []string{"card1", "renderD128"} {
		r.kernel.Remove(dir + "/drm/" + name)
		r.kernel.Remove("/sys/class/drm/" + name)
	}
	r.kernel.Char(dir, "drm/card3", "226:3", "dri/card3")
	r.kernel.Char(dir, "drm/renderD130", "226:130", "dri/renderD130")
	r.look(t)
}

func TestAClaimHasTheNodesThatItsDeviceHasNow(t *testing.T) {
	r := oneOfEach(t)
	var ids []string
	for _, d := range r.mustPrepare(t, handoverClaim(ownGPU, "npu-0000-47-00-0")) {
		ids = append(ids, d.CDIDeviceIDs...)
	}
	reports := r.newReporter()
	renew := func() {
		t.Helper()
		if err := reports.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	saves := r.store.saves
	renew()
	if r.store.saves != saves {
		t.Error("the ledger is stored although nothing has changed")
	}
	r.rebound(t)
	renew()
	want := []string{"/dev/accel/accel1 c 261:1 rw", "/dev/dri/card3 c 226:3 rw", "/dev/dri/renderD130 c 226:130 rw"}
	if diff := cmp.Diff(want, r.nodesOf(t, ids)); diff != "" {
		t.Errorf("nodes -want +got:\n%s", diff)
	}
	var held []device.Node
	for _, g := range r.ledger.Grants() {
		for _, h := range g.HardwareOf("r0") {
			held = append(held, h.Nodes...)
		}
	}
	if len(held) != 2 || held[0].Path != "/dev/dri/card3" {
		t.Errorf("the claim has %v", held)
	}
	said := r.notes.all()
	if len(said) != 1 || !strings.Contains(said[0], "DeviceNodesChanged: claim default/claim-c (c): device "+ownGPU+
		" has [/dev/dri/card3 (c 226:3) /dev/dri/renderD130 (c 226:130)] by now in place of [/dev/dri/card1 (c 226:1) /dev/dri/renderD128 (c 226:128)]") {
		t.Errorf("people are told %q", said)
	}
	renew()
	if again := r.notes.all(); len(again) != 1 {
		t.Errorf("people are told again: %q", again)
	}
}

func TestNodesThatAreAwayForAMomentStayTheClaims(t *testing.T) {
	for name, lost := range map[string][]string{"all": {"card1", "renderD128"}, "one": {"card1"}} {
		t.Run(name, func(t *testing.T) {
			r := oneOfEach(t)
			r.mustPrepare(t, handoverClaim(ownGPU))
			before := r.disk(t)
			for _, node := range lost {
				r.kernel.Remove("/sys/devices/pci0000:37/0000:40:00.0/drm/" + node)
				r.kernel.Remove("/sys/class/drm/" + node)
			}
			r.look(t)
			if err := r.newReporter().renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, r.disk(t)); diff != "" {
				t.Errorf("files -before +after:\n%s", diff)
			}
		})
	}
}

// Whatever cannot be written, the spec and the ledger agree in the end.
func TestNodesThatCannotBeWrittenAreWrittenLater(t *testing.T) {
	for name, fail := range map[string]func(*handoverRig, bool){
		"ledger": func(r *handoverRig, on bool) { r.store.fail = on },
		"spec": func(r *handoverRig, on bool) {
			file := r.cdiDir + "/" + specName("c") + "-new"
			if on {
				if err := os.MkdirAll(file+"/full", 0o700); err != nil {
					t.Fatal(err)
				}
			} else if err := os.RemoveAll(file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := oneOfEach(t)
			var ids []string
			for _, d := range r.mustPrepare(t, handoverClaim(ownGPU)) {
				ids = append(ids, d.CDIDeviceIDs...)
			}
			r.rebound(t)
			reports := r.newReporter()
			fail(r, true)
			if err := reports.renew(t.Context()); err == nil {
				t.Error("no error")
			}
			if said := r.notes.all(); len(said) != 0 {
				t.Errorf("people are told %q", said)
			}
			fail(r, false)
			if err := reports.renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := []string{"/dev/dri/card3 c 226:3 rw", "/dev/dri/renderD130 c 226:130 rw"}
			if diff := cmp.Diff(want, r.nodesOf(t, ids)); diff != "" {
				t.Errorf("nodes -want +got:\n%s", diff)
			}
			r.restart(t)
			if g, _ := r.ledger.GrantOf("c"); g.Parts[0].Hardware.Nodes[0].Path != "/dev/dri/card3" {
				t.Errorf("after a restart the claim has %v", g.Parts[0].Hardware.Nodes)
			}
		})
	}
}
