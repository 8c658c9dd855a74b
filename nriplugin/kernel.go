package nriplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/allocator/crashpoint"
	"github.com/topolet/topolet/nriplugin/partition"
	"github.com/topolet/topolet/topology"
)

// partitionInterval is how often the kernel's partitions are compared with those
// wanted. A foreign change is noticed within it.
const partitionInterval = 3 * time.Second

// Partitions makes cgroups cpuset partitions. [partition.Tree] does.
type Partitions interface {
	Activate(ctx context.Context, p partition.Partition, live []partition.Partition) error
	Check(p partition.Partition) error
	Deactivate(ctx context.Context, p partition.Partition, live []partition.Partition) error
	Tidy(ctx context.Context, live []partition.Partition) error
	Confine(cgroup string, cpus topology.CPUSet) error
	// Roots tells of containers' cgroups, so that Tidy knows the kubelet's tree.
	Roots(cgroups ...string)
}

// Kernel says whether the kernel keeps everyone else off claimed CPUs.
type Kernel struct {
	// Partitions is nil where it does not.
	Partitions Partitions
	// Why says why it does not.
	Why string
	// Required refuses containers off whose CPUs the kernel cannot keep the others.
	Required bool
	// Changed is called when a container's tier has changed; it must not block.
	Changed func()
}

// kernelTier keeps the kernel's partitions as the ledger wants them. They follow
// from the ledger's holders: a container that holds its CPUs alone has a partition
// from its start on. When it stops the kernel takes the partition with the cgroup;
// what was prepared in the cgroups above is tidied up after it.
type kernelTier struct {
	Kernel
	ledger *allocator.Ledger
	kick   chan struct{}
	// moved is called when CPUs that the kernel kept have to be kept otherwise; it must
	// not block.
	moved func()

	// mu is held while partitions change.
	mu sync.Mutex
}

func newKernelTier(k Kernel, ledger *allocator.Ledger, moved func()) *kernelTier {
	return &kernelTier{Kernel: k, ledger: ledger, kick: make(chan struct{}, 1), moved: moved}
}

// possible reports whether the container gets a partition, and else why not.
func (k *kernelTier) possible(h allocator.Holder) (why string) {
	if k.Partitions == nil {
		return k.Why
	}
	return h.Obstacle
}

// start gives a container whose cgroup exists and that was not let run its
// partition, if it gets one.
func (k *kernelTier) start(ctx context.Context, id allocator.ContainerID) (allocator.Tier, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	holders := k.ledger.Holders()
	i := slices.IndexFunc(holders, func(h allocator.Holder) bool { return h.ID == id })
	if i < 0 {
		return "", nil
	}
	own := holders[i]
	if why := k.possible(own); why != "" {
		k.note(ctx, own, allocator.Enforcement{Tier: allocator.RuntimeTier, Reason: why})
		return allocator.RuntimeTier, nil
	}
	wanted, err := wantedOf(own)
	if err == nil {
		err = k.Partitions.Activate(ctx, wanted, liveOf(holders))
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", notStarted(own.Entry, "the kernel does not keep others off its CPUs"), err)
	}
	crashpoint.Reached(crashpoint.PartitionMade)
	k.note(ctx, own, allocator.Enforcement{Tier: allocator.KernelTier})
	return allocator.KernelTier, nil
}

// adopt finds the partitions that an earlier process made, and where it may have left
// something, before anything else happens to them.
func (k *kernelTier) adopt(ctx context.Context) {
	if k.Partitions == nil {
		return
	}
	for _, e := range k.ledger.Entries() {
		if path, err := cgroupPath(e.Cgroup); err == nil {
			k.Partitions.Roots(path)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.ledger.Holders() {
		if wanted, err := wantedOf(h); err == nil && k.check(h, wanted) == nil {
			k.note(ctx, h, allocator.Enforcement{Tier: allocator.KernelTier})
		}
	}
}

// check compares a container's partition with the kernel's. Of what kind that of an
// orphan is nobody knows.
func (k *kernelTier) check(h allocator.Holder, wanted partition.Partition) error {
	err := k.Partitions.Check(wanted)
	if err != nil && h.Orphan {
		wanted.Kind = partition.Isolated
		return k.Partitions.Check(wanted)
	}
	return err
}

// yield gives up the partitions of containers that can no longer have one, because
// another container is about to join them on their CPUs. To the kernel two sets that
// overlap in one pod are a broken partition, from the moment the second cgroup gets
// its CPUs. What the kernel kept off them, and the runtime was never told about, is
// moved off before.
//
// Where the configuration demands the kernel, the newcomer is refused instead.
func (k *kernelTier) yield(ctx context.Context, newcomer allocator.ContainerID) error {
	if k.Partitions == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	holders := k.ledger.Holders()
	for _, h := range holders {
		if h.ID == newcomer && h.Obstacle != "" && k.Required {
			return fmt.Errorf("container %s of pod %s/%s cannot have its CPUs to itself, as configuration field enforcement demands with the value Kernel: %s",
				h.Name, h.PodNamespace, h.PodName, h.Obstacle)
		}
	}
	for i, h := range holders {
		if h.Enforcement.Tier != allocator.KernelTier || h.Obstacle == "" || h.Orphan {
			continue
		}
		holders[i].Enforcement = allocator.Enforcement{Tier: allocator.RuntimeTier, Reason: h.Obstacle}
		wanted, err := wantedOf(h)
		if err == nil {
			err = k.confineOthers(h.Granted)
		}
		if err == nil {
			err = k.Partitions.Deactivate(ctx, wanted, liveOf(holders))
		}
		if err != nil {
			return fmt.Errorf("container %s of pod %s/%s has to share its CPUs from now on: %w", h.Name, h.PodNamespace, h.PodName, err)
		}
		k.note(ctx, h, holders[i].Enforcement)
	}
	return nil
}

// confineOthers moves containers off CPUs on which they have no claim. They are to be told
// as well, for the runtime is not the one who moves them.
func (k *kernelTier) confineOthers(cpus topology.CPUSet) error {
	for _, e := range k.ledger.Entries() {
		if len(e.Claims) > 0 {
			continue // such a container is told its CPUs, and no others, in any case
		}
		path, err := cgroupPath(e.Cgroup)
		if err == nil {
			err = k.Partitions.Confine(path, e.Desired)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is made with the right ones, or is gone
		}
		if err != nil {
			return fmt.Errorf("container %s of pod %s/%s cannot be moved off CPUs %s: %w", e.Name, e.PodNamespace, e.PodName, cpus, err)
		}
		k.ledger.Untold(e.ID)
	}
	return nil
}

// end looks once more at the partition of a container that has stopped. The kernel ends
// a sound one with its cgroup; of a broken one it may lose the CPUs then, so that one is
// ended before.
func (k *kernelTier) end(ctx context.Context, id allocator.ContainerID) {
	if k.Partitions == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	holders := k.ledger.Holders()
	i := slices.IndexFunc(holders, func(h allocator.Holder) bool { return h.ID == id })
	if i < 0 || holders[i].Enforcement.Tier != allocator.KernelTier {
		return
	}
	wanted, err := wantedOf(holders[i])
	if err != nil || k.check(holders[i], wanted) == nil {
		return
	}
	if err := k.Partitions.Deactivate(ctx, wanted, liveOf(slices.Delete(holders, i, i+1))); err != nil {
		klog.FromContext(ctx).Error(err, "The partition of a container that has stopped could not be ended", "container", id)
	}
}

// keep compares the kernel's partitions with those wanted, now and then and when
// asked to, until the context ends.
func (k *kernelTier) keep(ctx context.Context) {
	// The cgroup of a container that has stopped goes a moment later, on a busy machine
	// many seconds, and what is above it can be tidied then only: so it is tried for a
	// minute.
	const tries = int(time.Minute / partitionInterval)
	ticker := time.NewTicker(partitionInterval)
	defer ticker.Stop()
	untidy := tries
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-k.kick:
			untidy = tries
		}
		if k.reconcile(ctx) {
			untidy = tries
		}
		if untidy > 0 && k.Partitions != nil {
			untidy--
			k.tidy(ctx)
		}
	}
}

// look asks keep to compare soon.
func (k *kernelTier) look() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// reconcile returns whether anything has changed.
func (k *kernelTier) reconcile(ctx context.Context) (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	holders := k.ledger.Holders()
	for i, h := range holders {
		if !h.Started {
			continue // its start sees to it
		}
		holders[i].Enforcement = k.mend(ctx, h, holders)
		changed = k.note(ctx, h, holders[i].Enforcement) || changed
	}
	if changed {
		k.moved()
	}
	return changed
}

// tidy cleans up above the containers' cgroups.
func (k *kernelTier) tidy(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.Partitions.Tidy(ctx, liveOf(k.ledger.Holders())); err != nil {
		klog.FromContext(ctx).Error(err, "Cgroups above claimed containers keep CPUs that nobody claims")
	}
}

// mend gives a running container its partition, if it gets one and has none.
func (k *kernelTier) mend(ctx context.Context, h allocator.Holder, holders []allocator.Holder) allocator.Enforcement {
	if why := k.possible(h); why != "" && !h.Orphan {
		return allocator.Enforcement{Tier: allocator.RuntimeTier, Reason: why}
	}
	wanted, err := wantedOf(h)
	if err == nil && k.Partitions != nil {
		err = k.check(h, wanted)
	}
	switch {
	case h.Orphan && (k.Partitions == nil || err != nil):
		return allocator.Enforcement{Tier: allocator.DegradedTier, Reason: h.Obstacle}
	case err == nil:
		return allocator.Enforcement{Tier: allocator.KernelTier}
	case errors.Is(err, fs.ErrNotExist):
		return h.Enforcement // it has ended, and its event is on the way
	}
	broken := err
	if err := k.Partitions.Activate(ctx, wanted, liveOf(holders)); err != nil {
		return allocator.Enforcement{Tier: allocator.DegradedTier, Reason: err.Error()}
	}
	if h.Enforcement.Tier == allocator.KernelTier {
		klog.FromContext(ctx).Info("Mended the partition of a container", "container", h.ID, "pod", klog.KRef(h.PodNamespace, h.PodName), "was", broken.Error())
	}
	return allocator.Enforcement{Tier: allocator.KernelTier}
}

func (k *kernelTier) note(ctx context.Context, h allocator.Holder, e allocator.Enforcement) (changed bool) {
	if !k.ledger.Enforced(h.ID, e) {
		return false
	}
	if e.Tier == allocator.DegradedTier {
		klog.FromContext(ctx).Error(nil, "A container's CPUs are not kept from others", "container", h.ID, "pod", klog.KRef(h.PodNamespace, h.PodName), "reason", e.Reason)
	}
	k.Changed()
	return true
}

// liveOf are the partitions that exist. A cgroup without a usable name never got one.
func liveOf(holders []allocator.Holder) []partition.Partition {
	var live []partition.Partition
	for _, h := range holders {
		if wanted, err := wantedOf(h); err == nil && h.Enforcement.Tier == allocator.KernelTier {
			live = append(live, wanted)
		}
	}
	return live
}

// wantedOf is the partition that a container ought to have.
func wantedOf(h allocator.Holder) (partition.Partition, error) {
	path, err := cgroupPath(h.Cgroup)
	if err != nil {
		return partition.Partition{}, err
	}
	p := partition.Partition{Cgroup: path, CPUs: h.Desired, Kind: partition.Root}
	if h.Isolated {
		p.Kind = partition.Isolated
	}
	return p, nil
}
