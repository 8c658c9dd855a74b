package nriplugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/nri/pkg/api"
	"k8s.io/klog/v2"
	"k8s.io/utils/cpuset"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/allocator/crashpoint"
)

// noQuota lets a container have all the time of its CPUs.
const noQuota = -1

// Synchronize takes over the containers that the runtime lists. A container that
// runs where it ought to is not touched.
func (p *Plugin) Synchronize(ctx context.Context, pods []*api.PodSandbox, ctrs []*api.Container) (_ []*api.ContainerUpdate, err error) {
	defer p.metrics.observe("Synchronize", &err)()
	podOf := make(map[string]*api.PodSandbox, len(pods))
	for _, pod := range pods {
		podOf[pod.GetId()] = pod
	}
	containers := make([]allocator.Container, 0, len(ctrs))
	for _, ctr := range ctrs {
		if ctr.GetState() == api.ContainerState_CONTAINER_STOPPED {
			continue
		}
		c, err := containerOf(podOf[ctr.GetPodSandboxId()], ctr)
		if err != nil {
			klog.FromContext(ctx).Error(err, "Running container names an unknown claim", "container", c.ID)
		}
		// The kernel knows better than the runtime, which forgets failed updates.
		if c.Observed, err = p.cgroups.effective(c.Cgroup); err != nil {
			c.Observed = configured(ctr)
		}
		containers = append(containers, c)
	}
	p.ledger.Sync(containers)
	p.kernel.adopt(ctx)
	updates := p.updates()
	p.kernel.look()
	p.setSynchronized()
	klog.FromContext(ctx).Info("Synchronized with the container runtime", "containers", len(containers), "updates", len(updates))
	for _, conflict := range p.ledger.Conflicts() {
		klog.FromContext(ctx).Error(nil, "Conflict: "+conflict.Message)
	}
	return updates, nil
}

// CreateContainer gives the container its CPUs and takes those of a claim away
// from everyone else. Those who were told so before and did not heed it are told
// again. A container that names a claim it does not own is refused.
func (p *Plugin) CreateContainer(ctx context.Context, pod *api.PodSandbox, ctr *api.Container) (_ *api.ContainerAdjustment, _ []*api.ContainerUpdate, err error) {
	defer p.metrics.observe("CreateContainer", &err)()
	c, err := containerOf(pod, ctr)
	if err != nil {
		return nil, nil, err
	}
	if err := p.account(ctx, pod, ctr, c); err != nil {
		return nil, nil, err
	}
	placement, err := p.ledger.Admit(c)
	if err != nil {
		return nil, nil, err
	}
	// What can refuse the container comes first: updates of others count as told once
	// they are asked for.
	adjust := &api.ContainerAdjustment{}
	if err := errors.Join(getsDevices(c, placement, ctr), p.giveInterfaces(adjust, pod, c, placement.Interfaces)); err != nil {
		p.ledger.Remove(c.ID)
		return nil, nil, err
	}
	if len(c.Claims) > 0 {
		if err := p.kernel.yield(ctx, c.ID); err != nil {
			p.ledger.Remove(c.ID)
			return nil, nil, err
		}
	}
	pending, known := p.ledger.UpdatesBeside(c.ID)
	updates := nriUpdates(pending)
	if len(known) > 0 {
		entry, _ := p.ledger.Entry(c.ID)
		found := p.among(known, entry)
		for _, other := range found {
			p.ledger.Untold(other.ID)
		}
		if len(found) > 0 {
			updates = append(updates, p.updates()...)
		}
	}
	adjust.SetLinuxCPUSetCPUs(placement.CPUs.String())
	if len(placement.MemoryNodes) > 0 {
		adjust.SetLinuxCPUSetMems(cpuset.New(placement.MemoryNodes...).String())
	}
	if placement.Unthrottled {
		adjust.SetLinuxCPUQuota(noQuota)
	}
	for _, v := range placement.Environment {
		adjust.AddEnv(v.Name, v.Value)
	}
	if len(c.Claims) > 0 {
		adjust.RemoveMount(allocator.Unplaced)
	}
	crashpoint.Reached(crashpoint.Admitted)
	return adjust, updates, nil
}

// PostCreateContainer notes that the runtime now heeds updates of the container.
// What it missed since CreateContainer is sent after this event.
func (p *Plugin) PostCreateContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) error {
	p.ledger.Listed(allocator.ContainerID(ctr.GetId()))
	p.Push()
	return nil
}

// StartContainer reads back what the kernel made of the container's CPUs, has it keep
// everyone else off them if they are exclusive, or else reads back everyone else's, and
// fails the start if that is not what was promised. Containerd and CRI-O have made the
// cgroup by now and have not let the workload run.
func (p *Plugin) StartContainer(ctx context.Context, pod *api.PodSandbox, ctr *api.Container) (err error) {
	defer p.metrics.observe("StartContainer", &err)()
	entry, ok := p.ledger.Entry(allocator.ContainerID(ctr.GetId()))
	if !ok {
		return fmt.Errorf("container %s of pod %s/%s starts without having been created before topolet: it is created anew",
			ctr.GetName(), pod.GetNamespace(), pod.GetName())
	}
	if err = p.hasInterfaces(entry); err == nil {
		err = p.verify(ctx, entry)
	}
	if err != nil {
		p.metrics.readBackFailures.Inc()
		// The runtime never starts this container again: the kubelet makes a new one.
		p.ledger.Remove(entry.ID)
		p.Push()
		return err
	}
	crashpoint.Reached(crashpoint.Verified)
	p.ledger.Started(entry.ID)
	return nil
}

// PostStartContainer looks once more at the container's CPUs. While it was being
// started the runtime did not heed updates of it, and did not say so: containerd
// changes the cgroup of a running container only.
func (p *Plugin) PostStartContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) (err error) {
	defer p.metrics.observe("PostStartContainer", &err)()
	entry, ok := p.ledger.Entry(allocator.ContainerID(ctr.GetId()))
	if !ok {
		return nil
	}
	if cpus, err := p.cgroups.effective(entry.Cgroup); err == nil && !entry.Fits(cpus) {
		p.ledger.Untold(entry.ID)
		p.Push()
	}
	return nil
}

// UpdateContainer keeps the container on its CPUs while something else of it is
// changed, whatever CPUs the request names.
func (p *Plugin) UpdateContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container, _ *api.LinuxResources) (_ []*api.ContainerUpdate, err error) {
	defer p.metrics.observe("UpdateContainer", &err)()
	p.ledger.Untold(allocator.ContainerID(ctr.GetId()))
	return p.updates(), nil
}

// StopContainer forgets the container, which has stopped.
func (p *Plugin) StopContainer(ctx context.Context, _ *api.PodSandbox, ctr *api.Container) (_ []*api.ContainerUpdate, err error) {
	defer p.metrics.observe("StopContainer", &err)()
	p.kernel.end(ctx, allocator.ContainerID(ctr.GetId()))
	p.ledger.Remove(allocator.ContainerID(ctr.GetId()))
	p.kernel.look()
	return p.updates(), nil
}

// RemoveContainer forgets the container, if StopContainer has not.
func (p *Plugin) RemoveContainer(_ context.Context, _ *api.PodSandbox, ctr *api.Container) (err error) {
	defer p.metrics.observe("RemoveContainer", &err)()
	p.ledger.Remove(allocator.ContainerID(ctr.GetId()))
	p.kernel.look()
	return nil
}

// updates are the changes that the ledger wants, as the runtime takes them.
func (p *Plugin) updates() []*api.ContainerUpdate { return nriUpdates(p.ledger.Updates()) }

// nriUpdates is the form in which the runtime takes updates. Equal sets, and in most
// replies all are equal, share one string.
func nriUpdates(pending []allocator.Update) []*api.ContainerUpdate {
	if len(pending) == 0 {
		return nil
	}
	messages := make([]api.ContainerUpdate, len(pending))
	updates := make([]*api.ContainerUpdate, len(pending))
	var last allocator.Update
	var linux *api.LinuxContainerUpdate
	for i, u := range pending {
		if linux == nil || !u.CPUs.Equals(last.CPUs) || u.Unthrottled != last.Unthrottled {
			fresh := &api.ContainerUpdate{}
			fresh.SetLinuxCPUSetCPUs(u.CPUs.String())
			if u.Unthrottled {
				fresh.SetLinuxCPUQuota(noQuota)
			}
			last, linux = u, fresh.Linux
		}
		updates[i] = &messages[i]
		updates[i].ContainerId, updates[i].Linux = string(u.ID), linux
	}
	return updates
}
