package allocator

import (
	"fmt"
	"slices"

	"github.com/topolet/topolet/topology/device"
)

// Handover is how far a function is on its way between its own driver and one for vfio,
// and what is needed to give it back. It is a part of the grant, so that there is one place
// that tells who has a function, and one moment at which that is forgotten.
//
//	Waiting ─→ Moving ─→ Given ─→ Moving ─→ Waiting ─→ the grant is released
//
// What is written to the kernel is written while it is Moving.
type Handover struct {
	Step Step `json:"step,omitempty"`
	// BootID is that of the kernel for which the rest is true; all is empty while it waits.
	BootID string `json:"bootID,omitempty"`
	// Before is how the function was bound, After how it is while the claim has it.
	Before Binding `json:"before,omitzero"`
	After  Binding `json:"after,omitzero"`
}

// Binding is what decides on the driver of a function.
type Binding struct {
	// Driver is the driver that is bound, or empty.
	Driver string `json:"driver,omitempty"`
	// Override is the only driver that may be bound, or empty.
	Override string `json:"override,omitempty"`
}

// Step is how far a function has come.
type Step string

// The steps.
const (
	// Waiting functions have the driver that they have without the claim.
	Waiting Step = ""
	// Moving functions are anywhere in between.
	Moving Step = "moving"
	// Given functions are the claim's to use.
	Given Step = "given"
)

func (h *Handover) consistent() bool {
	if h == nil {
		return true
	}
	switch h.Step {
	case Waiting:
		return *h == Handover{}
	case Moving, Given:
		return h.BootID != ""
	}
	return false
}

// isHandedOver reports whether a container can use what the part has.
func (p Part) isHandedOver() bool {
	return p.Hardware == nil || p.Hardware.Handover == nil || p.Hardware.Handover.Step == Given
}

// HandOver notes how far the function of a claim's device has come, with the nodes by which
// it is used from now on, and returns when that is stored. A function that is given stays
// so while a container of the claim is there: that is an [*InUseError]. On an error nothing
// has changed.
func (l *Ledger) HandOver(uid ClaimUID, name string, to Handover, nodes []device.Node) error {
	l.saving.Lock()
	defer l.saving.Unlock()
	undo, err := l.enterHandover(uid, name, to, nodes)
	if err != nil || undo == nil {
		return err
	}
	if err := l.store.Save(l.Grants()); err != nil {
		undo()
		return fmt.Errorf("store what becomes of device %s: %w", name, err)
	}
	return nil
}

// enterHandover makes it part of the state; undo is nil if it was.
func (l *Ledger) enterHandover(uid ClaimUID, name string, to Handover, nodes []device.Node) (undo func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, known := l.grants[uid]
	i := slices.IndexFunc(g.Parts, func(p Part) bool { return p.Domain == name && p.Hardware != nil && p.Hardware.Handover != nil })
	if !known || i < 0 {
		return nil, fmt.Errorf("claim %s has no device %s that changes its driver", uid, name)
	}
	p := g.Parts[i]
	nodes = wanted(nodes, p.Request)
	if *p.Hardware.Handover == to && slices.Equal(p.Hardware.Nodes, nodes) {
		return nil, nil
	}
	if p.Hardware.Handover.Step == Given && to.Step == Moving {
		if err := l.inUse(g); err != nil {
			return nil, err
		}
	}
	now := *p.Hardware
	now.Handover, now.Nodes = &to, nodes
	g.Parts = slices.Clone(g.Parts)
	g.Parts[i].Hardware = &now
	return l.put(g), nil
}

// GrantOf returns what a claim has.
func (l *Ledger) GrantOf(uid ClaimUID) (Grant, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, ok := l.grants[uid]
	return g, ok
}

// NotHandedOverError says that a container names a claim with a function that is not at
// the driver by which it would be used.
type NotHandedOverError struct {
	Container Container
	Device    string
}

func (e *NotHandedOverError) Error() string {
	return fmt.Sprintf("container %s of pod %s/%s names a claim with device %s, which is not at its vfio driver: "+
		"delete the pod if this lasts, so that its claim is prepared anew",
		e.Container.Name, e.Container.PodNamespace, e.Container.PodName, e.Device)
}
