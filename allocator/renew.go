package allocator

import (
	"fmt"
	"slices"

	"github.com/topolet/topolet/topology/device"
)

// Renewed returns what a claim has, with the nodes that its devices have now, if these are
// not the ones that it got: a driver that is bound anew may give its nodes other names and
// numbers, under which others may have the old ones. The ledger stays as it is, see
// [Ledger.Renew]. A device that has lost nodes is about to come back, or is gone; either way
// there is nothing better to have.
func (l *Ledger) Renewed(uid ClaimUID) (g Grant, isOther bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, known := l.grants[uid]
	if !known {
		return Grant{}, false
	}
	now, changed := l.inventory.refreshed(g)
	if !changed {
		return g, false
	}
	parts := slices.Clone(g.Parts)
	for i := range parts {
		if h := now.Parts[i].Hardware; h != nil && haveMoved(parts[i].Hardware.Nodes, h.Nodes) {
			parts[i].Hardware, isOther = h, true
		}
	}
	return Grant{Claim: g.Claim, Parts: parts}, isOther
}

// haveMoved reports whether some of the nodes are no longer what they were.
func haveMoved(before, now []device.Node) bool {
	return len(now) >= len(before) && slices.ContainsFunc(before, func(n device.Node) bool { return !slices.Contains(now, n) })
}

// Renew has a claim hold what [Ledger.Renewed] says. The caller keeps others from preparing
// the claim between the two.
func (l *Ledger) Renew(g Grant) error {
	l.saving.Lock()
	defer l.saving.Unlock()
	l.mu.Lock()
	undo := l.put(g)
	l.mu.Unlock()
	if err := l.store.Save(l.Grants()); err != nil {
		undo()
		return fmt.Errorf("store the devices' nodes of claim %s/%s: %w", g.Namespace, g.Name, err)
	}
	return nil
}
