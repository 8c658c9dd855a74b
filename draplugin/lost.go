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

const (
	// TaintCPUOffline is the key of a device's taint for each claim that holds a
	// CPU of it which went offline; the value is the claim's UID. It has no effect
	// by itself, because the device's other claims are sound: who wants such pods
	// evicted acts on it.
	TaintCPUOffline = DriverName + "/cpu-offline"

	// conditionReady is the condition that the API names for a device's status.
	conditionReady = "Ready"
	reasonOffline  = "CPUsOffline"
)

// taints are those of one device, one for each claim that lost CPUs of it.
func taints(device string, conflicts []allocator.Conflict) []resourceapi.DeviceTaint {
	var found []resourceapi.DeviceTaint
	for _, c := range conflicts {
		taint := resourceapi.DeviceTaint{Key: TaintCPUOffline, Value: string(c.Claim.UID), Effect: resourceapi.DeviceTaintEffectNone}
		if c.Part.Domain != device || c.Offline.IsEmpty() || slices.Contains(found, taint) {
			continue
		}
		if found = append(found, taint); len(found) == resourceapi.DeviceTaintsMaxLength {
			break
		}
	}
	return found
}

// reporter tells the owners of claims that CPUs of theirs went offline: with an
// Event of the claim and of its pods, once, and with a condition of the claim's
// device for as long as it lasts.
type reporter struct {
	plugin *Plugin
	// said is what the claims in question were last told. A claim that is not in
	// it is in order, or, before the first update, of unknown state: another
	// process may have told it something.
	said    map[types.UID]report
	started bool
}

// report is what is to be said of one claim.
type report struct {
	claim allocator.Claim
	// messages are what is wrong with each part of it; nothing when it is in order.
	messages []string
	parts    []allocator.Part
}

func (p *Plugin) newReporter() *reporter {
	return &reporter{plugin: p, said: map[types.UID]report{}}
}

// update says what has changed since the last update. What could not be said is
// tried again with the next one; the error is that of all of them.
func (r *reporter) update(ctx context.Context, conflicts []allocator.Conflict) error {
	wanted := map[types.UID]report{}
	for _, g := range r.plugin.ledger.Grants() {
		_, isSaid := r.said[types.UID(g.UID)]
		if isSaid || !r.started {
			wanted[types.UID(g.UID)] = report{claim: g.Claim}
		}
	}
	for _, c := range conflicts {
		if c.Offline.IsEmpty() {
			continue
		}
		w := wanted[types.UID(c.Claim.UID)]
		w.claim = c.Claim
		w.messages = append(w.messages, c.Message)
		w.parts = append(w.parts, c.Part)
		wanted[types.UID(c.Claim.UID)] = w
	}
	for uid := range r.said {
		if _, ok := wanted[uid]; !ok {
			delete(r.said, uid) // released, and its status is gone with the allocation
		}
	}
	var errs []error
	for uid, w := range wanted {
		before, isSaid := r.said[uid]
		if isSaid && slices.Equal(before.messages, w.messages) {
			continue
		}
		if err := r.say(ctx, w); err != nil {
			errs = append(errs, err)
			continue
		}
		if len(w.messages) == 0 {
			delete(r.said, uid)
		} else {
			r.said[uid] = w
		}
	}
	r.started = r.started || len(errs) == 0
	return errors.Join(errs...)
}

func (r *reporter) say(ctx context.Context, w report) error {
	if err := r.writeStatus(ctx, w); err != nil {
		return err
	}
	for _, message := range w.messages {
		for _, about := range r.concerned(w.claim) {
			r.plugin.notifier.WarnAbout(ctx, about, reasonOffline, message)
		}
	}
	return nil
}

// writeStatus replaces what this driver says in the claim's status. A claim that
// is gone needs nothing.
func (r *reporter) writeStatus(ctx context.Context, w report) error {
	status := resourceapply.ResourceClaimStatus()
	for i, part := range w.parts {
		device := resourceapply.AllocatedDeviceStatus().
			WithDriver(DriverName).WithPool(r.plugin.opts.NodeName).WithDevice(part.Domain).
			WithConditions(metaapply.Condition().
				WithType(conditionReady).WithStatus(metav1.ConditionFalse).WithReason(reasonOffline).
				WithMessage(w.messages[i]).WithLastTransitionTime(metav1.NewTime(time.Now())))
		if part.Share != "" {
			device = device.WithShareID(part.Share)
		}
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
