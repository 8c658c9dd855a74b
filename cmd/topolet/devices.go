package main

import (
	"context"
	"io/fs"
	"reflect"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/nic"
)

// deviceInterval is how often the devices are looked at: a driver that is bound, a queue
// that is switched on or an accelerator that fails has to be published within seconds.
const deviceInterval = 3 * time.Second

// deviceWatch notices that the machine's devices change.
type deviceWatch struct {
	host     fs.FS
	families []device.Family
	devices  []device.Device
	// fatal is, by address, how many fatal errors functions had reported when they were
	// first seen. More than that make a device unhealthy.
	fatal map[string]uint64
	// said are the problems that people were told of.
	said map[string]bool
}

func newDeviceWatch(host fs.FS, families []device.Family) *deviceWatch {
	return &deviceWatch{host: host, families: families, fatal: map[string]uint64{}, said: map[string]bool{}}
}

// look discovers the devices of a machine anew and reports whether they have changed.
func (w *deviceWatch) look(ctx context.Context, m *topology.Machine) (changed bool) {
	if len(w.families) == 0 {
		return false
	}
	host := device.NewHost(w.host, m)
	devices, problems := device.Discover(host, w.families...)
	w.addFatalErrors(host, devices)
	w.say(ctx, problems)
	if reflect.DeepEqual(devices, w.devices) {
		return false
	}
	w.devices = devices
	return true
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
		n := host.FatalErrors(f)
		before, seen := w.fatal[d.Address]
		switch {
		case !seen || n < before: // the count starts again when a function is plugged in
			w.fatal[d.Address] = n
		case n > before:
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
			klog.FromContext(ctx).Error(problem, "A device cannot be published")
		}
	}
	w.said = now
}

// atHome are the devices as claims see them: a network card whose interface is with the
// claim that has it is not broken.
func atHome(devices []device.Device, grants []allocator.Grant) []device.Device {
	held := map[string][]string{}
	for _, g := range grants {
		for _, p := range g.Parts {
			if p.Hardware != nil {
				held[p.Domain] = p.Hardware.Interfaces
			}
		}
	}
	seen := slices.Clone(devices)
	for i, d := range seen {
		if interfaces := held[d.Name]; len(interfaces) > 0 && nic.IsAway(d) {
			seen[i].Taints, seen[i].Interfaces = nil, interfaces
		}
	}
	return seen
}

// run calls changed with the devices whenever there are others, until the context ends.
// Machine returns the machine as it is at present.
func (w *deviceWatch) run(ctx context.Context, interval time.Duration, machine func() *topology.Machine, changed func([]device.Device)) {
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
		}
		if w.look(ctx, machine()) {
			klog.FromContext(ctx).Info("The devices have changed", "devices", len(w.devices))
			changed(w.devices)
		}
	}
}
