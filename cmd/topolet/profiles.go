package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/profile"
	"github.com/topolet/topolet/draplugin/sysfs"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// profilesName is the file in the state folder that says what functions were like before
// they were changed.
const profilesName = "profiles.json"

// profileLimits are for settings of whole devices: some start firmware in a write, or many
// virtual functions with their drivers.
var profileLimits = profile.Limits{Write: 30 * time.Second, Wait: 10 * time.Second, Retry: 5 * time.Minute}

// profiles keep the machine's devices as the configuration wants them.
type profiles struct {
	host   fs.FS
	engine *profile.Engine
	ledger *allocator.Ledger
	watch  *deviceWatch
	notes  warner
	// said are the results that people were told of.
	said map[string]bool
	// written says that something was written lately.
	written bool
}

// warner attaches Events to the node.
type warner interface {
	Warn(ctx context.Context, reason, message string)
}

// newProfiles has the engine know what an earlier process has changed. It is nil if there
// is nothing to do, which is when nothing is configured and nothing has to be restored.
func newProfiles(ctx context.Context, stateDir string, host fs.FS, w sysfs.Writer, ledger *allocator.Ledger, watch *deviceWatch, notes warner, list []profile.Profile) (*profiles, error) {
	file := filepath.Join(stateDir, profilesName)
	states, err := loadProfileStates(file)
	if unusable, ok := errors.AsType[*profileStatesError](err); ok {
		klog.FromContext(ctx).Error(unusable, "What devices were like before they were changed is not known any more: it is not restored")
		err = os.Rename(file, file+"-unusable")
	}
	if err != nil {
		return nil, err
	}
	if len(list) == 0 && len(states) == 0 {
		return nil, nil
	}
	save := func(states []profile.State) error {
		data, err := json.MarshalIndent(profileStates{profileStatesVersion, states}, "", "  ")
		if err != nil {
			return err
		}
		return allocator.ReplaceFile(file, append(data, '\n'))
	}
	p := &profiles{host: host, ledger: ledger, watch: watch, notes: notes, said: map[string]bool{}}
	p.engine = profile.New(host, w, p, profileLimits, list, states, save)
	return p, nil
}

// profileStates is the content of the file.
type profileStates struct {
	Version int             `json:"version"`
	States  []profile.State `json:"states"`
}

const profileStatesVersion = 1

// profileStatesError says that the file is not of this program's making.
type profileStatesError struct{ Path, Reason string }

func (e *profileStatesError) Error() string { return fmt.Sprintf("file %s: %s", e.Path, e.Reason) }

// loadProfileStates reads the file; without one there are none.
func loadProfileStates(file string) ([]profile.State, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what devices were like: %w", err)
	}
	var content profileStates
	if err := json.Unmarshal(data, &content); err != nil {
		return nil, &profileStatesError{file, err.Error()}
	}
	if content.Version != profileStatesVersion {
		return nil, &profileStatesError{file, fmt.Sprintf("field version is %d, this topolet reads version %d", content.Version, profileStatesVersion)}
	}
	return content.States, nil
}

// apply does what there is to do now, and reports whether anything was written: there may
// be other devices than before.
func (p *profiles) apply(ctx context.Context) (written bool) {
	if p == nil {
		return false
	}
	p.written = false
	results := p.engine.Apply(ctx, p.ledger.Inventory().Machine)
	now, pending := map[string]bool{}, map[string]bool{}
	logger := klog.FromContext(ctx)
	for _, r := range results {
		text := r.String()
		now[text] = true
		switch r.Outcome {
		case profile.Changed, profile.Restored:
			logger.Info("The settings of a device were changed", "address", r.Address, "outcome", r.Outcome, "profile", r.Profile)
		case profile.Pending:
			pending[r.Address] = true
			if !p.said[text] {
				logger.Info("The settings of a device are changed when nobody uses it", "address", r.Address, "profile", r.Profile, "holder", r.Holder)
			}
		case profile.Failed:
			if !p.said[text] {
				logger.Error(r.Err, "The settings of a device cannot be changed", "address", r.Address, "profile", r.Profile)
				p.notes.Warn(ctx, "ProfileFailed", cmp.Or(r.Profile, "what was there before profiles")+" cannot be applied: "+r.Err.Error())
			}
		case profile.Applied:
		}
	}
	p.said = now
	p.watch.await(pending)
	return p.written
}

// Withhold implements [profile.Users]. Who comes for a device now has to come again.
func (p *profiles) Withhold(ctx context.Context, address string) (release func(), holder string) {
	p.watch.withhold(ctx, p.ledger, address, false)
	for _, g := range p.ledger.Grants() {
		for _, part := range g.Parts {
			if part.Hardware != nil && part.Hardware.Use.Owner == address {
				p.watch.withhold(ctx, p.ledger, "", false)
				return nil, fmt.Sprintf("claim %s/%s has device %s", g.Namespace, g.Name, part.Domain)
			}
		}
	}
	return func() {
		p.written = true
		// Virtual functions that are gone must not be given away.
		m, err := topology.Discover(p.host)
		if err == nil {
			err = p.ledger.Replace(m)
		}
		if err != nil {
			klog.FromContext(ctx).Error(err, "The picture of the machine is out of date")
		}
		p.watch.withhold(ctx, p.ledger, "", true)
	}, ""
}

// await has the devices of functions tainted, from the next look on, whose settings are to
// be changed as soon as nobody uses them.
func (w *deviceWatch) await(pending map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = pending
}

// withhold has the ledger give away nothing of one physical function, or of none. It may
// look again before.
func (w *deviceWatch) withhold(ctx context.Context, ledger *allocator.Ledger, address string, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.withheld = address
	if again {
		w.look(ctx, ledger.Inventory().Machine, ledger.Grants)
	}
	ledger.ReplaceDevices(w.available(atHome(w.devices, ledger.Grants())))
}

// available are the devices with a taint on those that are withheld, with which nobody gets
// them, tolerated or not.
func (w *deviceWatch) available(devices []device.Device) []device.Device {
	return tainted(devices, device.DriverLost, func(d device.Device) bool { return w.withheld != "" && d.Use.Owner == w.withheld })
}

// tainted are the devices with a taint on some.
func tainted(devices []device.Device, reason device.Reason, which func(device.Device) bool) []device.Device {
	devices = slices.Clone(devices)
	for i := range devices {
		if d := &devices[i]; which(*d) {
			d.Taints = slices.Clone(d.Taints)
			d.Taint(reason, "profile")
		}
	}
	return devices
}
