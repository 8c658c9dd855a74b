package main

import (
	"context"
	"io/fs"
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/rebind"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/nic"
)

// deviceInterval is how often the devices are looked at: a driver that is bound, a queue
// that is switched on or an accelerator that fails has to be published within seconds.
const deviceInterval = 3 * time.Second

// rebindLimits are for changing a function's driver, of which the kubelet waits for several:
// drivers start whole devices in a write, and some take seconds for it.
var rebindLimits = rebind.Limits{Write: 10 * time.Second, Wait: 10 * time.Second}

// deviceWatch notices that the machine's devices change.
type deviceWatch struct {
	host     fs.FS
	families []device.Family
	// stuck returns an error while the kernel does not answer what was written for a
	// function, by its address.
	stuck func(address string) error

	// mu is held during a look, and guards what is below.
	mu      sync.Mutex
	devices []device.Device
	// own are the devices, by address, of functions that were not handed over for a claim
	// when they were last seen.
	own map[string][]device.Device
	// fatal tells whether functions have reported fatal errors since they were first seen,
	// which makes a device unhealthy.
	fatal *errorCounts
	// pending are the functions, by address, that wait for their profiles, and withheld is
	// the one that is being changed, or empty.
	pending  map[string]bool
	withheld string
	// said are the problems that people were told of.
	said map[string]bool
}

func newDeviceWatch(host fs.FS, families []device.Family, stuck func(address string) error) *deviceWatch {
	return &deviceWatch{host: host, families: families, stuck: stuck, fatal: &errorCounts{}, said: map[string]bool{}}
}

// remember has the watch know the errors that an earlier process has seen, and keep those
// that it sees. It is to be called before the first look.
func (w *deviceWatch) remember(ctx context.Context, stateDir string) {
	if len(w.families) == 0 {
		return
	}
	var err error
	if w.fatal, err = loadErrorCounts(stateDir, w.host); err != nil {
		klog.FromContext(ctx).Error(err, "Devices that had failed before are taken for sound ones")
	}
}

// tell has the ledger know the devices as they are now, and reports whether they have
// changed.
func (w *deviceWatch) tell(ctx context.Context, ledger *allocator.Ledger) (changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.look(ctx, ledger.Inventory().Machine, ledger.Grants) {
		return false
	}
	klog.FromContext(ctx).Info("The devices have changed", "devices", len(w.devices))
	ledger.ReplaceDevices(w.available(atHome(w.devices, ledger.Grants())))
	return true
}

// look discovers the devices of a machine anew and reports whether they have changed.
func (w *deviceWatch) look(ctx context.Context, m *topology.Machine, grants func() []allocator.Grant) (changed bool) {
	if len(w.families) == 0 {
		return false
	}
	away := map[string]bool{}
	addHandedOver(away, grants())
	host := device.NewHost(w.host, m)
	devices, problems := device.Discover(host, w.families...)
	addHandedOver(away, grants()) // it may have begun meanwhile, or ended
	devices = w.asTheyWere(devices, away)
	devices = tainted(devices, device.ProfilePending, func(d device.Device) bool { return w.pending[d.Use.Owner] })
	w.addFatalErrors(host, devices)
	if err := w.fatal.save(); err != nil {
		problems = append(problems, err)
	}
	w.say(ctx, problems)
	if reflect.DeepEqual(devices, w.devices) {
		return false
	}
	w.devices = devices
	return true
}

// addHandedOver notes the functions, by address, that are not at their own drivers because
// of a claim.
func addHandedOver(away map[string]bool, grants []allocator.Grant) {
	for _, g := range grants {
		for _, p := range g.Parts {
			if p.Hardware != nil && p.Hardware.Handover != nil && p.Hardware.Handover.Step != allocator.Waiting {
				away[p.Hardware.Address] = true
			}
		}
	}
}

// asTheyWere are the devices with those of functions that are away as they were before:
// that somebody has them is no reason to publish something else. Only how they are used is
// as it is now, for those who look at them.
func (w *deviceWatch) asTheyWere(now []device.Device, away map[string]bool) []device.Device {
	var seen []device.Device
	own, here := map[string][]device.Device{}, map[string]device.Device{}
	for _, d := range now {
		here[d.Name] = d
		if away[d.Address] && w.own[d.Address] != nil {
			continue
		}
		seen = append(seen, d)
		if !away[d.Address] {
			own[d.Address] = append(own[d.Address], d)
		}
	}
	for address := range away {
		own[address] = w.own[address]
		for _, d := range own[address] {
			d.Nodes, d.Links, d.Interfaces = here[d.Name].Nodes, here[d.Name].Links, here[d.Name].Interfaces
			seen = append(seen, d)
		}
	}
	w.own = own
	for i, d := range seen {
		if away[d.Address] && d.Personality != device.Monitor && w.stuck(d.Address) != nil {
			seen[i].Taints = slices.Clone(d.Taints)
			seen[i].Taint(device.RebindStuck, "")
		}
	}
	slices.SortFunc(seen, device.Compare)
	return seen
}

// addFatalErrors taints the devices of functions that have reported a fatal error since
// they were first seen.
func (w *deviceWatch) addFatalErrors(host *device.Host, devices []device.Device) {
	for i := range devices {
		d := &devices[i]
		address, err := topology.ParsePCIAddress(d.Address)
		f, known := host.Machine.PCI.Function(address)
		if err != nil || !known || d.Personality == device.Monitor {
			continue
		}
		if w.fatal.rose(d.Address, host.FatalErrors(f)) {
			d.Taint(device.Unhealthy, "aer-fatal")
		}
	}
}

// say logs each problem once, as long as it lasts.
func (w *deviceWatch) say(ctx context.Context, problems []error) {
	now := map[string]bool{}
	for _, problem := range problems {
		now[problem.Error()] = true
		if !w.said[problem.Error()] {
			klog.FromContext(ctx).Error(problem, "A problem with the devices")
		}
	}
	w.said = now
}

// atHome are the devices as claims see them: a network card whose interface is with the
// claim that has it is not broken.
func atHome(devices []device.Device, grants []allocator.Grant) []device.Device {
	held := map[device.Use][]string{}
	for _, g := range grants {
		for _, p := range g.Parts {
			if p.Hardware != nil && len(p.Hardware.Interfaces) > 0 {
				held[p.Hardware.Use] = p.Hardware.Interfaces
			}
		}
	}
	seen := slices.Clone(devices)
	for i, d := range seen {
		if interfaces, isHeld := held[d.Use]; isHeld && nic.IsAway(d) {
			seen[i].Taints = nil
			if d.Personality == device.Kernel {
				seen[i].Interfaces = interfaces
			}
		}
	}
	return seen
}

// run looks again and again until the context ends.
func (w *deviceWatch) run(ctx context.Context, interval time.Duration, look func(context.Context)) {
	if len(w.families) == 0 {
		return
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			look(ctx)
		}
	}
}
