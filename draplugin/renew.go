package draplugin

import (
	"context"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
)

// reasonRenewed is the reason of Events of claims whose devices have other nodes by now.
const reasonRenewed = "DeviceNodesChanged"

// renew brings the nodes that claims have up to date with their devices. The kubelet does
// not prepare a claim again for a container that restarts, which must not find another
// device under the numbers of its own. A container that runs keeps the nodes that it was
// created with: its pod is told.
//
// The spec is written first: if the ledger's file cannot be, nobody gets in with what does
// not fit, and it is tried again.
func (r *reporter) renew(ctx context.Context) error {
	for _, g := range r.plugin.ledger.Grants() {
		if _, isOther := r.plugin.ledger.Renewed(g.UID); !isOther {
			continue
		}
		if err := r.renewGrant(ctx, g.UID); err != nil {
			return err
		}
	}
	return nil
}

func (r *reporter) renewGrant(ctx context.Context, uid allocator.ClaimUID) error {
	p := r.plugin
	defer p.claims.lock(uid)()
	before, _ := p.ledger.GrantOf(uid)
	now, isOther := p.ledger.Renewed(uid)
	if !isOther {
		return nil // It was prepared again meanwhile, or released.
	}
	if err := p.cdi.write(now); err != nil {
		return err
	}
	if err := p.ledger.Renew(now); err != nil {
		return err
	}
	for i, part := range now.Parts {
		old := before.Parts[i].Hardware
		if part.Hardware == old {
			continue
		}
		klog.FromContext(ctx).Info("A device of a claim has other nodes than before", "claim", klog.KRef(now.Namespace, now.Name), "uid", uid, "device", part.Domain)
		message := fmt.Sprintf("claim %s/%s (%s): device %s has %v by now in place of %v: containers that run with it have to start again",
			now.Namespace, now.Name, uid, part.Domain, part.Hardware.Nodes, old.Nodes)
		for _, about := range r.concerned(now.Claim) {
			p.notifier.WarnAbout(ctx, about, reasonRenewed, message)
		}
	}
	return nil
}
