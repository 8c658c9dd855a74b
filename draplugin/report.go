package draplugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	resourceapply "k8s.io/client-go/applyconfigurations/resource/v1"

	"github.com/topolet/topolet/allocator"
)

// reporter tells the owners of claims what is found of them: by conditions of the
// claim's devices, and where something is wrong by an Event of the claim and of its
// pods, once.
type reporter struct {
	plugin *Plugin
	// said is what the claims were last told. A claim that is not in it was told
	// nothing, or, before the first update, nobody knows what: another process may have
	// told it something.
	said    map[allocator.ClaimUID]report
	started bool
}

// report is what is to be said of one claim.
type report struct {
	claim allocator.Claim
	found []finding
}

func (p *Plugin) newReporter() *reporter {
	return &reporter{plugin: p, said: map[allocator.ClaimUID]report{}}
}

// update says what has changed since the last update. What could not be said is
// tried again with the next one; the error is that of all of them.
func (r *reporter) update(ctx context.Context, found []finding) error {
	wanted := map[allocator.ClaimUID]report{}
	for _, g := range r.plugin.ledger.Grants() {
		before, isSaid := r.said[g.UID]
		w := report{claim: g.Claim}
		for _, f := range found {
			if f.claim == g.UID {
				w.found = append(w.found, f)
			}
		}
		if !slices.ContainsFunc(w.found, finding.ofContainer) {
			// Between two containers of the claim, the last one's stays.
			w.found = append(w.found, slices.DeleteFunc(slices.Clone(before.found), func(f finding) bool { return !f.ofContainer() })...)
		}
		if isSaid || !r.started || len(w.found) > 0 {
			wanted[g.UID] = w
		}
	}
	for uid := range r.said {
		if _, ok := wanted[uid]; !ok {
			delete(r.said, uid) // released, and its status is gone with the allocation
		}
	}
	var errs []error
	for uid, w := range wanted {
		before, isSaid := r.said[uid]
		if isSaid && slices.Equal(before.found, w.found) {
			continue
		}
		if err := r.say(ctx, w, before.found); err != nil {
			errs = append(errs, err)
			continue
		}
		r.said[uid] = w
	}
	r.started = r.started || len(errs) == 0
	return errors.Join(errs...)
}

func (r *reporter) say(ctx context.Context, w report, before []finding) error {
	if err := r.writeStatus(ctx, w); err != nil {
		return err
	}
	for _, f := range w.found {
		if !f.wrong() || slices.Contains(before, f) {
			continue
		}
		for _, about := range r.concerned(w.claim) {
			r.plugin.notifier.WarnAbout(ctx, about, f.reason, f.message)
		}
	}
	return nil
}

// writeStatus replaces what this driver says in the claim's status. A claim that
// is gone needs nothing.
func (r *reporter) writeStatus(ctx context.Context, w report) error {
	type key struct{ domain, share string }
	devices := map[key]*resourceapply.AllocatedDeviceStatusApplyConfiguration{}
	status := resourceapply.ResourceClaimStatus()
	for _, f := range w.found {
		device := devices[key{f.domain, f.share}]
		if device == nil {
			device = resourceapply.AllocatedDeviceStatus().WithDriver(DriverName).WithPool(r.plugin.opts.NodeName).WithDevice(f.domain)
			if f.share != "" {
				device = device.WithShareID(f.share)
			}
			devices[key{f.domain, f.share}] = device
		}
		device.WithConditions(metaapply.Condition().
			WithType(f.condition).WithStatus(f.status).WithReason(f.reason).
			WithMessage(f.message).WithLastTransitionTime(metav1.NewTime(time.Now())))
	}
	for _, device := range devices {
		status = status.WithDevices(device)
	}
	claim := resourceapply.ResourceClaim(w.claim.Name, w.claim.Namespace).WithUID(types.UID(w.claim.UID)).WithStatus(status)
	_, err := r.plugin.opts.Client.ResourceV1().ResourceClaims(w.claim.Namespace).
		ApplyStatus(ctx, claim, metav1.ApplyOptions{FieldManager: DriverName, Force: true})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("status of claim %s/%s: %w", w.claim.Namespace, w.claim.Name, err)
	}
	return nil
}

// concerned are the objects that people look at: the claim and its pods.
func (r *reporter) concerned(claim allocator.Claim) []corev1.ObjectReference {
	about := []corev1.ObjectReference{{
		APIVersion: resourceapi.SchemeGroupVersion.String(), Kind: "ResourceClaim",
		Namespace: claim.Namespace, Name: claim.Name, UID: types.UID(claim.UID),
	}}
	seen := map[allocator.PodUID]bool{}
	for _, e := range r.plugin.ledger.Entries() {
		if seen[e.Pod] || !slices.ContainsFunc(e.Claims, func(ref allocator.Ref) bool { return ref.Claim == claim.UID }) {
			continue
		}
		seen[e.Pod] = true
		about = append(about, corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: e.PodNamespace, Name: e.PodName, UID: types.UID(e.Pod),
		})
	}
	return about
}
