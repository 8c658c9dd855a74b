package draplugin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
)

// The kubelet releases claims by itself, except those that it has forgotten: its
// state was lost, or the pod was deleted by force while it was not there. A grant
// whose claim the API server no longer has for this node is released here.
const (
	// staleInterval is how often all grants are held against the API server.
	staleInterval = 5 * time.Minute
	// staleGrace is how long a claim must have been found stale before its grant is
	// released: the kubelet is to do it if it can.
	staleGrace = 30 * time.Second
	// staleTimeout limits one question; a claim that is prepared meanwhile waits.
	staleTimeout = 5 * time.Second
)

// stale finds grants that nobody will release.
type stale struct {
	plugin *Plugin
	// since is when claims were first found stale without having been found in order
	// since then, by the monotonic clock.
	since map[allocator.ClaimUID]time.Time
	grace time.Duration
}

func (p *Plugin) newStale(grace time.Duration) *stale {
	return &stale{plugin: p, since: map[allocator.ClaimUID]time.Time{}, grace: grace}
}

// watch looks at once, and then again and again until the context ends. A claim in
// question is looked at again when its grace is over.
func (s *stale) watch(ctx context.Context, interval time.Duration) {
	for {
		next := interval
		if s.look(ctx) {
			next = min(next, s.grace)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
		}
	}
}

// look holds all grants against the API server once, and reports whether some are
// in question.
func (s *stale) look(ctx context.Context) (again bool) {
	if s.plugin.runtime.Ready() != nil {
		return true // a container may run of which nobody knows
	}
	released := false
	known := map[allocator.ClaimUID]bool{}
	for _, g := range s.plugin.ledger.Grants() {
		known[g.UID] = true
		done, err := s.consider(ctx, g)
		released = released || done
		if ctx.Err() != nil {
			return false
		}
		if inUse := (*allocator.InUseError)(nil); errors.As(err, &inUse) {
			klog.FromContext(ctx).V(2).Info("A claim that is gone is still in use", "claim", klog.KRef(g.Namespace, g.Name), "uid", g.UID, "container", inUse.Container.ID)
		} else if err != nil {
			klog.FromContext(ctx).Error(err, "Cannot look after a claim, trying again", "claim", klog.KRef(g.Namespace, g.Name), "uid", g.UID)
		}
	}
	for uid := range s.since {
		if !known[uid] {
			delete(s.since, uid)
		}
	}
	if released {
		s.plugin.released()
		s.plugin.Refresh()
	}
	return len(s.since) > 0
}

// consider releases the grant if its claim has been stale for the grace time, no
// container names it, and the API server says so once more. All the while the claim
// is not prepared: one that is allocated and reserved again before that is seen here,
// and one that is afterwards gets a grant of its own.
func (s *stale) consider(ctx context.Context, g allocator.Grant) (released bool, err error) {
	p := s.plugin
	defer p.claims.lock(g.UID)()
	why, err := p.whyStale(ctx, g)
	if err != nil {
		return false, err
	}
	if why == "" {
		delete(s.since, g.UID)
		return false, nil
	}
	since, ok := s.since[g.UID]
	if !ok {
		s.since[g.UID] = time.Now()
		return false, nil
	}
	if time.Since(since) < s.grace {
		return false, nil
	}
	if err := p.runtime.Ready(); err != nil {
		return false, err
	}
	if err := p.release(ctx, g.UID); err != nil {
		return false, err
	}
	delete(s.since, g.UID)
	p.metrics.staleReleases.Inc()
	klog.FromContext(ctx).Info("Released a claim that the kubelet has forgotten", "claim", klog.KRef(g.Namespace, g.Name), "uid", g.UID, "cpus", g.CPUs().String(), "why", why)
	return true, nil
}

// whyStale asks the API server itself, no cache, why nobody can use the grant; empty
// is that somebody can.
func (p *Plugin) whyStale(ctx context.Context, g allocator.Grant) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, staleTimeout)
	defer cancel()
	claim, err := p.opts.Client.ResourceV1().ResourceClaims(g.Namespace).Get(ctx, g.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return "the claim does not exist", nil
	case err != nil:
		return "", fmt.Errorf("get claim %s/%s: %w", g.Namespace, g.Name, err)
	case claim.UID != types.UID(g.UID):
		return "another claim has its name", nil
	case !allocatedFrom(claim, p.opts.NodeName):
		return "it is not allocated to this node", nil
	case len(claim.Status.ReservedFor) == 0:
		return "it is reserved for nobody", nil
	}
	return "", nil
}

// allocatedFrom reports whether a claim has devices of the driver's pool.
func allocatedFrom(claim *resourceapi.ResourceClaim, pool string) bool {
	if claim.Status.Allocation == nil {
		return false
	}
	for _, r := range claim.Status.Allocation.Devices.Results {
		if r.Driver == DriverName && r.Pool == pool {
			return true
		}
	}
	return false
}

// claimLocks let one thing at a time happen to a claim: to be prepared, unprepared
// or collected. Each is more than one step, in the ledger and in the CDI folder.
type claimLocks struct {
	mu    sync.Mutex
	locks map[allocator.ClaimUID]*claimLock
}

type claimLock struct {
	sync.Mutex
	users int
}

// lock waits for the claim and returns what lets it go.
func (c *claimLocks) lock(uid allocator.ClaimUID) (unlock func()) {
	c.mu.Lock()
	l := c.locks[uid]
	if l == nil {
		l = &claimLock{}
		c.locks[uid] = l
	}
	l.users++
	c.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		c.mu.Lock()
		defer c.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(c.locks, uid)
		}
	}
}
