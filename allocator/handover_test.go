package allocator

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology/device"
)

var (
	moving = Handover{Step: Moving, BootID: "boot", Before: Binding{Driver: "i915"}, After: Binding{"vfio-pci", "vfio-pci"}}
	given  = Handover{Step: Given, BootID: "boot", Before: moving.Before, After: moving.After}

	vfioNodes = []device.Node{{Path: "/dev/vfio/42", Major: 243, Minor: 42, Role: device.VFIOGroup}, {Path: "/dev/iommu", Major: 10, Minor: 123, Role: device.VFIOCdev}}
)

// managedLedger has a claim with a function that is to be handed over.
func managedLedger(t *testing.T, store Store) *Ledger {
	t.Helper()
	l := newLedger(t, store)
	devices := someDevices()
	devices[3].Managed = true
	l.ReplaceDevices(devices)
	grant(t, l, claim("held", "p"), asksVFIO())
	return l
}

func asksVFIO() []Request {
	return deviceRequest(gpuVFIO, func(r *Request) { r.Roles = []string{device.VFIOGroup} })
}

func held(t *testing.T, l *Ledger) *Hardware {
	t.Helper()
	g, ok := l.GrantOf("held")
	if !ok {
		t.Fatal("the claim has no grant")
	}
	return g.Parts[0].Hardware
}

func TestAFunctionThatIsHandedOverIsKeptWithItsClaim(t *testing.T) {
	store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint")}
	l := managedLedger(t, store)
	for _, step := range []struct {
		to    Handover
		nodes []device.Node
		want  []device.Node
	}{{moving, nil, nil}, {given, vfioNodes, vfioNodes[:1]}, {given, vfioNodes, vfioNodes[:1]}, {moving, nil, nil}, {Handover{}, nil, nil}} {
		before := held(t, l)
		if err := l.HandOver("held", gpuVFIO, step.to, step.nodes); err != nil {
			t.Fatal(err)
		}
		if before == held(t, l) && step.to != *before.Handover {
			t.Error("a grant that was handed out has changed")
		}
		kept, err := store.Load()
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range []*Hardware{held(t, l), kept[0].Parts[0].Hardware} {
			if *h.Handover != step.to || !cmp.Equal(step.want, h.Nodes) {
				t.Errorf("the claim has %+v with nodes %+v, want %+v with %+v", h.Handover, h.Nodes, step.to, step.want)
			}
		}
		// Being prepared again changes nothing of it, whatever the machine shows.
		shown := someDevices()
		shown[3].Nodes = []device.Node{{Path: "/dev/vfio/99", Major: 243, Minor: 99}}
		l.ReplaceDevices(shown)
		if g := grant(t, l, claim("held", "p"), asksVFIO()); *g.Parts[0].Hardware.Handover != step.to || !cmp.Equal(step.want, g.Parts[0].Hardware.Nodes) {
			t.Errorf("prepared again it has %+v", g.Parts[0].Hardware)
		}
	}
}

func TestWhatIsKnownIsNotStoredAgain(t *testing.T) {
	store := &memory{}
	l := managedLedger(t, store)
	for range 2 {
		if err := l.HandOver("held", gpuVFIO, given, vfioNodes); err != nil {
			t.Fatal(err)
		}
	}
	if store.saves != 2 { // the grant, and this
		t.Errorf("stored %d times", store.saves)
	}
}

func TestAFunctionOnItsWayAdmitsNobodyAndOneInUseStays(t *testing.T) {
	l := managedLedger(t, &memory{})
	ctr := Container{ID: "ctr", Name: "main", Pod: "p", PodName: "p", Claims: []Ref{{Claim: "held"}}}
	for _, to := range []Handover{{}, moving} {
		if err := l.HandOver("held", gpuVFIO, to, nil); err != nil {
			t.Fatal(err)
		}
		var refused *NotHandedOverError
		if _, err := l.Admit(ctr); !errors.As(err, &refused) || refused.Device != gpuVFIO || !strings.Contains(err.Error(), "container main of pod /p") {
			t.Errorf("a container of a function that is %q: %v", to.Step, err)
		}
	}
	if err := l.HandOver("held", gpuVFIO, given, vfioNodes); err != nil {
		t.Fatal(err)
	}
	if placed, err := l.Admit(ctr); err != nil || !cmp.Equal(vfioNodes[:1], placed.Nodes) {
		t.Errorf("a container gets %+v, %v", placed, err)
	}
	var inUse *InUseError
	if err := l.HandOver("held", gpuVFIO, moving, nil); !errors.As(err, &inUse) || held(t, l).Handover.Step != Given {
		t.Errorf("it is taken from its container: %v", err)
	}
	l.Remove("ctr")
	if err := l.HandOver("held", gpuVFIO, moving, nil); err != nil {
		t.Error(err)
	}
}

func TestAHandoverThatCannotBeStoredHasNotHappened(t *testing.T) {
	store := &memory{}
	l := managedLedger(t, store)
	store.fail = errors.New("full")
	if err := l.HandOver("held", gpuVFIO, moving, nil); err == nil || *held(t, l).Handover != (Handover{}) {
		t.Errorf("%v, and the claim has %+v", err, held(t, l).Handover)
	}
	store.fail = nil
	for uid, name := range map[ClaimUID]string{"held": gpuWhole, "other": gpuVFIO} {
		if err := l.HandOver(uid, name, moving, nil); err == nil || !strings.Contains(err.Error(), "claim "+string(uid)+" has no device "+name) {
			t.Errorf("%s of claim %s: %v", name, uid, err)
		}
	}
}

func TestWhoLooksOnlyIsHandedNothingOver(t *testing.T) {
	l := managedLedger(t, &memory{})
	if g := grant(t, l, claim("admin", "q"), deviceRequest(gpuVFIO, admin)); g.Parts[0].Hardware.Handover != nil {
		t.Errorf("it has %+v", g.Parts[0].Hardware)
	}
}

func TestAClaimFromBeforeItsFamilyWasManagedStaysAsItIs(t *testing.T) {
	l := newLedger(t, &memory{})
	devices := someDevices()
	devices[3].Nodes = vfioNodes
	l.ReplaceDevices(devices)
	before := grant(t, l, claim("held", "p"), asksVFIO())
	devices = someDevices()
	devices[3].Managed = true
	l.ReplaceDevices(devices)
	if diff := cmp.Diff(before, grant(t, l, claim("held", "p"), asksVFIO()), compareSets); diff != "" {
		t.Errorf("its grant -before +after:\n%s", diff)
	}
}

func TestAHandoverThatMakesNoSenseIsNotBelieved(t *testing.T) {
	for name, h := range map[string]Handover{
		"another step":      {Step: "flying", BootID: "boot"},
		"without a boot":    {Step: Given, Before: moving.Before, After: moving.After},
		"waiting, but not":  {BootID: "boot"},
		"waiting with more": {After: moving.After},
	} {
		t.Run(name, func(t *testing.T) {
			store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint")}
			g := Grant{Claim: claim("held"), Parts: []Part{{Request: deviceRequest(gpuVFIO)[0], Hardware: &Hardware{Address: gpuAddress, Handover: &h}}}}
			if err := store.Save([]Grant{g}); err != nil {
				t.Fatal(err)
			}
			good, err := store.Load()
			if bad, ok := errors.AsType[*BadGrantsError](err); !ok || len(bad.Grants) != 1 || len(good) != 0 {
				t.Errorf("%v, kept are %+v", err, good)
			}
		})
	}
}
