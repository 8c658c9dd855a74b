package draplugin

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/rebind"
	"github.com/topolet/topolet/draplugin/sysfs"
	"github.com/topolet/topolet/test/expect"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/gpu"
	"github.com/topolet/topolet/topology/device/nic"
	"github.com/topolet/topolet/topology/device/nvme"
	"github.com/topolet/topolet/topology/device/pciselect"
)

// The functions of the host, each with a driver of its own.
const (
	gpuAddress  = "0000:3a:00.0"
	nicAddress  = "0000:3b:00.0"
	diskAddress = "0000:3c:00.0"
	cardAddress = "0000:3d:00.0"

	gpuVFIO  = "gpu-0000-3a-00-0-vfio"
	nicVFIO  = "nic-0000-3b-00-0-vfio"
	diskVFIO = "nvme-0000-3c-00-0-vfio"
	cardVFIO = "pci-0000-3d-00-0-vfio"

	bootFile   = "/proc/sys/kernel/random/boot_id"
	routesFile = "/proc/1/net/route"
	routesHead = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT"
)

// handoverRig is a driver on a host whose kernel answers what it writes.
type handoverRig struct {
	*rig
	kernel *devicetest.Kernel
	// families make the devices of the host.
	families func(*rebind.Rebinder) []device.Family
	// limits are those of the next driver that is started.
	limits rebind.Limits

	mu sync.Mutex
	// left is how many more changes to the disk and to the kernel are made before the
	// process is as good as dead; below 0 there is no end.
	left int
}

var errDead = errors.New("the process has crashed")

func (r *handoverRig) next() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left == 0 {
		return errDead
	}
	r.left--
	return nil
}

// die has the process make only so many more changes.
func (r *handoverRig) die(after int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = after
}

// Write implements [sysfs.Writer].
func (r *handoverRig) Write(_ context.Context, name, data string) error {
	if err := r.next(); err != nil {
		return err
	}
	return r.kernel.Write("/"+name, data)
}

var _ sysfs.Writer = (*handoverRig)(nil)

func newHandoverRig(t *testing.T) *handoverRig {
	t.Helper()
	h := devicetest.New(t)
	h.File("/proc/1/mountinfo", "22 1 0:21 / /sys rw - sysfs sysfs rw")
	h.File("/proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority")
	h.File(routesFile, routesHead)
	h.File("/proc/1/net/ipv6_route", "")
	k := devicetest.NewKernel(h)
	for i, f := range []struct {
		address, driver string
		vendor, id      uint16
		class           uint32
		probe           func(devicetest.Function)
	}{
		{gpuAddress, "i915", 0x8086, 0x56c0, 0x038000, func(f devicetest.Function) {
			h.Char(f.Path, "drm/card1", "226:1", "dri/card1")
			h.Char(f.Path, "drm/renderD128", "226:128", "dri/renderD128")
		}},
		{nicAddress, "mlx5_core", 0x15b3, 0x101d, 0x020000, func(f devicetest.Function) {
			h.Files(f.Path+"/net/eth7", map[string]string{"address": "0c:42:a1:00:00:07", "type": "1", "operstate": "up"})
			h.Link("/sys/class/net/eth7", f.Path+"/net/eth7")
		}},
		{diskAddress, "nvme", 0x144d, 0xa80a, 0x010802, func(f devicetest.Function) {
			h.Char(f.Path, "nvme/nvme0", "245:0", "nvme0")
			h.Files(f.Path+"/nvme/nvme0", map[string]string{"state": "live", "transport": "pcie", "model": "disk"})
		}},
		{cardAddress, "foo", 0x1234, 0x11e8, 0x00ff00, func(f devicetest.Function) { h.Char(f.Path, "foo/foo0", "505:0", "foo0") }},
	} {
		function := devicetest.Function{Path: "/sys/devices/pci0000:37/" + f.address, Vendor: f.vendor, Device: f.id, Class: f.class, Group: 42 + i}
		h.Add(function)
		h.File(function.Path+"/reset", "")
		k.Load(devicetest.Driver{Name: f.driver, IDs: []int{int(f.vendor)<<16 | int(f.id)}, Probe: func(f2 devicetest.Function) error {
			f.probe(f2)
			return nil
		}})
	}
	return newHandoverRigOn(t, k, func(rebinder *rebind.Rebinder) []device.Family {
		managed := func(f device.Family) device.Family {
			return device.Managed{Family: f, Driver: rebinder.Driver, Twins: f.Name() != "pci"}
		}
		return []device.Family{
			managed(gpu.Family{}), managed(nic.Family{}), managed(nvme.Family{}),
			managed(pciselect.Family{Managed: true, Entries: []pciselect.Entry{{Name: "card", Match: pciselect.Match{Vendor: "0x1234"}, Expose: pciselect.VFIO}}}),
		}
	})
}

func newHandoverRigOn(t *testing.T, k *devicetest.Kernel, families func(*rebind.Rebinder) []device.Family) *handoverRig {
	t.Helper()
	m := k.Open().Machine
	r := &handoverRig{kernel: k, families: families, limits: rebind.Limits{Write: time.Minute, Wait: time.Minute}, left: -1}
	root, err := topology.OpenRoot(k.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() }) //nolint:errcheck // only read
	r.rig = &rig{
		machine: m, policy: allocator.Policy{ReservedCPUs: allocator.DefaultReserved(m)}, side: &side{}, notes: &notes{},
		store:  &store{FileStore: allocator.FileStore{Path: path.Join(t.TempDir(), "checkpoint.json")}, next: r.next},
		cdiDir: t.TempDir(),
		more: func(o *Options) {
			o.Root, o.Rebinder = root, rebind.New(root, r, r.limits)
			o.Look = func(context.Context) { r.look(t) }
		},
	}
	r.restart(t)
	return r
}

// restart makes a driver as a new process does.
func (r *handoverRig) restart(t *testing.T) {
	t.Helper()
	r.die(-1)
	r.start(t)
	r.look(t)
}

// look has the ledger know the devices.
func (r *handoverRig) look(t *testing.T) {
	t.Helper()
	devices, problems := device.Discover(device.NewHost(r.opts.Root, r.machine), r.families(r.opts.Rebinder)...)
	for _, problem := range problems {
		t.Log(problem)
	}
	r.ledger.ReplaceDevices(devices)
}

// device is an allocation result without any capacity.
func deviceResult(request, name string) resourceapi.DeviceRequestAllocationResult {
	return resourceapi.DeviceRequestAllocationResult{Request: request, Driver: DriverName, Pool: nodeName, Device: name}
}

func handoverClaim(names ...string) *resourceapi.ResourceClaim {
	var results []resourceapi.DeviceRequestAllocationResult
	for i, name := range names {
		results = append(results, deviceResult(fmt.Sprintf("r%d", i), name))
	}
	return allocated("c", results...)
}

// written are the writes since the n-th.
func (r *handoverRig) written(n int) []string {
	var list []string
	for _, e := range r.kernel.Journal()[n:] {
		list = append(list, strings.TrimPrefix(e.Path, "/sys/bus/pci/")+" "+e.Data)
	}
	return list
}

// steps are how far the functions of the claim have come, by their addresses.
func (r *handoverRig) steps() map[string]allocator.Step {
	steps := map[string]allocator.Step{}
	g, _ := r.ledger.GrantOf("c")
	for _, h := range g.HardwareOf("") {
		if h.Handover != nil {
			steps[h.Address] = h.Handover.Step
		}
	}
	return steps
}

func (r *handoverRig) driver(address string) string {
	for name, content := range r.kernel.Tree() {
		if path.Base(path.Dir(name)) == address && path.Base(name) == "driver" {
			return path.Base(content)
		}
	}
	return ""
}

// wantUntouched checks that the host is as it was.
func (r *handoverRig) wantUntouched(t *testing.T, before map[string]string) {
	t.Helper()
	if diff := cmp.Diff(before, r.kernel.Tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}
}

func (r *handoverRig) mustUnprepare(t *testing.T) {
	t.Helper()
	if err := r.unprepare(t, "c"); err != nil {
		t.Error(err)
	}
	if grants := r.ledger.Grants(); len(grants) > 0 {
		t.Errorf("grants %+v are left", grants)
	}
}

func giving(native, address string) []string {
	return []string{"devices/" + address + "/driver_override vfio-pci", "drivers/" + native + "/unbind " + address, "drivers/vfio-pci/bind " + address}
}

func givingBack(native, address string) []string {
	return []string{
		"drivers/vfio-pci/unbind " + address, "devices/" + address + "/driver_override " + native,
		"drivers/" + native + "/bind " + address, "devices/" + address + "/driver_override \n",
	}
}

func TestAFunctionIsHandedOverForItsClaim(t *testing.T) {
	for name, native := range map[string]string{gpuVFIO: "i915", nicVFIO: "mlx5_core", diskVFIO: "nvme", cardVFIO: "foo"} {
		t.Run(name, func(t *testing.T) {
			r := newHandoverRig(t)
			d, ok := r.ledger.Inventory().Device(name)
			if !ok || !d.Managed || d.Driver != "vfio-pci" || len(d.Nodes) != 0 || len(d.Taints) != 0 {
				t.Fatalf("the device is %+v", d)
			}
			_, isTwin := r.ledger.Inventory().Device(strings.TrimSuffix(name, "-vfio"))
			if isTwin == (name == cardVFIO) {
				t.Errorf("there is a kernel device: %t", isTwin)
			}
			before, devices := r.kernel.Tree(), r.ledger.Inventory().Devices
			claim := handoverClaim(name)
			prepared := r.mustPrepare(t, claim)
			if diff := cmp.Diff(giving(native, d.Address), r.written(0)); diff != "" {
				t.Errorf("preparing -want +got:\n%s", diff)
			}
			n := slices.Index([]string{gpuAddress, nicAddress, diskAddress, cardAddress}, d.Address)
			spec := r.disk(t)[specName("c")]
			for _, want := range []string{`"path":"/dev/vfio/vfio","type":"c","major":10,"minor":196`, fmt.Sprintf(`"path":"/dev/vfio/%d","type":"c","major":243,"minor":%d`, 42+n, 42+n)} {
				if !strings.Contains(spec, want) || strings.Count(spec, `"path"`) != 2 {
					t.Errorf("the CDI spec %s lacks %s, or has more", spec, want)
				}
			}
			r.wantResolved(t, prepared)

			saves, disk := r.store.saves, r.disk(t)
			for range 2 {
				if diff := cmp.Diff(prepared, r.mustPrepare(t, claim)); diff != "" {
					t.Errorf("devices -first +again:\n%s", diff)
				}
			}
			if diff := cmp.Diff(disk, r.disk(t)); diff != "" || len(r.written(3)) != 0 || r.store.saves != saves {
				t.Errorf("preparing again writes %q, saves %d times, files:\n%s", r.written(3), r.store.saves-saves, diff)
			}
			r.look(t) // it is seen where it is
			r.mustUnprepare(t)
			if diff := cmp.Diff(givingBack(native, d.Address), r.written(3)); diff != "" {
				t.Errorf("unpreparing -want +got:\n%s", diff)
			}
			r.wantUntouched(t, before)
			// The ledger knows before anybody else is given the function.
			if diff := cmp.Diff(devices, r.ledger.Inventory().Devices, cmp.AllowUnexported(device.Value{})); diff != "" {
				t.Errorf("devices -before +after:\n%s", diff)
			}
		})
	}
}

func TestTheInterfaceToTheFunctionIsChosen(t *testing.T) {
	for parameters, want := range map[string][]string{
		`"vfioInterface":"Auto"`:                        {"/dev/iommu", "/dev/vfio/42", "/dev/vfio/devices/vfio0", "/dev/vfio/vfio"},
		`"vfioInterface":"Group"`:                       {"/dev/vfio/42", "/dev/vfio/vfio"},
		`"vfioInterface":"Cdev"`:                        {"/dev/iommu", "/dev/vfio/devices/vfio0"},
		`"vfioInterface":"Group","resetOnRelease":true`: {"/dev/vfio/42", "/dev/vfio/vfio"},
	} {
		t.Run(parameters, func(t *testing.T) {
			r := newHandoverRig(t)
			r.kernel.ServeCdevs()
			claim := handoverClaim(gpuVFIO)
			claim.Status.Allocation.Devices.Config = []resourceapi.DeviceAllocationConfiguration{{
				Source: resourceapi.AllocationConfigSourceClaim,
				DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
					Driver: DriverName, Parameters: runtime.RawExtension{Raw: []byte(`{"apiVersion":"topolet.dev/v1alpha1","kind":"PCIConfig",` + parameters + `}`)},
				}},
			}}
			r.mustPrepare(t, claim)
			var got []string
			for _, n := range r.ledger.Grants()[0].HardwareOf("")[0].Nodes {
				got = append(got, n.Path)
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("nodes -want +got:\n%s", diff)
			}
			r.mustUnprepare(t)
			reset := slices.Contains(r.written(0), "devices/"+gpuAddress+"/reset 1")
			if want := strings.Contains(parameters, "true"); reset != want {
				t.Errorf("it was reset: %t, want %t", reset, want)
			}
		})
	}
}

func TestWhatMustNotBeHandedOverIsNotTouched(t *testing.T) {
	for name, test := range map[string]struct {
		device string
		change func(*handoverRig)
		said   []string
	}{
		"the host uses the interface by now": {nicVFIO, func(r *handoverRig) {
			r.kernel.File(routesFile, routesHead+"\neth7\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0")
		}, []string{nicAddress, "eth7 has the default route", "delete the pod"}},
		"nobody knows whether the host uses it": {nicVFIO, func(r *handoverRig) { r.kernel.File(routesFile, "") },
			[]string{nicAddress, "the host may use it"}},
		"another function of the group is in use": {gpuVFIO, func(r *handoverRig) {
			r.kernel.Add(devicetest.Function{Path: "/sys/devices/pci0000:37/0000:3a:00.1", Vendor: 0x8086, Device: 0x4f90, Class: 0x040300, Group: 42, Driver: "snd_hda_intel"})
		}, []string{gpuAddress, "0000:3a:00.1 of the same IOMMU group 42 has the driver snd_hda_intel"}},
		"the vfio driver is gone": {gpuVFIO, func(r *handoverRig) { r.kernel.Remove("/sys/bus/pci/drivers/vfio-pci") },
			[]string{gpuAddress, "modprobe vfio-pci"}},
		"the boot is not known": {gpuVFIO, func(r *handoverRig) { r.kernel.Remove(bootFile) }, []string{gpuAddress, "boot_id"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newHandoverRig(t)
			test.change(r)
			before := r.kernel.Tree()
			for range 2 {
				expect.Error(t, r.prepare(t, handoverClaim(test.device)).Err, append(test.said, "claim default/claim-c")...)
			}
			if written := r.written(0); len(written) != 0 {
				t.Errorf("it writes %q", written)
			}
			if _, isThere := r.disk(t)[specName("c")]; isThere {
				t.Error("there is a CDI spec")
			}
			r.mustUnprepare(t)
			r.wantUntouched(t, before)
		})
	}
}

func TestAFunctionWithoutNodesIsGivenBack(t *testing.T) {
	r := newHandoverRig(t)
	r.kernel.Remove("/sys/class/misc/vfio")
	before := r.kernel.Tree()
	expect.Error(t, r.prepare(t, handoverClaim(gpuVFIO)).Err, "claim default/claim-c", gpuAddress+" has no device nodes at its driver vfio-pci")
	if diff := cmp.Diff(append(giving("i915", gpuAddress), givingBack("i915", gpuAddress)...), r.written(0)); diff != "" {
		t.Errorf("writes -want +got:\n%s", diff)
	}
	r.wantUntouched(t, before)
}

func TestWhoLooksOnlyChangesNothing(t *testing.T) {
	r := newHandoverRig(t)
	claim := handoverClaim("gpu-0000-3a-00-0-monitor", gpuVFIO)
	for i := range claim.Status.Allocation.Devices.Results {
		claim.Status.Allocation.Devices.Results[i].AdminAccess = ptr.To(true)
	}
	r.mustPrepare(t, claim)
	r.mustUnprepare(t)
	if written := r.written(0); len(written) != 0 {
		t.Errorf("it writes %q", written)
	}
}

func TestAFunctionThatOthersHaveBoundIsLeftBound(t *testing.T) {
	r := newHandoverRig(t)
	for _, write := range giving("i915", gpuAddress) {
		name, data, _ := strings.Cut(write, " ")
		if err := r.kernel.Write("/sys/bus/pci/"+name, data); err != nil {
			t.Fatal(err)
		}
	}
	before := r.kernel.Tree()
	for _, looks := range []bool{false, true} { // the ledger may not know yet
		if looks {
			r.look(t)
		}
		r.mustPrepare(t, handoverClaim(gpuVFIO))
		if nodes := r.ledger.Grants()[0].HardwareOf("")[0].Nodes; len(nodes) != 2 {
			t.Errorf("nodes %+v", nodes)
		}
		r.mustUnprepare(t)
	}
	if written := r.written(3); len(written) != 0 {
		t.Errorf("it writes %q", written)
	}
	r.wantUntouched(t, before)
}

func TestAllFunctionsOfAClaimAreHandedOverOrNone(t *testing.T) {
	claim := handoverClaim(gpuVFIO, nicVFIO)
	const writes = 6
	for k := 1; k <= writes+1; k++ {
		t.Run(fmt.Sprintf("write %d fails", k), func(t *testing.T) {
			r := newHandoverRig(t)
			before := r.kernel.Tree()
			r.kernel.Refuse(devicetest.Nth(k), syscall.EIO)
			err := r.prepare(t, claim).Err
			if (err == nil) != (k > writes) {
				t.Fatalf("preparing: %v", err)
			}
			if err != nil {
				expect.Error(t, err, "claim default/claim-c", "input/output error", "see the kernel's log")
				r.wantUntouched(t, before)
				if diff := cmp.Diff(map[string]allocator.Step{gpuAddress: "", nicAddress: ""}, r.steps()); diff != "" {
					t.Errorf("steps -want +got:\n%s", diff)
				}
				if _, isThere := r.disk(t)[specName("c")]; isThere {
					t.Error("there is a CDI spec")
				}
				r.mustPrepare(t, claim)
			}
			if diff := cmp.Diff(map[string]allocator.Step{gpuAddress: "given", nicAddress: "given"}, r.steps()); diff != "" {
				t.Errorf("steps -want +got:\n%s", diff)
			}
			n := len(r.kernel.Journal())
			if k > writes { // the failing write is one of those on the way back
				expect.Error(t, errors.Join(r.unprepare(t, "c")), "claim default/claim-c", "input/output error")
				if len(r.written(n)) == 0 {
					t.Error("nothing was written")
				}
			}
			r.mustUnprepare(t)
			r.wantUntouched(t, before)
		})
	}
}

// A driver that dies after any of its changes, to the checkpoint and to the kernel, leaves
// what the next one makes good: at its start, and if it could not, when it is asked.
func TestACrashAtAnyMomentIsMadeGood(t *testing.T) {
	claim := handoverClaim(gpuVFIO, nicVFIO)
	for _, while := range []string{"preparing", "unpreparing"} {
		for _, then := range []string{"start", "prepare", "unprepare"} {
			r := newHandoverRig(t)
			before := r.kernel.Tree()
			for changes, done := 0, false; !done; changes++ {
				t.Run(fmt.Sprintf("%s, after %d changes, then %s", while, changes, then), func(t *testing.T) {
					var err error
					if while == "preparing" {
						r.die(changes)
						err = r.prepare(t, claim).Err
					} else {
						r.mustPrepare(t, claim)
						r.die(changes)
						err = r.unprepare(t, "c")
					}
					done = err == nil
					if r.restart(t); then == "start" {
						r.resume(t.Context())
						for address, step := range r.steps() {
							own := map[string]string{gpuAddress: "i915", nicAddress: "mlx5_core"}[address]
							want := map[allocator.Step]string{allocator.Given: "vfio-pci", allocator.Waiting: own}[step]
							if got := r.driver(address); got != want {
								t.Errorf("%s is %q with the driver %q, want %q", address, step, got, want)
							}
						}
					}
					if then == "prepare" {
						r.wantResolved(t, r.mustPrepare(t, claim))
						if r.driver(gpuAddress) != "vfio-pci" || r.driver(nicAddress) != "vfio-pci" {
							t.Error("they are not handed over")
						}
					}
					r.mustUnprepare(t)
					r.wantUntouched(t, before)
				})
				if t.Failed() || changes > 40 {
					t.Fatal("what follows depends on it")
				}
			}
		}
	}
}

func TestARestartWritesNothingWhileFunctionsAreInUse(t *testing.T) {
	r := newHandoverRig(t)
	before := r.kernel.Tree()
	r.mustPrepare(t, handoverClaim(gpuVFIO, nicVFIO))
	release := r.kernel.Hold(42)
	n, disk := len(r.kernel.Journal()), r.disk(t)
	r.restart(t)
	r.resume(t.Context())
	if err := r.cdi.reset(r.ledger.Grants()); err != nil {
		t.Fatal(err)
	}
	r.mustPrepare(t, handoverClaim(gpuVFIO, nicVFIO))
	if written := r.written(n); len(written) != 0 {
		t.Errorf("it writes %q", written)
	}
	if diff := cmp.Diff(disk, r.disk(t)); diff != "" {
		t.Errorf("files -before +after:\n%s", diff)
	}
	release()
	r.mustUnprepare(t)
	r.wantUntouched(t, before)
}

func TestAFunctionStaysWhileAContainerHasIt(t *testing.T) {
	r := newHandoverRig(t)
	r.mustPrepare(t, handoverClaim(gpuVFIO))
	n := len(r.kernel.Journal())
	ctr := allocator.Container{ID: "ctr", Name: "main", Pod: "pod-c", Claims: []allocator.Ref{{Claim: "c"}}}
	if _, err := r.ledger.Admit(ctr); err != nil {
		t.Fatal(err)
	}
	var inUse *allocator.InUseError
	if err := r.unprepare(t, "c"); !errors.As(err, &inUse) || len(r.written(n)) != 0 {
		t.Errorf("unpreparing: %v, it writes %q", err, r.written(n))
	}
	r.side.stopped = func(allocator.ClaimUID) { r.ledger.Remove("ctr") }
	r.mustUnprepare(t)
}

// After a boot all functions are at their own drivers, and what is in the checkpoint is
// of no use but for the claim's name.
func TestABootForgetsWhatWasHandedOver(t *testing.T) {
	r := newHandoverRig(t)
	before := r.kernel.Tree()
	r.mustPrepare(t, handoverClaim(gpuVFIO))
	for _, write := range givingBack("i915", gpuAddress) {
		name, data, _ := strings.Cut(write, " ")
		if err := r.kernel.Write("/sys/bus/pci/"+name, data); err != nil {
			t.Fatal(err)
		}
	}
	const another = "00000000-0000-0000-0000-000000000001"
	r.kernel.File(bootFile, another)
	before[bootFile] = another
	n := len(r.kernel.Journal())
	r.restart(t)
	r.resume(t.Context())
	g := r.ledger.Grants()[0]
	if h := g.Parts[0].Hardware; *h.Handover != (allocator.Handover{}) || len(h.Nodes) != 0 || len(r.written(n)) != 0 {
		t.Errorf("the claim has %+v, and %q was written", h, r.written(n))
	}
	var refused *allocator.NotHandedOverError
	if _, err := r.ledger.Admit(allocator.Container{ID: "ctr", Pod: "pod-c", Claims: []allocator.Ref{{Claim: "c"}}}); !errors.As(err, &refused) {
		t.Errorf("a container is admitted: %v", err)
	}
	r.mustPrepare(t, handoverClaim(gpuVFIO))
	if diff := cmp.Diff(giving("i915", gpuAddress), r.written(n)); diff != "" {
		t.Errorf("preparing -want +got:\n%s", diff)
	}
	r.mustUnprepare(t)
	r.wantUntouched(t, before)
}

// The driver of package draplugin may have no time to look at its claims between the boot
// and the kubelet's question.
func TestPreparingAfterABootHandsOverAnew(t *testing.T) {
	r := newHandoverRig(t)
	r.mustPrepare(t, handoverClaim(gpuVFIO))
	for _, write := range givingBack("i915", gpuAddress) {
		name, data, _ := strings.Cut(write, " ")
		if err := r.kernel.Write("/sys/bus/pci/"+name, data); err != nil {
			t.Fatal(err)
		}
	}
	r.kernel.File(bootFile, "00000000-0000-0000-0000-000000000001")
	n := len(r.kernel.Journal())
	r.mustPrepare(t, handoverClaim(gpuVFIO))
	if diff := cmp.Diff(giving("i915", gpuAddress), r.written(n)); diff != "" {
		t.Errorf("preparing -want +got:\n%s", diff)
	}
}

func TestWhatOthersHaveMadeOfAFunctionIsLeft(t *testing.T) {
	r := newHandoverRig(t)
	r.mustPrepare(t, handoverClaim(gpuVFIO))
	if err := r.kernel.Write("/sys/bus/pci/devices/"+gpuAddress+"/driver_override", "other"); err != nil {
		t.Fatal(err)
	}
	before, n := r.kernel.Tree(), len(r.kernel.Journal())
	r.mustUnprepare(t)
	if written := r.written(n); len(written) != 0 {
		t.Errorf("it writes %q", written)
	}
	r.wantUntouched(t, before)
}

func TestAClaimIsKeptUntilTheKernelHasLetGo(t *testing.T) {
	r := newHandoverRig(t)
	before := r.kernel.Tree()
	r.limits.Write = 50 * time.Millisecond
	r.restart(t)
	r.mustPrepare(t, handoverClaim(gpuVFIO, nicVFIO))
	release := r.kernel.Hold(42)
	for range 2 {
		var stuck *sysfs.StuckError
		err := r.unprepare(t, "c")
		if !errors.As(err, &stuck) || stuck.Address != gpuAddress {
			t.Fatalf("unpreparing: %v", err)
		}
		expect.Error(t, err, "claim default/claim-c", "end the process that has the function open")
	}
	if r.opts.Rebinder.Stuck(gpuAddress) == nil || r.driver(nicAddress) != "mlx5_core" {
		t.Errorf("the other function has the driver %q", r.driver(nicAddress))
	}
	if diff := cmp.Diff(map[string]allocator.Step{gpuAddress: "moving", nicAddress: ""}, r.steps()); diff != "" {
		t.Errorf("steps -want +got:\n%s", diff)
	}
	other := handoverClaim("gpu-0000-3a-00-0")
	other.UID = "other"
	if err := r.prepare(t, other).Err; err == nil {
		t.Error("another claim gets it")
	}
	release()
	for end := time.Now().Add(time.Minute); r.opts.Rebinder.Stuck(gpuAddress) != nil && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	r.mustUnprepare(t)
	r.wantUntouched(t, before)
}

func TestACheckpointThatCannotBeWrittenHandsNothingOver(t *testing.T) {
	r := newHandoverRig(t)
	before := r.kernel.Tree()
	for changes := range 3 { // the grant, the state before the first write
		r.die(changes)
		if err := r.prepare(t, handoverClaim(gpuVFIO)).Err; !errors.Is(err, errDead) {
			t.Errorf("preparing: %v", err)
		}
		if changes < 2 {
			r.wantUntouched(t, before)
		}
		r.restart(t)
		r.mustUnprepare(t)
		r.wantUntouched(t, before)
	}
}

// The scheduler knows by counters that both personalities are one function, and the ledger
// refuses an allocation that it has not made.
func TestAFunctionIsGivenAwayInOnePersonality(t *testing.T) {
	r := newHandoverRig(t)
	s := newScheduler(t, r.rig)
	classes, err := hardwareClasses()
	if err != nil {
		t.Fatal(err)
	}
	s.classes = append(slices.Clone(s.classes), classes...)
	for _, test := range []struct{ first, second, device, other string }{
		{"gpu", "gpu-vfio", "gpu-0000-3a-00-0", gpuVFIO},
		{"nic-vfio", "nic", nicVFIO, "nic-0000-3b-00-0"},
	} {
		if !s.allocate(t, togetherBy(test.first, "", test.first)) || s.allocate(t, togetherBy(test.second, "", test.second)) {
			t.Errorf("%s and then %s: not the first, or the second too", test.first, test.second)
		}
		if got := s.claims[types.UID(test.first)].Status.Allocation.Devices.Results[0].Device; got != test.device {
			t.Errorf("%s is answered with %s", test.first, got)
		}
		r.mustPrepare(t, s.claims[types.UID(test.first)])
		var inUse *allocator.DeviceInUseError
		if err := r.prepare(t, allocated("forged", deviceResult("dev", test.other))).Err; !errors.As(err, &inUse) {
			t.Errorf("preparing %s beside %s: %v", test.other, test.device, err)
		}
	}
}

func TestWithoutCountersAFunctionIsPublishedOnce(t *testing.T) {
	r := newHandoverRig(t)
	published := func() string {
		var names []string
		for _, slice := range r.resources(nil).Pools[nodeName].Slices {
			for _, d := range slice.Devices {
				if strings.HasPrefix(d.Name, "gpu-0000-3a-00-0") || d.Name == cardVFIO {
					names = append(names, d.Name)
				}
			}
		}
		return strings.Join(names, " ")
	}
	const both = "gpu-0000-3a-00-0 gpu-0000-3a-00-0-vfio pci-0000-3d-00-0-vfio gpu-0000-3a-00-0-monitor"
	if got := published(); got != both {
		t.Errorf("published are %s", got)
	}
	r.dropped.add([]string{gateCounters})
	if got, want := published(), strings.ReplaceAll(both, gpuVFIO+" ", ""); got != want {
		t.Errorf("published are %s, want %s", got, want)
	}
}
