package nriplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
)

// verify compares the kernel's cpusets with the ledger's, before the container's
// workload runs.
//
// The pool may have shrunk since the container was created, when a claim was
// granted; the runtime may not have heeded the update, or it is still to come.
// That is no reason to fail as long as no container of that claim exists: before
// one starts, everyone else is looked at again.
func (p *Plugin) verify(ctx context.Context, entry allocator.Entry) error {
	exclusive := !entry.Granted.IsEmpty()
	cpus, err := p.cgroups.effective(entry.Cgroup)
	if errors.Is(err, fs.ErrNotExist) && !exclusive {
		// Runtimes that run containers in virtual machines make no such cgroup.
		klog.FromContext(ctx).Info("Container without a cgroup of its own: its CPUs cannot be verified",
			"container", entry.ID, "pod", klog.KRef(entry.PodNamespace, entry.PodName), "cgroup", entry.Cgroup)
		return nil
	}
	if err != nil {
		return notStarted(entry, err.Error())
	}
	if !entry.Granted.Intersection(entry.Desired).IsSubsetOf(cpus) {
		return notStarted(entry, fmt.Sprintf("it would run on CPUs %s instead of %s", cpus, entry.Desired))
	}
	if surplus := cpus.Difference(entry.Bounds); !surplus.IsEmpty() {
		if !surplus.IsSubsetOf(p.awaited(p.others(entry))) {
			return notStarted(entry, fmt.Sprintf("it would run on CPUs %s instead of %s", cpus, entry.Desired))
		}
		p.ledger.Untold(entry.ID)
		p.Push()
	}
	if !exclusive {
		return nil
	}
	if tier, err := p.kernel.start(ctx, entry.ID); err != nil || tier == allocator.KernelTier {
		return err // nobody needs to be looked at: the kernel keeps all off
	}
	found := p.intruders(entry)
	if len(found) == 0 {
		return nil
	}
	for _, other := range found {
		p.ledger.Untold(other.ID)
	}
	first := found[0]
	if first.err != nil {
		return notStarted(entry, fmt.Sprintf("container %s of pod %s/%s cannot be looked at: %v",
			first.Name, first.PodNamespace, first.PodName, first.err))
	}
	return notStarted(entry, fmt.Sprintf("container %s of pod %s/%s could not be moved off its CPUs %s",
		first.Name, first.PodNamespace, first.PodName, first.cpus))
}

// intruder is a container that runs on CPUs granted to another, or of which
// nobody knows.
type intruder struct {
	allocator.Entry
	cpus topology.CPUSet
	err  error
}

// intruders looks for containers that run on the exclusive CPUs of this one. A
// container that was not let run yet is verified when it is: the runtime may have
// made its cgroup and not filled it. One without a cgroup is gone.
func (p *Plugin) intruders(entry allocator.Entry) []intruder {
	return p.among(p.others(entry), entry)
}

func (p *Plugin) among(others []allocator.Entry, entry allocator.Entry) []intruder {
	var found []intruder
	for _, other := range others {
		if !other.Started {
			continue
		}
		cpus, err := p.cgroups.effective(other.Cgroup)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || cpus.Intersects(entry.Granted) {
			found = append(found, intruder{other, cpus.Intersection(entry.Granted), err})
		}
	}
	return found
}

// ForgetStopped forgets the claim's containers that have no cgroup any more. It is
// for when the kubelet says that they have stopped: containerd tells of the end of a
// container before it lists it as stopped, and a plugin that connects in between
// has heard nothing and takes it for running.
func (p *Plugin) ForgetStopped(claim allocator.ClaimUID) {
	for _, entry := range p.ledger.Entries() {
		if !entry.Started || !slices.ContainsFunc(entry.Claims, func(r allocator.Ref) bool { return r.Claim == claim }) {
			continue
		}
		if _, err := p.cgroups.effective(entry.Cgroup); errors.Is(err, fs.ErrNotExist) {
			p.ledger.Remove(entry.ID)
		}
	}
}

// others are the containers that have no CPU granted in common with this one.
func (p *Plugin) others(entry allocator.Entry) []allocator.Entry {
	var others []allocator.Entry
	for _, other := range p.ledger.Entries() {
		if other.ID != entry.ID && !other.Granted.Intersects(entry.Granted) {
			others = append(others, other)
		}
	}
	return others
}

// awaited are the CPUs of claims whose containers are still to come.
func (p *Plugin) awaited(others []allocator.Entry) topology.CPUSet {
	var cpus topology.CPUSet
	for _, g := range p.ledger.Grants() {
		cpus = cpus.Union(g.CPUs())
	}
	for _, other := range others {
		cpus = cpus.Difference(other.Granted)
	}
	return cpus
}

func notStarted(entry allocator.Entry, why string) error {
	return fmt.Errorf("container %s of pod %s/%s is not started: %s", entry.Name, entry.PodNamespace, entry.PodName, why)
}
