package draplugin

import (
	"fmt"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/allocator"
)

const (
	// TaintCPUOffline is the key of a device's taint for each claim that holds a
	// CPU of it which went offline; the value is the claim's UID. It has no effect
	// by itself, because the device's other claims are sound: who wants such pods
	// evicted acts on it.
	TaintCPUOffline = DriverName + "/cpu-offline"
	// TaintNotEnforced is, likewise, that for each claim whose CPUs are not kept from
	// others at present.
	TaintNotEnforced = DriverName + "/not-enforced"

	// conditionReady is the condition that the API names for a device's status.
	conditionReady = "Ready"
	// conditionEnforced tells who keeps others off the claim's CPUs, or that nobody
	// does.
	conditionEnforced = "Enforced"

	reasonOffline  = "CPUsOffline"
	reasonGone     = "DeviceGone"
	reasonBroken   = "DeviceBroken"
	reasonKernel   = "Kernel"
	reasonRuntime  = "Runtime"
	reasonDegraded = "Degraded"
)

// finding is what is to be said of one part of a claim: one condition of its device.
type finding struct {
	claim                  allocator.ClaimUID
	request, domain, share string
	condition              string
	status                 metav1.ConditionStatus
	reason, message        string
	// taint is the key of the device's taint; empty for none.
	taint string
}

// wrong reports whether people have to know.
func (f finding) wrong() bool { return f.status == metav1.ConditionFalse }

// ofContainer reports whether it is about a container that uses the claim.
func (f finding) ofContainer() bool { return f.condition == conditionEnforced }

func findingOf(claim allocator.ClaimUID, p allocator.Part, condition string) finding {
	return finding{claim: claim, request: p.Name, domain: p.Domain, share: p.Share, condition: condition}
}

// findings are what is to be said of all claims: which lost CPUs or have a device that does
// not work, and for those with running containers who keeps others off.
func (p *Plugin) findings(conflicts []allocator.Conflict) []finding {
	grants := p.ledger.Grants()
	return append(findings(conflicts, grants, p.ledger.Holders()), broken(grants, p.ledger.Inventory())...)
}

// broken are the parts whose device is there and does not work.
func broken(grants []allocator.Grant, inv *allocator.Inventory) []finding {
	var found []finding
	for _, g := range grants {
		for _, p := range g.Parts {
			d, ok := inv.Device(p.Domain)
			if !ok || p.Hardware == nil {
				continue
			}
			if problem := brokenBy(*d); problem != "" {
				f := findingOf(g.UID, p, conditionReady)
				f.status, f.reason = metav1.ConditionFalse, reasonBroken
				f.message = fmt.Sprintf("claim %s/%s (%s): %s", g.Namespace, g.Name, g.UID, problem)
				found = append(found, f)
			}
		}
	}
	return found
}

func findings(conflicts []allocator.Conflict, grants []allocator.Grant, holders []allocator.Holder) []finding {
	var found []finding
	for _, c := range conflicts {
		f := findingOf(c.Claim.UID, c.Part, conditionReady)
		switch {
		case !c.Offline.IsEmpty():
			f.status, f.reason, f.message, f.taint = metav1.ConditionFalse, reasonOffline, c.Message, TaintCPUOffline
		case c.Part.Hardware != nil:
			f.status, f.reason, f.message = metav1.ConditionFalse, reasonGone, c.Message
		default:
			continue
		}
		found = append(found, f)
	}
	for _, g := range grants {
		for _, p := range g.Parts {
			if h, ok := weakest(holders, g.UID, p); ok && !p.CPUs.IsEmpty() {
				f := findingOf(g.UID, p, conditionEnforced)
				f.status, f.reason, f.message, f.taint = enforced(g, h)
				found = append(found, f)
			}
		}
	}
	return found
}

var tierOrder = []allocator.Tier{allocator.DegradedTier, allocator.RuntimeTier, allocator.KernelTier}

// weakest is, of the containers that use a part of a claim, the one whose CPUs are kept
// from others the least.
func weakest(holders []allocator.Holder, claim allocator.ClaimUID, p allocator.Part) (found allocator.Holder, ok bool) {
	for _, h := range holders {
		uses := slices.ContainsFunc(h.Claims, func(r allocator.Ref) bool {
			return r.Claim == claim && (r.Request == "" || r.Request == p.Name)
		})
		if !uses || h.Orphan || h.Enforcement.Tier == "" {
			continue
		}
		if !ok || slices.Index(tierOrder, h.Enforcement.Tier) < slices.Index(tierOrder, found.Enforcement.Tier) {
			found, ok = h, true
		}
	}
	return found, ok
}

func enforced(g allocator.Grant, h allocator.Holder) (status metav1.ConditionStatus, reason, message, taint string) {
	const maxMessage = 1024 // the API takes 32 KiB; nobody reads more than this
	why := h.Enforcement.Reason
	if len(why) > maxMessage {
		why = why[:maxMessage]
	}
	container := fmt.Sprintf("container %s of pod %s/%s", h.Name, h.PodNamespace, h.PodName)
	switch h.Enforcement.Tier {
	case allocator.KernelTier:
		return metav1.ConditionTrue, reasonKernel, "the kernel keeps everyone else off the CPUs of " + container, ""
	case allocator.RuntimeTier:
		return metav1.ConditionTrue, reasonRuntime, fmt.Sprintf("all other containers were moved off the CPUs of %s; the kernel does not enforce it: %s", container, why), ""
	case allocator.DegradedTier:
	}
	return metav1.ConditionFalse, reasonDegraded, fmt.Sprintf("claim %s/%s (%s): the CPUs of %s are not kept from others: %s",
		g.Namespace, g.Name, g.UID, container, why), TaintNotEnforced
}

// taints are those of one device, one for each claim that something is wrong with.
func taints(device string, found []finding) []resourceapi.DeviceTaint {
	var list []resourceapi.DeviceTaint
	for _, f := range found {
		taint := resourceapi.DeviceTaint{Key: f.taint, Value: string(f.claim), Effect: resourceapi.DeviceTaintEffectNone}
		if f.domain != device || f.taint == "" || slices.Contains(list, taint) {
			continue
		}
		if list = append(list, taint); len(list) == resourceapi.DeviceTaintsMaxLength {
			break
		}
	}
	return list
}
