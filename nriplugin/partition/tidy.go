package partition

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/topolet/topolet/topology"
)

// tidy cleans everything that this tree knows of.
func (t *Tree) tidy(live []Partition) error {
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
			descend := !slices.ContainsFunc(live, func(p Partition) bool { return p.Cgroup == cgroup })
			return descend, t.defuse(cgroup)
		})
		if err != nil {
			return err
		}
	}
	return t.clean(slices.Collect(maps.Keys(dirs)), live)
}

// surplus is what a cgroup could pass down and nobody needs.
type surplus struct {
	cgroup     string
	have, drop topology.CPUSet
}

// clean takes from the cgroups what neither the live partitions nor any other in
// force in them need, from the bottom: a crash leaves what the next call can find.
//
// CPUs that the kernel has lost stay where they are: taking them away would make it
// walk the list that is damaged.
func (t *Tree) clean(cgroups []string, live []Partition) error {
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
		}
	}
	if len(plan) == 0 {
		return nil
	}
	found, err := t.partitions(top)
	if err != nil {
		return err
	}
	var dropped topology.CPUSet
	for i, s := range plan {
		plan[i].drop = s.drop.Difference(held(found, s.cgroup))
		dropped = dropped.Union(plan[i].drop)
	}
	slices.SortFunc(plan, func(a, b surplus) int {
		return cmp.Or(strings.Count(b.cgroup, "/")-strings.Count(a.cgroup, "/"), strings.Compare(a.cgroup, b.cgroup))
	})
	lost, err := t.findLost(dropped, found)
	if err != nil {
		return err
	}
	for _, s := range plan {
		drop := s.drop.Difference(lost)
		if drop.IsEmpty() {
			continue
		}
		if err := t.write(s.cgroup, exclusiveFile, s.have.Difference(drop).String()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !lost.IsEmpty() {
		return &LostError{lost}
	}
	return nil
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
	return surplus{cgroup, have, drop}, nil
}

// findLost are those of the CPUs that are online, and that neither the root nor one
// of the partitions has.
func (t *Tree) findLost(cpus topology.CPUSet, found map[string]topology.CPUSet) (topology.CPUSet, error) {
	missing, err := t.missing(cpus)
	if err != nil || missing.IsEmpty() {
		return missing, err
	}
	online, err := t.files.online()
	return missing.Difference(held(found, top)).Intersection(online), err
}

// defuse makes a cgroup a member whose partition the kernel calls invalid while it
// keeps the CPUs from everyone: see LostError for what comes of it otherwise.
func (t *Tree) defuse(cgroup string) error {
	state, err := t.text(cgroup, stateFile)
	if err != nil || state == member || isPartition(state) {
		return err
	}
	granted, err := t.set(cgroup, grantedFile)
	if err != nil {
		return err
	}
	missing, err := t.missing(granted)
	if err != nil || missing.IsEmpty() {
		return err
	}
	return t.end(cgroup)
}
