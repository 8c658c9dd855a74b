package partition

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/allocator/crashpoint"
	"github.com/topolet/topolet/topology"
)

// Activate makes the cgroup a partition, or gives a partition other CPUs or another
// kind. When it returns nil, the kernel has said that the partition is in force with
// exactly these CPUs. Where it is already, nothing is written.
//
// live are the partitions that exist otherwise; the cgroups above keep what these
// need. When it fails, all is as before: a partition that was in force is again,
// one that was not is none at all. What could not be put back is in the error.
func (t *Tree) Activate(ctx context.Context, p Partition, live []Partition) error {
	live = p.others(live)
	if err := p.fits(live); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.check(p)
	if _, broken := errors.AsType[*BrokenError](err); !broken {
		return err
	}
	if err := t.refuseSiblings(p); err != nil {
		return err
	}
	before, err := t.leaf(p.Cgroup)
	if err != nil {
		return err
	}
	t.remember(p.Cgroup)
	if err := t.reclaim(p, before, live); err != nil {
		return err
	}
	all := append(slices.Clone(live), p)
	// Here it shows whether the kernel has lost CPUs, before anything is changed.
	if err := t.clean(ancestors(p.Cgroup), all); err != nil {
		return err
	}
	err = t.prepare(p, all)
	crashpoint.Reached(crashpoint.PartitionPrepared)
	if err == nil {
		err = t.enter(p)
	}
	if err == nil {
		err = t.clean(ancestors(p.Cgroup), all)
	}
	if err != nil {
		return errors.Join(err, t.putBack(before, p, live))
	}
	return nil
}

// Deactivate makes the cgroup one like others again, with the cpuset.cpus that it
// has, and gives the CPUs back to the host. live are the partitions that exist
// otherwise. A cgroup that is gone is no error.
func (t *Tree) Deactivate(ctx context.Context, p Partition, live []Partition) error {
	if err := p.validate(); err != nil {
		return err
	}
	live = p.others(live)
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remember(p.Cgroup)
	if err := t.leave(p.Cgroup); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return t.clean(ancestors(p.Cgroup), live)
}

// Confine gives a cgroup that is no partition these CPUs, in the place of those that it
// asked for. Where there is none, that is fs.ErrNotExist.
func (t *Tree) Confine(cgroup string, cpus topology.CPUSet) error {
	if !fs.ValidPath(cgroup) || cgroup == top || cpus.IsEmpty() {
		return fmt.Errorf("cgroup %q cannot be confined to CPUs %q: want a path below the cgroup mount, and at least one CPU", cgroup, cpus)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now, err := t.set(cgroup, cpusFile)
	if err != nil || now.Equals(cpus) {
		return err
	}
	return t.write(cgroup, cpusFile, cpus.String())
}

// refuseSiblings looks for cgroups of the same parent that ask for CPUs of the
// partition. The kernel would call the partition invalid, and may lose its CPUs: see
// LostError.
func (t *Tree) refuseSiblings(p Partition) error {
	siblings, err := t.files.children(path.Dir(p.Cgroup))
	if err != nil {
		return fmt.Errorf("partition of cgroup %s: look for its siblings: %w", p.Cgroup, err)
	}
	for _, s := range siblings {
		if s == p.Cgroup {
			continue
		}
		cpus, err := t.set(s, cpusFile)
		if absent(err) {
			continue
		}
		if err != nil {
			return err
		}
		if cpus.Intersects(p.CPUs) {
			return &SettingError{
				Cgroup: s, File: cpusFile, Value: cpus.String(), Err: fmt.Errorf("it overlaps the CPUs %s of the partition %s beside it", p.CPUs, p.Cgroup),
				Remedy: "give it CPUs apart from these first",
			}
		}
	}
	return nil
}

// leaf is the cpuset of a container's cgroup.
type leaf struct {
	state           string
	cpus, exclusive topology.CPUSet
	// held are the CPUs of a partition in force.
	held topology.CPUSet
}

func (t *Tree) leaf(cgroup string) (leaf, error) {
	var l leaf
	var err error
	if l.state, err = t.text(cgroup, stateFile); err != nil {
		return l, err
	}
	if l.cpus, err = t.set(cgroup, cpusFile); err != nil {
		return l, err
	}
	if l.exclusive, err = t.set(cgroup, exclusiveFile); err != nil {
		return l, err
	}
	if isPartition(l.state) {
		l.held, err = t.set(cgroup, grantedFile)
	}
	return l, err
}

// reclaim sees that the host has the CPUs that the partition does not have yet. What
// the kernel keeps from everyone since it called the partition invalid comes back
// when it is ended.
func (t *Tree) reclaim(p Partition, before leaf, live []Partition) error {
	missing, err := t.missing(p.CPUs.Difference(before.held))
	if err != nil || missing.IsEmpty() {
		return err
	}
	found, err := t.partitions(top)
	if err != nil {
		return err
	}
	for cgroup, cpus := range found {
		if cpus.Intersects(missing) {
			return &SettingError{
				Cgroup: cgroup, File: stateFile, Err: fmt.Errorf("this partition has the CPUs %s of the partition %s", cpus.Intersection(missing), p.Cgroup),
				Remedy: "end one of them",
			}
		}
	}
	if before.held.IsEmpty() {
		if err := t.leave(p.Cgroup); err != nil {
			return err
		}
		if err := t.clean(ancestors(p.Cgroup), live); err != nil {
			return err
		}
		if missing, err = t.missing(missing); err != nil || missing.IsEmpty() {
			return err
		}
	}
	return fmt.Errorf("partition of cgroup %s: the host has no CPUs %s: switch them on, or grant others", p.Cgroup, missing)
}

// missing are those of the CPUs that the root does not have: they are in a
// partition, offline, or lost.
func (t *Tree) missing(cpus topology.CPUSet) (topology.CPUSet, error) {
	if cpus.IsEmpty() {
		return cpus, nil
	}
	have, err := t.set(top, effectiveFile)
	return cpus.Difference(have), err
}

// prepare lets the cgroups above the partition pass down what the partitions in them
// need, from the top. They keep what they have: a partition may be in there that is
// in force.
func (t *Tree) prepare(p Partition, all []Partition) error {
	tidied := false
	for _, dir := range ancestors(p.Cgroup) {
		err := t.pass(dir, need(dir, all))
		if errors.Is(err, unix.EINVAL) && !tidied {
			// A cgroup beside it may have kept CPUs of a container that is gone.
			tidied = true
			if err := t.tidy(all); err != nil {
				return err
			}
			err = t.pass(dir, need(dir, all))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pass lets a cgroup pass these CPUs down too.
func (t *Tree) pass(cgroup string, cpus topology.CPUSet) error {
	have, err := t.set(cgroup, exclusiveFile)
	if err != nil || cpus.IsSubsetOf(have) {
		return err
	}
	state, err := t.text(cgroup, stateFile)
	if err != nil {
		return err
	}
	if state != member {
		return &SettingError{Cgroup: cgroup, File: stateFile, Value: state, Err: errors.New("a partition inside of a partition is not supported"), Remedy: "make it a member"}
	}
	return t.write(cgroup, exclusiveFile, have.Union(cpus).String())
}

// enter makes the cgroup the partition, and reads back whether it is.
func (t *Tree) enter(p Partition) error {
	for _, file := range []string{cpusFile, exclusiveFile} {
		have, err := t.set(p.Cgroup, file)
		if err != nil {
			return err
		}
		if have.Equals(p.CPUs) {
			continue
		}
		if err := t.write(p.Cgroup, file, p.CPUs.String()); err != nil {
			return err
		}
	}
	state, err := t.text(p.Cgroup, stateFile)
	if err != nil {
		return err
	}
	if state != string(p.Kind) {
		if err := t.write(p.Cgroup, stateFile, string(p.Kind)); err != nil {
			return err
		}
	}
	if err := t.check(p); err != nil {
		return err
	}
	effective, err := t.set(p.Cgroup, effectiveFile)
	if err == nil && !effective.Equals(p.CPUs) {
		err = &SettingError{
			Cgroup: p.Cgroup, File: effectiveFile, Value: effective.String(), Err: fmt.Errorf("CPUs %s are offline", p.CPUs.Difference(effective)),
			Remedy: "switch them on, or grant others",
		}
	}
	return err
}

// leave makes a cgroup a member that asks for no exclusive CPUs.
func (t *Tree) leave(cgroup string) error {
	if err := t.end(cgroup); err != nil {
		return err
	}
	exclusive, err := t.set(cgroup, exclusiveFile)
	if err != nil || exclusive.IsEmpty() {
		return err
	}
	return t.write(cgroup, exclusiveFile, "")
}

// end makes a cgroup a member. Of its CPUs the kernel gives back only those that the
// cgroups above still pass down.
func (t *Tree) end(cgroup string) error {
	state, err := t.text(cgroup, stateFile)
	if err != nil || state == member {
		return err
	}
	cpus, err := t.set(cgroup, grantedFile)
	if err != nil {
		return err
	}
	for _, dir := range ancestors(cgroup) {
		if err := t.pass(dir, cpus); err != nil {
			return err
		}
	}
	return t.write(cgroup, stateFile, member)
}

// putBack undoes what Activate did. It goes on after an error.
func (t *Tree) putBack(before leaf, p Partition, live []Partition) error {
	if isPartition(before.state) {
		was := Partition{Cgroup: p.Cgroup, CPUs: before.held, Kind: Kind(before.state)}
		err := t.enter(was)
		if err == nil {
			live = append(slices.Clone(live), was)
			return undone(p, t.clean(ancestors(p.Cgroup), live))
		}
		return errors.Join(undone(p, err), t.putBack(leaf{state: member, cpus: before.cpus}, p, live))
	}
	err := t.leave(p.Cgroup)
	if err == nil {
		err = t.putBackCPUs(p.Cgroup, before.cpus)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return undone(p, errors.Join(err, t.clean(ancestors(p.Cgroup), live)))
}

// putBackCPUs restores cpuset.cpus. The kernel refuses to empty it while there are
// processes in the cgroup; then it names what it would come to, the parent's.
func (t *Tree) putBackCPUs(cgroup string, cpus topology.CPUSet) error {
	have, err := t.set(cgroup, cpusFile)
	if err != nil || have.Equals(cpus) {
		return err
	}
	err = t.write(cgroup, cpusFile, cpus.String())
	if cpus.IsEmpty() && errors.Is(err, unix.ENOSPC) {
		if cpus, err = t.set(path.Dir(cgroup), effectiveFile); err == nil {
			err = t.write(cgroup, cpusFile, cpus.String())
		}
	}
	return err
}

func undone(p Partition, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("put cgroup %s back: %w", p.Cgroup, err)
}
