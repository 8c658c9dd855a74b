package allocator

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/topolet/topolet/topology"
)

// Store keeps the grants across restarts.
type Store interface {
	// Save replaces what is stored. When it returns without an error the grants
	// survive a crash of the process and of the machine; when it returns an
	// error the old ones do, or, if the disk itself failed in the end, perhaps these.
	// Calls do not overlap.
	Save(grants []Grant) error
}

// Ledger knows which claim holds which CPUs and which container names which
// claim. All methods are safe for concurrent use.
//
// Calls come from two sides that do not know of each other. The kubelet's side
// calls Grant before a pod's containers are created, any number of times, and
// Release after they have stopped; after a restart of topolet it calls neither
// for what is prepared. The runtime's side calls Sync once after every connect
// and then, per container, Admit, Listed, Started and Remove; each of them may be
// missing or come again.
//
// A CPU of a grant leaves the shared pool with Grant and returns with Release,
// so that a container which restarts, or one container of a pod following the
// other, finds its CPUs as they were.
type Ledger struct {
	store Store

	// saving is held while grants change and are written, so that a slow disk
	// delays Grant and Release and nobody else. It is taken before mu.
	saving sync.Mutex

	policy Policy

	mu         sync.Mutex
	inventory  *Inventory
	grants     map[ClaimUID]Grant
	containers roster
	// leaving is the claim whose release is being stored: no container may come to
	// it any more.
	leaving ClaimUID
}

// NewLedger returns the ledger of a machine with the grants that a Store kept.
//
// Grants are taken over as they are, also where the machine no longer has their
// CPUs: [Ledger.Conflicts] tells.
func NewLedger(m *topology.Machine, policy Policy, store Store, grants []Grant) (*Ledger, error) {
	inventory, err := NewInventory(m, policy)
	if err != nil {
		return nil, err
	}
	l := &Ledger{
		store:     store,
		policy:    policy,
		inventory: inventory,
		grants:    map[ClaimUID]Grant{},
	}
	for _, g := range grants {
		l.grants[g.UID] = g
	}
	return l, nil
}

// Replace puts another picture of the machine in the place of the present one,
// after CPUs went offline or came back. Grants keep their CPUs: a container whose
// claim lost some runs on the others, or on the shared pool when none is left,
// until they are back. On an error, which is that of [NewLedger], nothing has
// changed.
func (l *Ledger) Replace(m *topology.Machine) error {
	inventory, err := NewInventory(m, l.policy)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inventory = inventory.withDevices(l.inventory.Devices)
	return nil
}

// Inventory returns what the machine has to give at present.
func (l *Ledger) Inventory() *Inventory {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inventory
}

// Grant gives a claim what each of its requests asks for and returns when that is
// stored. A claim that comes again gets what it has, with its pod brought up to date.
// A claim belongs to one of the pods it is reserved for, and to the others only where
// its requests say so. On an error nothing has changed.
func (l *Ledger) Grant(claim Claim, requests []Request) (Grant, error) {
	l.saving.Lock()
	defer l.saving.Unlock()

	g, undo, err := l.enter(claim, requests)
	if err != nil || undo == nil {
		return g, err
	}
	if err := l.store.Save(l.Grants()); err != nil {
		undo()
		return Grant{}, fmt.Errorf("store the grant of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return g, nil
}

// enter makes the grant of a claim part of the state and returns what takes it
// out again, or nil if the state is as it was.
func (l *Ledger) enter(claim Claim, requests []Request) (g Grant, undo func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, known := l.grants[claim.UID]
	claim = claim.ownedBy(old.Pods)
	switch {
	case known && !old.answers(requests):
		return Grant{}, nil, &ChangedClaimError{Claim: claim}
	case known:
		now, changed := l.inventory.refreshed(old)
		if !changed && slices.Equal(old.Pods, claim.Pods) {
			return old, nil, nil
		}
		g = Grant{Claim: claim, Parts: now.Parts}
	default:
		if g, err = l.assemble(claim, requests); err != nil {
			return Grant{}, nil, err
		}
	}
	return g, l.put(g), nil
}

// put makes a grant part of the state and returns what puts back what was there before.
func (l *Ledger) put(g Grant) (undo func()) {
	old, known := l.grants[g.UID]
	l.grants[g.UID] = g
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if known {
			l.grants[g.UID] = old
		} else {
			delete(l.grants, g.UID)
		}
	}
}

// assemble chooses what all requests get, or nothing.
func (l *Ledger) assemble(claim Claim, requests []Request) (Grant, error) {
	g := Grant{Claim: claim}
	free, near := l.inventory.Machine.Online.Difference(l.busy()), l.inventory.near(requests)
	if part, ok := l.regained(claim, requests); ok {
		g.Parts = []Part{part}
		return g, nil
	}
	for _, r := range requests {
		part, err := l.serve(r, free, near, g.Parts)
		if err != nil {
			return Grant{}, fmt.Errorf("request %q: %w", r.Name, err)
		}
		free = free.Difference(part.CPUs)
		g.Parts = append(g.Parts, part)
	}
	return g, nil
}

// regained is the part of a claim whose grant was lost while its containers went on: they
// keep the CPUs on which they are. It is tried for claims of one request without further
// wishes, for which these CPUs are surely what it was.
func (l *Ledger) regained(claim Claim, requests []Request) (Part, bool) {
	if len(requests) != 1 {
		return Part{}, false
	}
	r := requests[0]
	d, ok := l.inventory.Domain(r.Domain)
	if !ok || r.SharedPool || r.IdleSiblings {
		return Part{}, false
	}
	var cpus, others topology.CPUSet
	for _, c := range l.containers {
		foreign := func(ref Ref) bool { return ref.Claim != claim.UID || ref.Request != "" && ref.Request != r.Name }
		if len(c.Claims) > 0 && slices.Contains(claim.Pods, c.Pod) && !slices.ContainsFunc(c.Claims, foreign) {
			cpus = cpus.Union(c.Observed)
		} else if l.isOrphan(&c.Container) {
			others = others.Union(c.Observed)
		}
	}
	if cpus.IsEmpty() {
		return Part{}, false
	}
	for _, g := range l.grants {
		others = others.Union(g.CPUs())
	}
	whole := cpus.Union(l.inventory.siblings(cpus))
	if cpus.Intersects(others) || cpus.Size() != r.Count || !whole.Equals(cpus) || !cpus.IsSubsetOf(d.CPUs.Intersection(l.inventory.Machine.Online)) {
		return Part{}, false
	}
	part := Part{Request: r, CPUs: cpus}
	if r.LocalMemory {
		part.MemoryNodes = d.MemoryNodes
	}
	return part, true
}

// serve chooses what one request gets. Near are the CPUs beside what else the claim
// asks for. The parts before it are those of its own claim, which is not in the state
// yet.
func (l *Ledger) serve(r Request, free, near topology.CPUSet, before []Part) (Part, error) {
	if d, ok := l.inventory.MemoryDomain(r.Domain); ok {
		if err := d.fits(r, l.held(before)); err != nil {
			return Part{}, err
		}
		return Part{Request: r, MemoryNodes: []int{d.NUMANode}}, nil
	}
	if d, ok := l.inventory.Device(r.Domain); ok {
		if err := takes(d, r, l.held(before)); err != nil {
			return Part{}, err
		}
		return Part{Request: r, Hardware: hardware(d, r)}, nil
	}
	d, ok := l.inventory.Domain(r.Domain)
	if !ok {
		return Part{}, &UnknownDomainError{Domain: r.Domain}
	}
	cpus, err := d.Choose(free, r.Count, near)
	if err != nil {
		return Part{}, err
	}
	part := Part{Request: r, CPUs: cpus}
	if r.IdleSiblings {
		part.Idle = d.siblings(cpus)
	}
	if r.LocalMemory {
		part.MemoryNodes = d.MemoryNodes
	}
	return part, nil
}

// held are the parts of all grants, behind some that are in none yet.
func (l *Ledger) held(before []Part) []Part {
	held := slices.Clone(before)
	for _, g := range l.grants {
		held = append(held, g.Parts...)
	}
	return held
}

// Release takes a claim's CPUs back and returns when that is stored. A claim
// without a grant is no error. A claim whose container still runs is an
// [*InUseError].
func (l *Ledger) Release(uid ClaimUID) error {
	l.saving.Lock()
	defer l.saving.Unlock()

	g, known, err := l.releasable(uid)
	if err != nil || !known {
		return err
	}
	remaining := slices.DeleteFunc(l.Grants(), func(g Grant) bool { return g.UID == uid })
	err = l.store.Save(remaining)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaving = ""
	if err != nil {
		return fmt.Errorf("store the release of claim %s/%s: %w", g.Namespace, g.Name, err)
	}
	delete(l.grants, uid)
	return nil
}

func (l *Ledger) releasable(uid ClaimUID) (Grant, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, known := l.grants[uid]
	if !known {
		return g, false, nil
	}
	if err := l.inUse(g); err != nil {
		return g, true, err
	}
	l.leaving = uid
	return g, true, nil
}

// inUse returns an [*InUseError] if a container names the grant's claim.
func (l *Ledger) inUse(g Grant) error {
	for _, c := range l.containers {
		if slices.ContainsFunc(c.Claims, func(r Ref) bool { return r.Claim == g.UID }) {
			return &InUseError{Grant: g, Container: c.Container}
		}
	}
	return nil
}

// Admit enters a container that is about to be created and returns what it must
// be created with. The error is an [*UnknownClaimError], a [*NotReservedError], an
// [*OfflineError] or a [*NotHandedOverError], and the container is then not entered.
func (l *Ledger) Admit(c Container) (Placement, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.permitted(&c); err != nil {
		return Placement{}, err
	}
	for _, ref := range c.Claims {
		g := l.grants[ref.Claim]
		if offline := l.inventory.offline(g.CPUsOf(ref.Request)); !offline.IsEmpty() {
			return Placement{}, &OfflineError{Container: c, Grant: g, CPUs: offline}
		}
	}
	for p := range l.parts(&c) {
		if !p.isHandedOver() {
			return Placement{}, &NotHandedOverError{Container: c, Device: p.Domain}
		}
	}
	c.Started = false
	own := &tracked{Container: c, isTold: true}
	l.containers.put(own)
	cpus := l.told(l.entry(own, l.view()))
	own.told = cpus
	placement := Placement{CPUs: cpus, MemoryNodes: l.memoryNodes(&c), Unthrottled: l.ownsItsCPUs(&c)}
	var hardware []*Hardware
	for p := range l.parts(&c) {
		if p.Hardware != nil {
			placement.Nodes = append(placement.Nodes, p.Hardware.Nodes...)
			placement.Interfaces = append(placement.Interfaces, p.Hardware.Interfaces...)
			if len(p.Hardware.Variables) > 0 {
				hardware = append(hardware, p.Hardware)
			}
		}
	}
	placement.Environment = environment(hardware)
	return placement, nil
}

// memoryNodes are those that the container's parts name; and those nearest to all its
// CPUs, if some of them want their memory local.
func (l *Ledger) memoryNodes(c *Container) []int {
	var named, near []int
	local := false
	for p := range l.parts(c) {
		local = local || p.LocalMemory
		named = append(named, p.MemoryNodes...)
		if d, ok := l.inventory.Domain(p.Domain); ok {
			near = append(near, d.MemoryNodes...)
		}
	}
	if local {
		named = append(named, near...)
	}
	return sortedSet(named)
}

// ownsItsCPUs reports whether nobody else may run where the container does.
func (l *Ledger) ownsItsCPUs(c *Container) bool {
	owns := false
	for p := range l.parts(c) {
		if p.SharedPool {
			return false
		}
		owns = owns || !p.CPUs.IsEmpty()
	}
	return owns
}

// parts are those that the container's claims name.
func (l *Ledger) parts(c *Container) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		for _, ref := range c.Claims {
			for _, p := range l.grants[ref.Claim].Parts {
				if (ref.Request == "" || ref.Request == p.Name) && !yield(p) {
					return
				}
			}
		}
	}
}

func (l *Ledger) permitted(c *Container) error {
	for _, ref := range c.Claims {
		g, ok := l.grants[ref.Claim]
		if !ok || !g.has(ref.Request) || ref.Claim == l.leaving {
			return &UnknownClaimError{Container: *c, Ref: ref}
		}
		if !g.isFor(c.Pod, c.PodNamespace, ref.Request) {
			return &NotReservedError{Container: *c, Grant: g}
		}
	}
	return nil
}

// Listed notes that the runtime now finds the container by its id, so that
// updates of it are heeded.
func (l *Ledger) Listed(id ContainerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.containers.get(id); ok {
		c.listed = true
	}
}

// Started notes that the container is let run.
func (l *Ledger) Started(id ContainerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.containers.get(id); ok {
		c.Started = true
	}
}

// Remove forgets a container that has stopped or was never started.
func (l *Ledger) Remove(id ContainerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.containers.remove(id)
}

// Sync replaces all containers with those that the runtime lists. What they were
// observed on counts as what the runtime was told, so that a container which is
// where it ought to be is left alone.
func (l *Ledger) Sync(containers []Container) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.containers = nil
	for _, c := range containers {
		if l.inventory.shareable.IsSubsetOf(c.Observed) {
			c.Observed = topology.CPUSet{}
		}
		told := c.Observed
		if told.IsEmpty() {
			told = l.inventory.shareable
		}
		l.containers.put(&tracked{Container: c, listed: true, told: told, isTold: true})
	}
}

// Updates returns, ordered by id, the containers whose CPUs the runtime must
// change. They count as told from then on; if one was not heeded, say so with
// [Ledger.Untold] and it is returned again.
func (l *Ledger) Updates() []Update {
	l.mu.Lock()
	defer l.mu.Unlock()
	updates, _ := l.updates(topology.CPUSet{})
	return updates
}

// UpdatesBeside is Updates before the container starts. Known are the started
// containers that have nothing in common with its CPUs, if those are exclusive and not
// kept so by the kernel, and were told so earlier already: whether they heeded it is worth
// a look.
func (l *Ledger) UpdatesBeside(id ContainerID) (updates []Update, known []Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var granted topology.CPUSet
	if c, ok := l.containers.get(id); ok && !l.isOrphan(&c.Container) {
		granted = l.granted(&c.Container)
	}
	return l.updates(granted)
}

// updates returns, beside the updates, the started containers that need none and keep
// off the CPUs.
func (l *Ledger) updates(exclusive topology.CPUSet) (updates []Update, others []Entry) {
	v := l.view()
	look := !exclusive.IsEmpty() && !exclusive.IsSubsetOf(v.lent)
	for _, c := range l.containers {
		if !c.listed && !look {
			continue
		}
		e := l.entry(c, v)
		switch {
		case c.listed && (!c.isTold || !e.Fits(c.told)):
			c.told, c.isTold = l.told(e), true
			updates = append(updates, Update{ID: c.ID, CPUs: c.told, Unthrottled: !e.Orphan && l.ownsItsCPUs(&c.Container)})
		case c.Started && look && !e.Granted.Intersects(exclusive):
			others = append(others, e)
		}
	}
	return updates, others
}

// told are the CPUs that the runtime is told: as many as the kernel will see to, so that
// less is to be told when claims come and go.
func (l *Ledger) told(e Entry) topology.CPUSet {
	if e.Bounds.Equals(e.Desired) {
		return e.Desired
	}
	return e.Desired.Union(e.Bounds.Intersection(l.inventory.shareable))
}

// Untold notes that the runtime did not heed an update of the container.
func (l *Ledger) Untold(id ContainerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.containers.get(id); ok {
		c.isTold = false
	}
}

// Pool returns the CPUs of containers without a claim.
func (l *Ledger) Pool() topology.CPUSet {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pool()
}

// Entry returns the container with what the ledger wants of it.
func (l *Ledger) Entry(id ContainerID) (Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.containers.get(id)
	if !ok {
		return Entry{}, false
	}
	return l.entry(c, l.view()), true
}

// Entries returns all containers, ordered by id.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.view()
	entries := make([]Entry, 0, len(l.containers))
	for _, c := range l.containers {
		entries = append(entries, l.entry(c, v))
	}
	return entries
}

func (l *Ledger) entry(c *tracked, v view) Entry {
	e := Entry{
		Container:   c.Container,
		Desired:     l.desired(&c.Container, v.pool),
		Orphan:      l.isOrphan(&c.Container),
		Enforcement: c.enforcement,
	}
	if !e.Orphan {
		e.Granted = l.granted(&c.Container)
	}
	e.Bounds = e.Desired
	if len(c.Claims) == 0 && !v.claimants[c.Pod] {
		e.Bounds = v.bounds
	}
	return e
}

// granted are the CPUs of the container's claims.
func (l *Ledger) granted(c *Container) topology.CPUSet {
	var cpus topology.CPUSet
	for _, ref := range c.Claims {
		cpus = cpus.Union(l.grants[ref.Claim].CPUsOf(ref.Request))
	}
	return cpus
}

// Grants returns all grants, ordered by claim UID.
func (l *Ledger) Grants() []Grant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.grants), func(a, b Grant) int { return cmp.Compare(a.UID, b.UID) })
}

// busy are the CPUs that nobody else may get: a CPU is not one's own while somebody
// else runs on its core.
func (l *Ledger) busy() topology.CPUSet {
	var busy topology.CPUSet
	for _, g := range l.grants {
		busy = busy.Union(g.CPUs())
	}
	busy = busy.Union(l.inventory.siblings(busy))
	for _, c := range l.containers {
		if l.isOrphan(&c.Container) {
			for _, d := range l.inventory.Domains {
				busy = busy.Union(c.Observed.Intersection(d.CPUs))
			}
		}
	}
	return busy
}

// pool is never empty: if grants from before a change of the configuration
// cover every CPU, it falls back to the reserved ones.
func (l *Ledger) pool() topology.CPUSet {
	pool := l.inventory.shareable.Difference(l.busy())
	if pool.IsEmpty() {
		return l.inventory.reserved
	}
	return pool
}

func (l *Ledger) isOrphan(c *Container) bool {
	return len(c.Claims) > 0 && l.permitted(c) != nil
}

// desired are the CPUs of a container: those of its claims, or the pool. An
// orphan stays where it was observed, unless that was everywhere. Of a claim's
// CPUs those count that are online: with none of them the kernel would let the
// container run anywhere, on the CPUs of other claims too.
func (l *Ledger) desired(c *Container, pool topology.CPUSet) topology.CPUSet {
	if len(c.Claims) == 0 {
		return pool
	}
	if l.isOrphan(c) {
		if c.Observed.IsEmpty() {
			return pool
		}
		return c.Observed
	}
	var cpus topology.CPUSet
	for p := range l.parts(c) {
		cpus = cpus.Union(l.inventory.online(p.RunsOn()))
		if p.SharedPool {
			cpus = cpus.Union(pool)
		}
	}
	if cpus.IsEmpty() {
		return pool
	}
	return cpus
}
