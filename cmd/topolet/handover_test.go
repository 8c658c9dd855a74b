package main

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/draplugin/rebind"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
)

const (
	gaudiAddress = "0000:b3:00.0"
	gaudiVFIO    = "gaudi-0000-b3-00-0-vfio"
)

// accelerator is a host with a Gaudi accelerator, whose driver tells its slot.
func accelerator(t *testing.T) *devicetest.Kernel {
	t.Helper()
	h := devicetest.New(t)
	f := devicetest.Function{Path: "/sys/devices/pci0000:b2/" + gaudiAddress, Vendor: 0x1da3, Device: 0x1020, Class: 0x120000, Group: 7}
	h.Add(f)
	k := devicetest.NewKernel(h)
	k.Load(devicetest.Driver{Name: "habanalabs", IDs: []int{0x1da31020}, Probe: func(f devicetest.Function) error {
		h.Files(f.Path, map[string]string{"status": "Operational", "module_id": "3"})
		h.Char(f.Path, "accel/accel0", "261:0", "accel/accel0")
		h.Char("/sys/devices/virtual", "accel/accel_controlD0", "508:0", "accel/accel_controlD0")
		return nil
	}})
	return k
}

func bind(t *testing.T, k *devicetest.Kernel, from, to string) {
	t.Helper()
	for _, write := range [][2]string{{"devices/" + gaudiAddress + "/driver_override", to}, {"drivers/" + from + "/unbind", gaudiAddress}, {"drivers/" + to + "/bind", gaudiAddress}} {
		if err := k.Write("/sys/bus/pci/"+write[0], write[1]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsPublishedStaysWhileAFunctionIsHandedOver(t *testing.T) {
	k := accelerator(t)
	root, err := topology.OpenRoot(k.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // only read
	m := k.Open().Machine
	ledger, err := allocator.NewLedger(m, allocator.Policy{ReservedCPUs: allocator.DefaultReserved(m)}, allocator.FileStore{Path: t.TempDir() + "/checkpoint"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var stuck error
	config := v1alpha1.Configuration{Devices: []v1alpha1.DeviceFamily{{Family: "gaudi", ManageBinding: true}}}
	newWatch := func() *deviceWatch {
		return newDeviceWatch(root, familiesOf(config, rebind.New(root, nil, rebindLimits).Driver, nil), func(string) error { return stuck })
	}
	w := newWatch()
	published := func() any {
		w.tell(t.Context(), ledger)
		return draplugin.Slices(ledger, "worker")
	}
	nodes := func() map[string]int {
		n := map[string]int{}
		for _, d := range ledger.Inventory().Devices {
			n[d.Name] = len(d.Nodes)
		}
		return n
	}
	handover := func(step allocator.Step, nodes []device.Node) {
		t.Helper()
		h := allocator.Handover{Step: step, BootID: "boot"}
		if step == allocator.Waiting {
			h = allocator.Handover{}
		}
		if err := ledger.HandOver("c", gaudiVFIO, h, nodes); err != nil {
			t.Fatal(err)
		}
	}
	want := published()
	own := nodes()
	if diff := cmp.Diff(map[string]int{"gaudi-0000-b3-00-0": 2, gaudiVFIO: 0, "gaudi-0000-b3-00-0-monitor": 1}, own); diff != "" {
		t.Fatalf("device nodes -want +got:\n%s", diff)
	}
	if _, err := ledger.Grant(allocator.Claim{UID: "c"}, []allocator.Request{{Name: "dev", Domain: gaudiVFIO}}); err != nil {
		t.Fatal(err)
	}
	same := func(when string) {
		t.Helper()
		if diff := cmp.Diff(want, published()); diff != "" {
			t.Errorf("%s: slices -before +now:\n%s", when, diff)
		}
	}
	handover(allocator.Moving, nil)
	same("before anything is written")
	if err := k.Write("/sys/bus/pci/drivers/habanalabs/unbind", gaudiAddress); err != nil {
		t.Fatal(err)
	}
	same("without a driver")
	if err := k.Write("/sys/bus/pci/drivers/habanalabs/bind", gaudiAddress); err != nil {
		t.Fatal(err)
	}
	bind(t, k, "habanalabs", "vfio-pci")
	same("bound to vfio")
	handover(allocator.Given, []device.Node{{Path: "/dev/vfio/7", Major: 243, Minor: 7}})
	same("given")
	if n := nodes(); n["gaudi-0000-b3-00-0"] != 0 || n["gaudi-0000-b3-00-0-monitor"] != 0 || n[gaudiVFIO] == 0 {
		t.Errorf("device nodes %v: those of a driver that is not bound lead to somebody else's device", n)
	}

	handover(allocator.Moving, nil)
	stuck = errors.New("in the kernel")
	published()
	for _, d := range ledger.Inventory().Devices {
		if d.Tainted(device.RebindStuck) != (d.Personality != device.Monitor) {
			t.Errorf("%s has the taints %v while the kernel does not answer", d.Name, d.Taints)
		}
	}
	stuck = nil
	same("the kernel has answered")

	// Another process has not seen the function with its own driver.
	before := w
	w = newWatch()
	published()
	if n := nodes(); len(n) != 2 || n[gaudiVFIO] == 0 {
		t.Errorf("after a restart there are %v", n)
	}
	w = before

	bind(t, k, "vfio-pci", "habanalabs")
	handover(allocator.Waiting, nil)
	same("given back")
	if diff := cmp.Diff(own, nodes()); diff != "" {
		t.Errorf("device nodes -before +after:\n%s", diff)
	}
}

func TestOnlyManagedFamiliesAreHandedOver(t *testing.T) {
	config := v1alpha1.Configuration{Devices: []v1alpha1.DeviceFamily{{Family: "gpu"}, {Family: "pci", ManageBinding: true}, {Family: "nic", ManageBinding: true}}}
	for _, f := range familiesOf(config, nil, nil) {
		m, isManaged := f.(device.Managed)
		if isManaged != (f.Name() != "gpu") || isManaged && m.Twins != (f.Name() == "nic") {
			t.Errorf("family %s: %+v", f.Name(), f)
		}
	}
}
