package draplugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/allocator/crashpoint"
	"github.com/topolet/topolet/draplugin/rebind"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/inuse"
)

// Some functions change their drivers for a claim: preparing it gives them to a driver for
// vfio, unpreparing it gives them back. How far each has come is in the claim's grant, and
// is there before the first write to the kernel, so that whoever comes next (the kubelet
// once more, or another process) ends what was begun. The kubelet waits 45 s for both:
const (
	// giveLimit is for giving a claim's functions. A write that has begun by then takes up
	// to that of [rebind.Limits] longer.
	giveLimit = 20 * time.Second
	// giveBackLimit is for giving them back, also when giving them has failed.
	giveBackLimit = 12 * time.Second
)

// handOver gives the functions of a claim to their drivers for vfio, and returns the grant
// with the nodes by which they are used. It is done for all of them or for none.
func (p *Plugin) handOver(ctx context.Context, g allocator.Grant) (allocator.Grant, error) {
	if !slices.ContainsFunc(g.Parts, p.isToBeGiven) {
		return g, nil
	}
	giving, cancel := context.WithTimeout(ctx, giveLimit)
	defer cancel()
	for _, part := range g.Parts {
		if !p.isToBeGiven(part) {
			continue
		}
		if err := p.give(giving, g.UID, part); err != nil {
			// Whoever called it off wants it undone all the more.
			return g, errors.Join(err, p.giveBack(context.WithoutCancel(ctx), g.UID))
		}
	}
	now, ok := p.ledger.GrantOf(g.UID)
	if !ok {
		return g, errors.New("it was released meanwhile; it is tried again")
	}
	return now, nil
}

// isToBeGiven reports whether something is left to do for a part.
func (p *Plugin) isToBeGiven(part allocator.Part) bool {
	if part.Hardware == nil || part.Hardware.Handover == nil {
		return false
	}
	h := part.Hardware.Handover
	return h.Step != allocator.Given || h.BootID != p.bootID()
}

// bootID is the kernel's; it is another one each time the machine starts.
func (p *Plugin) bootID() string {
	id, _ := topology.NewFiles(p.opts.Root).Read("proc/sys/kernel/random/boot_id")
	return id
}

// give gives one function to its driver for vfio. What is left of an earlier try, or of
// the time before the machine started, is ended first: its state would be lost.
func (p *Plugin) give(ctx context.Context, uid allocator.ClaimUID, part allocator.Part) error {
	if part.Hardware.Handover.Step != allocator.Waiting {
		if err := p.restore(ctx, uid, part); err != nil {
			return err
		}
	}
	if err := p.unused(part.Hardware.Address); err != nil {
		return err
	}
	save := p.save(ctx, uid, part)
	state, err := p.opts.Rebinder.ToVFIO(ctx, part.Hardware.Address, save)
	if err != nil {
		return err
	}
	return save(state) // one that others have bound to vfio has not been saved yet
}

// unused returns an error if the host uses the function. It has not when the device was
// published, but that was seconds ago.
func (p *Plugin) unused(address string) error {
	h, f, err := p.function(address)
	if err != nil {
		return err
	}
	use, err := inuse.Of(h).Function(f)
	if err != nil {
		return fmt.Errorf("%s is not given to vfio, as the host may use it: %w", address, err)
	}
	if use != "" {
		return &rebind.RefusedError{Address: address, Reason: "the host uses it: " + use, Remedy: "end that, or delete the pod so that its claim is allocated anew"}
	}
	return nil
}

// function is a function as it is now.
func (p *Plugin) function(address string) (*device.Host, topology.PCIFunction, error) {
	h := device.NewHost(p.opts.Root, p.ledger.Inventory().Machine)
	a, err := topology.ParsePCIAddress(address)
	if err != nil {
		return nil, topology.PCIFunction{}, err
	}
	f, ok := h.Machine.PCI.Function(a)
	if !ok {
		return nil, f, fmt.Errorf("%s is not on this machine; it is tried again", address)
	}
	return h, f, nil
}

// save returns what keeps the state of a part's function in the ledger.
func (p *Plugin) save(ctx context.Context, uid allocator.ClaimUID, part allocator.Part) rebind.Save {
	return func(s rebind.State) error {
		to := allocator.Handover{
			Step: allocator.Step(s.Step), BootID: s.BootID,
			Before: allocator.Binding(s.Before), After: allocator.Binding(s.After),
		}
		var nodes []device.Node
		switch s.Step {
		case rebind.Moving:
		case rebind.Given:
			crashpoint.Reached(crashpoint.HandedOver)
			h, f, err := p.function(s.Address)
			if err != nil {
				return err
			}
			if d, ok := h.VFIO(part.Hardware.Family, f); ok {
				nodes = d.Nodes
			}
			if len(nodes) == 0 {
				return fmt.Errorf("%s has no device nodes at its driver %s: see the kernel's log", s.Address, s.After.Driver)
			}
		case rebind.Done:
			crashpoint.Reached(crashpoint.GivenBack)
			to = allocator.Handover{}
		}
		if err := p.ledger.HandOver(uid, part.Domain, to, nodes); err != nil {
			return err
		}
		if s.Step == rebind.Moving {
			crashpoint.Reached(crashpoint.HandoverStored)
		}
		klog.FromContext(ctx).V(2).Info("A function changes its driver", "uid", uid, "function", s.Address, "step", s.Step, "before", s.Before.String(), "after", s.After.String())
		return nil
	}
}

// giveBack gives all functions of a claim back to the drivers that they had. Those that
// follow one that cannot be given back are not kept waiting.
func (p *Plugin) giveBack(ctx context.Context, uid allocator.ClaimUID) error {
	ctx, cancel := context.WithTimeout(ctx, giveBackLimit)
	defer cancel()
	g, _ := p.ledger.GrantOf(uid)
	var errs []error
	for _, part := range g.Parts {
		if part.Hardware != nil && part.Hardware.Handover != nil && part.Hardware.Handover.Step != allocator.Waiting {
			errs = append(errs, p.restore(ctx, uid, part))
		}
	}
	if len(errs) > 0 {
		// Whoever gets a function next uses it by what its driver shows now.
		p.opts.Look(ctx)
	}
	return errors.Join(errs...)
}

// restore gives one function back. What others have made of it is left to them, and what
// was left in it by its user is not worth a claim that cannot end: that is for the log.
func (p *Plugin) restore(ctx context.Context, uid allocator.ClaimUID, part allocator.Part) error {
	h := part.Hardware.Handover
	err := p.opts.Rebinder.Restore(ctx, rebind.State{
		BootID: h.BootID, Address: part.Hardware.Address, Step: rebind.Step(h.Step),
		Before: rebind.Binding(h.Before), After: rebind.Binding(h.After),
	}, part.ResetOnRelease, p.save(ctx, uid, part))
	if err == nil {
		return nil
	}
	g, _ := p.ledger.GrantOf(uid)
	for _, now := range g.Parts {
		if now.Domain == part.Domain && now.Hardware.Handover != nil && now.Hardware.Handover.Step == allocator.Waiting {
			klog.FromContext(ctx).Error(err, "A function is not as its claim found it", "uid", uid, "device", part.Domain)
			return nil
		}
	}
	return err
}

// resume ends what an earlier process has begun, and forgets what was before the machine
// started. What cannot be mended now is when the claim is prepared or unprepared.
func (p *Plugin) resume(ctx context.Context) {
	changed := false
	for _, g := range p.ledger.Grants() {
		for _, part := range g.Parts {
			if !p.isToBeGiven(part) || part.Hardware.Handover.Step == allocator.Waiting {
				continue
			}
			changed = true
			if err := p.restore(ctx, g.UID, part); err != nil {
				klog.FromContext(ctx).Error(err, "A function is between its drivers, which is tried again with its claim", "claim", klog.KRef(g.Namespace, g.Name), "uid", g.UID)
			}
		}
	}
	if changed {
		p.opts.Look(ctx)
	}
}
