package draplugin

import (
	"context"
	"errors"
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/allocator/crashpoint"
)

// PrepareResourceClaims implements [kubeletplugin.DRAPlugin]: it grants CPUs to
// each claim, gives its functions to their drivers for vfio and writes its CDI spec.
//
// The kubelet calls it before it creates a pod's containers, again after its own
// restart, and again whenever a pod that uses the claim is retried; not after
// topolet's restart. So the spec file is written every time, also for a claim
// that has its grant: after a reboot the checkpoint is there and the file is
// not. One claim's error does not touch the others.
func (p *Plugin) PrepareResourceClaims(ctx context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	results := make(map[types.UID]kubeletplugin.PrepareResult, len(claims))
	for _, claim := range claims {
		results[claim.UID] = p.prepare(ctx, claim)
	}
	return results, nil
}

func (p *Plugin) prepare(ctx context.Context, claim *resourceapi.ResourceClaim) (result kubeletplugin.PrepareResult) {
	defer p.metrics.observe("prepare", &result.Err)()
	defer p.claims.lock(allocator.ClaimUID(claim.UID))()
	if err := p.runtime.Ready(); err != nil {
		return kubeletplugin.PrepareResult{Err: fmt.Errorf("topolet is not ready yet, the kubelet will try again: %w", err)}
	}
	owner, requests, err := translate(claim, p.opts.NodeName)
	if err != nil {
		return kubeletplugin.PrepareResult{Err: fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)}
	}
	if err := p.checkPrograms(owner, requests); err != nil {
		return kubeletplugin.PrepareResult{Err: fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)}
	}
	grant, err := p.ledger.Grant(owner, requests)
	if err != nil {
		return kubeletplugin.PrepareResult{Err: fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)}
	}
	crashpoint.Reached(crashpoint.Granted)
	if grant, err = p.handOver(ctx, grant); err != nil {
		return kubeletplugin.PrepareResult{Err: fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)}
	}
	if err := p.cdi.write(grant); err != nil {
		return kubeletplugin.PrepareResult{Err: err}
	}
	crashpoint.Reached(crashpoint.SpecWritten)
	// Containers of the claim may be created from now on: nobody may be given
	// its CPUs by a decision from before the grant.
	if err := p.runtime.Settled(ctx); err != nil {
		return kubeletplugin.PrepareResult{Err: fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)}
	}
	klog.FromContext(ctx).Info("Prepared claim", "claim", klog.KObj(claim), "uid", claim.UID, "cpus", grant.CPUs().String(), "memoryNodes", grant.MemoryNodesOf(""))
	return kubeletplugin.PrepareResult{Devices: p.devicesOf(grant)}
}

// devicesOf lists the grant's devices for the kubelet. A request's CDI device
// covers all of its results, so only the first of them carries it.
func (p *Plugin) devicesOf(g allocator.Grant) []kubeletplugin.Device {
	inv := p.ledger.Inventory()
	named := map[string]bool{}
	devices := make([]kubeletplugin.Device, 0, len(g.Parts))
	for _, part := range g.Parts {
		device := kubeletplugin.Device{
			Requests:   []string{part.Name},
			PoolName:   p.opts.NodeName,
			DeviceName: part.Domain,
			Metadata:   metadataOf(inv, part, p.opts.Publication.Lists),
		}
		if part.Share != "" {
			device.ShareID = ptr.To(types.UID(part.Share))
		}
		if !named[part.Name] {
			named[part.Name] = true
			device.CDIDeviceIDs = []string{deviceID(g.UID, part.Name)}
		}
		devices = append(devices, device)
	}
	return devices
}

// metadataOf is what the workload can read about what it got (KEP-5304).
func metadataOf(inv *allocator.Inventory, part allocator.Part, lists bool) *kubeletplugin.DeviceMetadata {
	attrs := map[string]resourceapi.DeviceAttribute{}
	if d, ok := inv.Domain(part.Domain); ok {
		addAll(attrs, attributes(inv.Machine, d, lists))
	}
	if d, ok := inv.MemoryDomain(part.Domain); ok {
		addAll(attrs, memoryAttributes(d))
	}
	if d, ok := inv.Device(part.Domain); ok {
		addAll(attrs, hardwareAttributes(d))
	}
	if part.Program != "" {
		attrs[string(AttributeAFU)] = resourceapi.DeviceAttribute{StringValue: ptr.To(part.Program)}
	}
	if cpus := part.RunsOn(); !cpus.IsEmpty() {
		attrs[string(AttributeCPUSet)] = resourceapi.DeviceAttribute{StringValue: ptr.To(cpus.String())}
	}
	return &kubeletplugin.DeviceMetadata{Attributes: attrs}
}

func addAll(to map[string]resourceapi.DeviceAttribute, attrs map[resourceapi.QualifiedName]resourceapi.DeviceAttribute) {
	for name, value := range attrs {
		to[string(name)] = value
	}
}

// UnprepareResourceClaims implements [kubeletplugin.DRAPlugin]: it takes the
// claims' CPUs back. The kubelet calls it when the containers of the last pod
// have stopped, perhaps of another topolet process than the one that prepared
// the claim, and for claims that were never prepared.
func (p *Plugin) UnprepareResourceClaims(ctx context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	results := make(map[types.UID]error, len(claims))
	for _, claim := range claims {
		results[claim.UID] = p.unprepare(ctx, claim)
	}
	p.released()
	p.Refresh()
	return results, nil
}

func (p *Plugin) unprepare(ctx context.Context, claim kubeletplugin.NamespacedObject) (err error) {
	defer p.metrics.observe("unprepare", &err)()
	uid := allocator.ClaimUID(claim.UID)
	defer p.claims.lock(uid)()
	if err := p.release(ctx, uid); err != nil {
		return fmt.Errorf("claim %s: %w", claim, err)
	}
	klog.FromContext(ctx).Info("Released claim", "claim", claim.String(), "uid", claim.UID)
	return nil
}

// release gives the claim's functions back to their drivers, takes its CPUs back, and then
// its CDI spec: one that a crash leaves names a claim without a grant, which no container
// gets in with.
func (p *Plugin) release(ctx context.Context, uid allocator.ClaimUID) error {
	err := p.takeBack(ctx, uid)
	if _, inUse := errors.AsType[*allocator.InUseError](err); inUse {
		p.runtime.ForgetStopped(uid)
		err = p.takeBack(ctx, uid)
	}
	if err != nil {
		return err
	}
	crashpoint.Reached(crashpoint.ReleaseStored)
	if err := p.cdi.remove(uid); err != nil {
		return err
	}
	crashpoint.Reached(crashpoint.SpecRemoved)
	return nil
}

// takeBack takes back what the claim holds, if no container uses it.
func (p *Plugin) takeBack(ctx context.Context, uid allocator.ClaimUID) error {
	if err := p.giveBack(ctx, uid); err != nil {
		return err
	}
	return p.ledger.Release(uid)
}
