package allocator

import (
	"fmt"
)

// Tier is how the CPUs of a container are kept from everyone else.
type Tier string

const (
	// KernelTier says that the kernel lets nobody else on the host run there: the
	// container's cgroup is a cpuset partition.
	KernelTier Tier = "kernel"
	// RuntimeTier says that every other container was moved away and that this was
	// read back before the container started. Processes outside of containers may
	// run there.
	RuntimeTier Tier = "runtime"
	// DegradedTier says that what was promised does not hold at present.
	DegradedTier Tier = "degraded"
)

// Enforcement is a container's tier, and why it is no better one.
type Enforcement struct {
	Tier   Tier
	Reason string
}

// Holder is a container with CPUs of claims.
type Holder struct {
	Entry
	// Obstacle says why the kernel cannot keep everyone else off the container's CPUs:
	// not all of them are its alone. Empty if it can.
	Obstacle string
	// Isolated says that the CPUs are to be left out of the scheduler's load
	// balancing.
	Isolated bool
}

// Enforced notes how the container's CPUs are kept from others. It returns false if
// that is known, or the container is not.
func (l *Ledger) Enforced(id ContainerID, e Enforcement) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.containers.get(id)
	if !ok || c.enforcement == e {
		return false
	}
	c.enforcement = e
	return true
}

// Holders returns the containers that hold CPUs of claims, and those orphans that do
// not run everywhere, ordered by id.
func (l *Ledger) Holders() []Holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.view()
	var holders []Holder
	for _, c := range l.containers {
		if len(c.Claims) == 0 {
			continue
		}
		h := Holder{Entry: l.entry(c, v)}
		if h.Orphan && c.Observed.IsEmpty() || !h.Orphan && h.Granted.IsEmpty() {
			continue
		}
		for p := range l.parts(&c.Container) {
			h.Isolated = h.Isolated || p.Isolated
		}
		h.Obstacle = l.obstacle(c)
		holders = append(holders, h)
	}
	return holders
}

func (l *Ledger) obstacle(c *tracked) string {
	if l.isOrphan(&c.Container) {
		return "its claim is not prepared on this node"
	}
	for p := range l.parts(&c.Container) {
		switch {
		case p.SharedPool:
			return fmt.Sprintf("request %s includes the shared pool", p.Name)
		case !p.Idle.IsEmpty():
			return fmt.Sprintf("request %s leaves CPUs idle, and an idle CPU is in nobody's partition", p.Name)
		}
	}
	granted := l.granted(&c.Container)
	if l.inventory.online(granted).IsEmpty() {
		return "all CPUs of its claim are offline"
	}
	for _, other := range l.containers {
		if len(other.Claims) > 0 && other.ID != c.ID && !l.isOrphan(&other.Container) && l.granted(&other.Container).Intersects(granted) {
			return fmt.Sprintf("container %s of pod %s/%s runs on the same CPUs", other.Name, other.PodNamespace, other.PodName)
		}
	}
	return ""
}
