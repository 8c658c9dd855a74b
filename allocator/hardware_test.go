package allocator

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

const (
	gpuAddress = "0000:3a:00.0"
	gpuWhole   = "gpu-0000-3a-00-0"
	gpuVFIO    = "gpu-0000-3a-00-0-vfio"
	gpuPart    = "gpu-0000-3a-00-1"
	gpuOther   = "gpu-0000-3a-00-2"
	gpuMonitor = "gpu-0000-3a-00-0-monitor"
	queue      = "dsa-0000-6a-01-0-wq0"
)

// someDevices are the faces of one GPU, and a work queue that three claims can share.
func someDevices() []device.Device {
	node := func(n int64) []device.Node {
		return []device.Node{{Path: "/dev/dri/renderD128", Major: 226, Minor: n}, {Path: "/dev/dri/card0", Major: 226, Minor: n - 128, Role: "card"}}
	}
	return []device.Device{
		{Name: gpuPart, Family: "gpu", Address: "0000:3a:00.1", NUMANode: 0, Use: device.Use{Owner: gpuAddress, Part: "vf0"}, Nodes: node(129)},
		{Name: gpuOther, Family: "gpu", Address: "0000:3a:00.2", NUMANode: 0, Use: device.Use{Owner: gpuAddress, Part: "vf1"}, Nodes: node(130)},
		{Name: gpuWhole, Family: "gpu", Address: gpuAddress, NUMANode: 0, Use: device.Use{Owner: gpuAddress}, Nodes: node(128)},
		{Name: gpuVFIO, Family: "gpu", Personality: device.VFIO, Address: gpuAddress, Use: device.Use{Owner: gpuAddress}},
		{Name: gpuMonitor, Family: "gpu", Personality: device.Monitor, Address: gpuAddress, Nodes: node(128)},
		{Name: queue, Family: "dsa", Shared: true, Use: device.Use{Owner: "0000:6a:01.0", Part: "wq0"}, Capacities: []device.Capacity{device.Shares(3)}},
	}
}

func deviceLedger(t *testing.T, store Store) *Ledger {
	t.Helper()
	l := newLedger(t, store)
	l.ReplaceDevices(someDevices())
	return l
}

func deviceRequest(name string, change ...func(*Request)) []Request {
	r := Request{Name: "dev", Domain: name}
	for _, c := range change {
		c(&r)
	}
	return []Request{r}
}

func admin(r *Request) { r.Admin = true }

func taking(n uint64) func(*Request) {
	return func(r *Request) { r.Amounts = []Amount{{device.SharesCapacity, n}} }
}

func TestTheSameHardwareIsGivenAwayOnce(t *testing.T) {
	for _, test := range []struct {
		name        string
		held, asked []Request
		refused     string
	}{
		{"a part and another part", deviceRequest(gpuPart), deviceRequest(gpuOther), ""},
		{"a part twice", deviceRequest(gpuPart), deviceRequest(gpuPart), "same hardware"},
		{"a part and then the whole", deviceRequest(gpuPart), deviceRequest(gpuWhole), "same hardware"},
		{"the whole and then a part", deviceRequest(gpuWhole), deviceRequest(gpuPart), "same hardware"},
		{"both personalities", deviceRequest(gpuWhole), deviceRequest(gpuVFIO), "same hardware"},
		{"the whole and a monitor", deviceRequest(gpuWhole), deviceRequest(gpuMonitor, admin), ""},
		{"a monitor and the whole", deviceRequest(gpuMonitor, admin), deviceRequest(gpuWhole), ""},
		{"a monitor without admin access", nil, deviceRequest(gpuMonitor), "adminAccess"},
		{"somebody who only looks, then the whole", deviceRequest(gpuWhole, admin), deviceRequest(gpuWhole), ""},
		{"shares that fit", deviceRequest(queue, taking(2)), deviceRequest(queue, taking(1)), ""},
		{"shares that do not", deviceRequest(queue, taking(2)), deviceRequest(queue, taking(2)), "2 of shares requested, 1 free"},
		{"both in one claim", nil, append(deviceRequest(gpuWhole), deviceRequest(gpuPart)...), "same hardware"},
		{"no such device", nil, deviceRequest("gpu-0000-99-00-0"), "does not exist"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := deviceLedger(t, &memory{})
			if test.held != nil {
				grant(t, l, claim("held", "p"), test.held)
			}
			before := l.Grants()
			_, err := l.Grant(claim("asked", "q"), test.asked)
			if (err == nil) != (test.refused == "") || err != nil && !strings.Contains(err.Error(), test.refused) {
				t.Fatalf("the ledger answers %v, want %q", err, test.refused)
			}
			if err != nil {
				if diff := cmp.Diff(before, l.Grants(), compareSets); diff != "" {
					t.Errorf("grants -before +after:\n%s", diff)
				}
				return
			}
			if err := l.Release("asked"); err != nil {
				t.Fatal(err)
			}
			grant(t, l, claim("again", "r"), test.asked)
		})
	}
}

func TestAContainerGetsTheNodesOfItsRoles(t *testing.T) {
	l := deviceLedger(t, &memory{})
	grant(t, l, claim("plain", "p"), deviceRequest(gpuPart))
	grant(t, l, claim("card", "q"), deviceRequest(gpuOther, func(r *Request) { r.Roles = []string{"card"} }))
	for uid, want := range map[ClaimUID][]device.Node{
		"plain": someDevices()[0].Nodes[:1],
		"card":  someDevices()[1].Nodes,
	} {
		pod := map[ClaimUID]PodUID{"plain": "p", "card": "q"}[uid]
		placed, err := l.Admit(Container{ID: ContainerID(uid), Pod: pod, Claims: []Ref{{Claim: uid}}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, placed.Nodes); diff != "" {
			t.Errorf("claim %s: nodes -want +got:\n%s", uid, diff)
		}
		if !placed.CPUs.Equals(l.Pool()) || placed.Unthrottled {
			t.Errorf("claim %s: placement %+v, want the pool %s with its quota", uid, placed, l.Pool())
		}
	}
}

// Devices of several claims meet in one container; their numbers go by address.
func TestAContainerHasTheVariablesOfAllItsDevices(t *testing.T) {
	l := newLedger(t, &memory{})
	var devices []device.Device
	for _, address := range []string{"0000:02:00.0", "0000:01:00.0"} {
		devices = append(devices, device.Device{
			Name: "qat-" + device.Dashed(address), Family: "qat", Address: address, Use: device.Use{Owner: address},
			Variables: []device.Variable{
				{Name: "QAT", Value: address, Numbered: true, Role: device.LegacyEnv},
				{Name: "VISIBLE", Value: address[5:7]},
			},
		})
	}
	l.ReplaceDevices(devices)
	old := func(r *Request) { r.Roles = []string{device.LegacyEnv} }
	grant(t, l, claim("one", "p"), deviceRequest(devices[0].Name, old))
	grant(t, l, claim("two", "p"), deviceRequest(devices[1].Name, old))
	for name, test := range map[string]struct {
		claims []Ref
		want   []device.Variable
	}{
		"both": {[]Ref{{Claim: "one"}, {Claim: "two"}}, []device.Variable{
			{Name: "QAT0", Value: "0000:01:00.0"}, {Name: "QAT1", Value: "0000:02:00.0"}, {Name: "VISIBLE", Value: "01,02"},
		}},
		"one":  {[]Ref{{Claim: "one"}}, []device.Variable{{Name: "QAT0", Value: "0000:02:00.0"}, {Name: "VISIBLE", Value: "02"}}},
		"none": {nil, nil},
	} {
		placed, err := l.Admit(Container{ID: ContainerID(name), Pod: "p", Claims: test.claims})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, placed.Environment); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

func TestHardwareSurvivesARestart(t *testing.T) {
	store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint")}
	l := deviceLedger(t, store)
	want := grant(t, l, claim("held", "p"), deviceRequest(gpuWhole, func(r *Request) { r.Roles, r.Program = []string{"card"}, "d8424dc4" }))
	kept, err := store.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Grant{want}, kept, compareSets); diff != "" {
		t.Fatalf("grants -granted +kept:\n%s", diff)
	}
	// The device is on vfio by now, or gone: it is still the claim's.
	l = newLedger(t, store, kept...)
	l.ReplaceDevices(someDevices()[3:4])
	_, err = l.Grant(claim("other", "q"), deviceRequest(gpuVFIO))
	if _, inUse := errors.AsType[*DeviceInUseError](err); !inUse {
		t.Errorf("the ledger answers %v", err)
	}
	conflicts := l.Conflicts()
	if len(conflicts) != 1 || !strings.Contains(conflicts[0].Message, gpuWhole+", which is gone") {
		t.Errorf("conflicts %+v", conflicts)
	}
}

func TestAContainerGetsTheHooksOfItsRoles(t *testing.T) {
	hooks := []device.Hook{{Path: "/usr/bin/setup", Argument: "createRuntime", Role: "network"}, {Path: "/usr/bin/always", Argument: "createRuntime"}}
	devices := someDevices()
	devices[0].Hooks = hooks
	network := func(r *Request) { r.Roles = []string{"network"} }
	for name, test := range map[string]struct {
		change []func(*Request)
		want   []device.Hook
	}{
		"without the role":  {nil, hooks[1:]},
		"with the role":     {[]func(*Request){network}, hooks},
		"who only looks on": {[]func(*Request){network, admin}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint")}
			l := deviceLedger(t, store)
			l.ReplaceDevices(devices)
			grant(t, l, claim("held", "p"), deviceRequest(gpuPart, test.change...))
			kept, err := store.Load()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, kept[0].Parts[0].Hardware.Hooks); diff != "" {
				t.Errorf("hooks -want +kept:\n%s", diff)
			}
			// The node's configuration has none any more.
			l.ReplaceDevices(someDevices())
			if g := grant(t, l, claim("held", "p"), deviceRequest(gpuPart, test.change...)); len(g.Parts[0].Hardware.Hooks) > 0 {
				t.Errorf("a claim that is prepared again has hooks %v", g.Parts[0].Hardware.Hooks)
			}
			// It has them again, and the driver is lost.
			l.ReplaceDevices(devices)
			grant(t, l, claim("held", "p"), deviceRequest(gpuPart, test.change...))
			lost := someDevices()
			lost[0].Nodes = nil
			l.ReplaceDevices(lost)
			g := grant(t, l, claim("held", "p"), deviceRequest(gpuPart, test.change...))
			if diff := cmp.Diff(test.want, g.Parts[0].Hardware.Hooks); diff != "" {
				t.Errorf("hooks without a driver -want +got:\n%s", diff)
			}
		})
	}
}

func TestNodesThatTheKernelNumbersAnewAreTold(t *testing.T) {
	store := &memory{}
	l := deviceLedger(t, store)
	grant(t, l, claim("held", "p"), deviceRequest(gpuPart))
	saves := store.saves
	grant(t, l, claim("held", "p"), deviceRequest(gpuPart))
	if store.saves != saves {
		t.Error("a grant was stored although nothing has changed")
	}
	devices := someDevices()
	devices[0].Nodes = []device.Node{{Path: "/dev/dri/renderD140", Major: 226, Minor: 140}}
	l.ReplaceDevices(devices)
	g := grant(t, l, claim("held", "p"), deviceRequest(gpuPart))
	if diff := cmp.Diff(devices[0].Nodes, g.Parts[0].Hardware.Nodes); diff != "" || store.saves != saves+1 {
		t.Errorf("nodes -want +got, stored %d times:\n%s", store.saves-saves, diff)
	}
}

func TestADeviceWithoutItsDriverIsNotGivenAwayAndKeepsItsNodes(t *testing.T) {
	l := deviceLedger(t, &memory{})
	held := grant(t, l, claim("held", "p"), deviceRequest(gpuPart))
	devices := someDevices()
	for i := range devices {
		devices[i].Nodes = nil
		devices[i].Taint(device.DriverLost, "")
	}
	l.ReplaceDevices(devices)
	if diff := cmp.Diff(held, grant(t, l, claim("held", "p"), deviceRequest(gpuPart)), compareSets); diff != "" {
		t.Errorf("the claim's grant -before +after:\n%s", diff)
	}
	_, err := l.Grant(claim("asked", "q"), deviceRequest(gpuOther))
	if _, lost := errors.AsType[*DriverLostError](err); !lost {
		t.Errorf("the ledger answers %v", err)
	}
	grant(t, l, claim("admin", "r"), deviceRequest(gpuOther, admin))
}

func TestGrantsOfTheSameHardwareAreNotBelieved(t *testing.T) {
	store := FileStore{Path: filepath.Join(t.TempDir(), "checkpoint")}
	part := func(name string, use device.Use) []Part {
		return []Part{{Request: Request{Name: "dev", Domain: name}, Hardware: &Hardware{Family: "gpu", Use: use}}}
	}
	good := Grant{Claim: claim("good"), Parts: part(gpuOther, device.Use{Owner: gpuAddress, Part: "vf1"})}
	grants := []Grant{
		good,
		{Claim: claim("a"), Parts: part(gpuPart, device.Use{Owner: "0000:aa:00.0", Part: "vf0"})},
		{Claim: claim("b"), Parts: part(gpuWhole, device.Use{Owner: "0000:aa:00.0"})},
		{Claim: claim("empty"), Parts: []Part{{Request: Request{Name: "dev", Domain: gpuPart}}}},
	}
	if err := store.Save(grants); err != nil {
		t.Fatal(err)
	}
	kept, err := store.Load()
	bad, ok := errors.AsType[*BadGrantsError](err)
	if diff := cmp.Diff([]Grant{good}, kept, compareSets); diff != "" || !ok || len(bad.Grants) != 3 {
		t.Errorf("%v, kept -want +got:\n%s", err, diff)
	}
}

func TestCPUsAreNearTheClaimsDevices(t *testing.T) {
	l := memoryLedger(t, &memory{})
	l.ReplaceDevices([]device.Device{{Name: gpuWhole, NUMANode: 1, Use: device.Use{Owner: gpuAddress}}, {Name: queue, NUMANode: topology.None}})
	near := l.Inventory().near(deviceRequest(gpuWhole))
	if want := l.Inventory().Machine.NUMANodes[1].CPUs; !near.Equals(want) {
		t.Errorf("near %s, want %s", near, want)
	}
	if near := l.Inventory().near(deviceRequest(queue)); !near.IsEmpty() {
		t.Errorf("near %s, want nothing", near)
	}
}

func TestNamesOfDevicesAreNotThoseOfCPUs(t *testing.T) {
	for name, want := range map[string]bool{
		"numa-0": true, "numa-0-efficiency": true, "l3-3": true, "socket-1": true, "machine": true, "machine-isolated": true,
		"memory-numa-0": false, gpuWhole: false, "nvme-0000-01-00-0-ns1": false, "numa": false,
	} {
		if got := IsCPUs(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
