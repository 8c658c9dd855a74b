package allocator

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/topolet/topolet/topology"
)

// Conflict is something the ledger holds although it ought not to be. Its CPUs
// are withheld from everyone else.
type Conflict struct {
	// Claim is the claim that holds CPUs which it could not get today, and Part the
	// part of its grant with them; empty for a container without a grant.
	Claim Claim
	Part  Part
	// Offline are those of the CPUs that are offline.
	Offline topology.CPUSet
	// Siblings are CPUs of the claim's cores that came online after it got its own:
	// nobody gets them.
	Siblings topology.CPUSet
	Message  string
}

// Conflicts returns the grants that lie outside the domain they came from, the
// offline CPUs first of all, and the containers with a claim that nobody
// prepared, in a stable order.
func (l *Ledger) Conflicts() []Conflict {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []Conflict
	for _, g := range l.grants {
		for _, p := range g.Parts {
			if c, ok := l.inventory.conflict(g, p); ok {
				found = append(found, c)
			}
		}
	}
	for _, c := range l.containers {
		if l.isOrphan(&c.Container) {
			found = append(found, Conflict{Message: fmt.Sprintf(
				"container %s of pod %s/%s runs on CPUs %q of a claim that is not prepared here: delete the pod to release them",
				c.Name, c.PodNamespace, c.PodName, c.Observed)})
		}
	}
	slices.SortFunc(found, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Part.Domain, b.Part.Domain), cmp.Compare(a.Message, b.Message))
	})
	return found
}

// conflict compares a part of a grant with the domain that it came from.
func (inv *Inventory) conflict(g Grant, p Part) (Conflict, bool) {
	c := Conflict{Claim: g.Claim, Part: p, Offline: inv.offline(p.CPUs), Siblings: inv.siblings(g.CPUs())}
	if p.Hardware != nil {
		if _, ok := inv.Device(p.Domain); !ok {
			c.Message = fmt.Sprintf("claim %s/%s (%s) holds device %s, which is gone: bring it back, or delete the claim's pods", g.Namespace, g.Name, g.UID, p.Domain)
		}
		return c, c.Message != ""
	}
	if p.CPUs.IsEmpty() {
		if _, ok := inv.MemoryDomain(p.Domain); !ok {
			c.Message = fmt.Sprintf("claim %s/%s (%s) holds memory of device %s, which is gone: delete its pods", g.Namespace, g.Name, g.UID, p.Domain)
		}
		return c, c.Message != ""
	}
	lost := p.CPUs
	if d, ok := inv.Domain(p.Domain); ok {
		lost = lost.Difference(d.CPUs)
	}
	holds := fmt.Sprintf("claim %s/%s (%s) holds CPUs %s", g.Namespace, g.Name, g.UID, p.CPUs)
	switch {
	case !c.Offline.IsEmpty():
		c.Message = fmt.Sprintf("%s, of which %s went offline: bring them back online, or delete the claim's pods", holds, c.Offline)
	case !lost.IsEmpty():
		c.Message = fmt.Sprintf("%s, of which %s no longer belong to device %s: delete its pods to release them", holds, lost, p.Domain)
	case !c.Siblings.IsEmpty():
		c.Message = fmt.Sprintf("%s, and %s of the same cores came online later: delete its pods to release them", holds, c.Siblings)
	}
	return c, c.Message != ""
}
