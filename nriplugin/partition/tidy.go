package partition

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/topology"
)

// recovery is the cgroup with which lost CPUs are brought back. It exists for that
// moment only. One that is there before was left by a crash, and its cpuset.cpus
// are still to be brought back.
const recovery = "topolet-cpu-recovery"

// tidy cleans everything that this tree knows of.
func (t *Tree) tidy(ctx context.Context, live []Partition) error {
	dirs := map[string]bool{}
	for dir := range t.prepared {
		there, err := t.files.exists(dir)
		if err != nil {
			return fmt.Errorf("cgroup %s: %w", dir, err)
		}
		if !there {
			delete(t.prepared, dir)
			continue
		}
		dirs[dir] = true
	}
	for root := range t.roots {
		for _, dir := range append(ancestors(root), root) {
			dirs[dir] = true
		}
		err := t.walk(root, exclusiveFile, func(cgroup string, _ topology.CPUSet) (bool, error) {
			dirs[cgroup] = true
			// What is in a container's cgroup is the container's.
			return !slices.ContainsFunc(live, func(p Partition) bool { return p.Cgroup == cgroup }), nil
		})
		if err != nil {
			return err
		}
	}
	return t.clean(ctx, slices.Collect(maps.Keys(dirs)), live, topology.CPUSet{})
}

// surplus is what a cgroup could pass down and nobody needs.
type surplus struct {
	cgroup     string
	keep, drop topology.CPUSet
}

// clean takes from the cgroups what neither the live partitions nor any other in
// force in them need, from the bottom: a crash leaves what the next call can find.
// The suspects, and what it takes away, are given back to the host if the kernel
// has lost them.
func (t *Tree) clean(ctx context.Context, cgroups []string, live []Partition, suspects topology.CPUSet) error {
	var plan []surplus
	for _, c := range cgroups {
		s, err := t.surplus(c, live)
		if absent(err) {
			continue
		}
		if err != nil {
			return err
		}
		if !s.drop.IsEmpty() {
			plan = append(plan, s)
			suspects = suspects.Union(s.drop)
		}
	}
	slices.SortFunc(plan, func(a, b surplus) int {
		return cmp.Or(strings.Count(b.cgroup, "/")-strings.Count(a.cgroup, "/"), strings.Compare(a.cgroup, b.cgroup))
	})
	noted, err := t.set(recovery, cpusFile)
	interrupted := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lost, err := t.lost(suspects.Union(noted), live)
	if err != nil {
		return err
	}
	if !lost.IsEmpty() {
		if err := t.note(lost); err != nil {
			return err
		}
	}
	for _, s := range plan {
		if err := t.write(s.cgroup, exclusiveFile, s.keep.String()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if lost.IsEmpty() && !interrupted {
		return nil
	}
	return t.bringBack(ctx, lost)
}

func (t *Tree) surplus(cgroup string, live []Partition) (surplus, error) {
	have, err := t.set(cgroup, exclusiveFile)
	if err != nil {
		return surplus{}, err
	}
	drop := have.Difference(need(cgroup, live))
	if drop.IsEmpty() {
		return surplus{}, nil
	}
	state, err := t.text(cgroup, stateFile)
	if err != nil || isPartition(state) {
		return surplus{}, err
	}
	held, err := t.held(cgroup)
	drop = drop.Difference(held)
	return surplus{cgroup, have.Difference(drop), drop}, err
}

// lost are those of the CPUs that neither the root nor a partition has, and that no
// live partition is to have. Offline ones look the same.
func (t *Tree) lost(suspects topology.CPUSet, live []Partition) (topology.CPUSet, error) {
	missing, err := t.missing(suspects.Difference(need(top, live)))
	if err != nil || missing.IsEmpty() {
		return missing, err
	}
	held, err := t.held(top)
	return missing.Difference(held), err
}

// note makes the cgroup for the recovery, so that a crash from here on is found.
func (t *Tree) note(lost topology.CPUSet) error {
	if err := t.files.mkdir(recovery); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("bring the lost CPUs %s back: %w", lost, err)
	}
	return t.write(recovery, cpusFile, lost.String())
}

// bringBack makes the noted CPUs a partition and ends it: then they go to the root,
// whoever had them. It leaves no cgroup behind.
func (t *Tree) bringBack(ctx context.Context, lost topology.CPUSet) error {
	var online topology.CPUSet
	var err error
	if !lost.IsEmpty() {
		online, err = t.cycle(lost)
	}
	err = errors.Join(err, t.write(recovery, stateFile, member), t.files.rmdir(recovery))
	if err == nil && !online.IsEmpty() {
		var still topology.CPUSet
		if still, err = t.missing(online); err == nil && !still.IsEmpty() {
			err = fmt.Errorf("the root does not have CPUs %s", still)
		}
	}
	if err != nil {
		return fmt.Errorf("bring the lost CPUs %s back: %w: reboot the machine to have them again", lost, err)
	}
	if !online.IsEmpty() {
		klog.FromContext(ctx).Info("Gave CPUs back to the host that the kernel had kept from everyone", "cpus", online)
	}
	return nil
}

// cycle makes the recovery's cgroup a partition, and returns its CPUs that are
// online. An isolated one: of that kind the lost ones may have been.
func (t *Tree) cycle(lost topology.CPUSet) (topology.CPUSet, error) {
	if err := t.write(recovery, stateFile, string(Isolated)); err != nil {
		return topology.CPUSet{}, err
	}
	state, err := t.text(recovery, stateFile)
	if err != nil {
		return topology.CPUSet{}, err
	}
	if state != string(Isolated) {
		return topology.CPUSet{}, &BrokenError{Partition{recovery, lost, Isolated}, state}
	}
	effective, err := t.set(recovery, effectiveFile)
	return effective.Intersection(lost), err
}
