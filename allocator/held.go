package allocator

// Held is what claims hold for a container.
type Held struct {
	// CPUs is the number that all claims of the container's pod hold together. Claims
	// for many pods do not count.
	CPUs int
	// Memory is what the claims hold that the container itself names, in no order; a
	// page size may come several times.
	Memory []Pages
}

// HeldBy returns what claims hold for a container, which need not be known.
func (l *Ledger) HeldBy(c Container) Held {
	l.mu.Lock()
	defer l.mu.Unlock()
	var held Held
	for _, g := range l.grants {
		for _, p := range g.Parts {
			if !p.ManyPods && g.isFor(c.Pod, c.PodNamespace, p.Name) {
				held.CPUs += p.Count
			}
		}
	}
	for p := range l.parts(&c) {
		held.Memory = append(held.Memory, p.Memory...)
	}
	return held
}
