package partition

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/topolet/topolet/topology"
)

// Kind is what the kernel does inside of a partition.
type Kind string

// The kinds of partitions, in the words of cpuset.cpus.partition.
const (
	// Root balances the load over the partition's CPUs.
	Root Kind = "root"
	// Isolated does not: each thread stays where it was put. It is for workloads
	// that pin their threads. Kernels may want it of CPUs isolated at boot.
	Isolated Kind = "isolated"
)

// Partition is a cgroup that has CPUs to itself.
type Partition struct {
	// Cgroup is its path below the cgroup mount, such as
	// "kubepods/burstable/podX/ctr", without a leading slash.
	Cgroup string
	CPUs   topology.CPUSet
	Kind   Kind
}

func (p Partition) validate() error {
	refuse := func(field, value, remedy string) error {
		return fmt.Errorf("partition of cgroup %q: %s %q: %s", p.Cgroup, field, value, remedy)
	}
	switch {
	case !fs.ValidPath(p.Cgroup) || p.Cgroup == top:
		return refuse("cgroup", p.Cgroup, "want a path below the cgroup mount")
	case p.CPUs.IsEmpty():
		return refuse("CPUs", "", "want at least one")
	case p.Kind != Root && p.Kind != Isolated:
		return refuse("kind", string(p.Kind), `want "root" or "isolated"`)
	}
	return nil
}

// others are the live partitions without this one.
func (p Partition) others(live []Partition) []Partition {
	return slices.DeleteFunc(slices.Clone(live), func(l Partition) bool { return l.Cgroup == p.Cgroup })
}

// fits refuses a partition that cannot be beside the others.
func (p Partition) fits(others []Partition) error {
	if err := p.validate(); err != nil {
		return err
	}
	for _, l := range others {
		if l.CPUs.Intersects(p.CPUs) {
			return fmt.Errorf("partition of cgroup %s: CPUs %s are also of the partition %s: a CPU can be in one only",
				p.Cgroup, l.CPUs.Intersection(p.CPUs), l.Cgroup)
		}
		if below(l.Cgroup, p.Cgroup) || below(p.Cgroup, l.Cgroup) {
			return fmt.Errorf("partition of cgroup %s: the partition %s is in the same branch: name containers' cgroups", p.Cgroup, l.Cgroup)
		}
	}
	return nil
}

// top is the root of the hierarchy.
const top = "."

// below tells whether the cgroup is the other one or in it.
func below(cgroup, other string) bool {
	return other == top || cgroup == other || strings.HasPrefix(cgroup, other+"/")
}

// ancestors are the cgroups between the root and this one, from the top.
func ancestors(cgroup string) []string {
	var dirs []string
	for i, c := range cgroup {
		if c == '/' {
			dirs = append(dirs, cgroup[:i])
		}
	}
	return dirs
}

// need is the CPUs that the partitions in the cgroup need it to pass down.
func need(cgroup string, live []Partition) topology.CPUSet {
	var cpus topology.CPUSet
	for _, p := range live {
		if below(p.Cgroup, cgroup) {
			cpus = cpus.Union(p.CPUs)
		}
	}
	return cpus
}

// KubeletRoot finds the kubelet's tree in the path of a cgroup of a pod or a
// container: all up to the component "kubepods", or what systemd calls a slice
// whose name ends so. It is "" when there is none.
func KubeletRoot(cgroup string) string {
	for _, dir := range append(ancestors(cgroup), cgroup) {
		if name := path.Base(dir); name == "kubepods" || name == "kubepods.slice" || strings.HasSuffix(name, "-kubepods.slice") {
			return dir
		}
	}
	return ""
}

// UnsupportedError says why a host cannot have such partitions.
type UnsupportedError struct {
	Mount, Reason, Remedy string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("no cpuset partitions in %s: %s: %s", e.Mount, e.Reason, e.Remedy)
}

// BrokenError says that a cgroup is not the partition that it ought to be.
type BrokenError struct {
	Partition Partition
	// State is what the kernel says it is, with its reason in parentheses.
	State string
}

func (e *BrokenError) Error() string {
	p := e.Partition
	return fmt.Sprintf("cgroup %s: %s is %q, want %q with CPUs %s: %s", p.Cgroup, stateFile, e.State, p.Kind, p.CPUs, remedyOf(e.State))
}

// LostError says that the kernel keeps CPUs from everyone, for a partition whose
// cgroup is gone.
//
// Kernels that keep remote partitions in a list (seen on 6.12) call a partition
// invalid when a cgroup of the same parent asks for some of its CPUs, and leave it in
// that list. Made a member, it leaves the list and the CPUs go back to the host.
// Removed instead, it stays in the list as freed memory: from then on the end of
// another partition, or the next one that is activated, can crash the kernel. So while
// this is found in the cgroups above a partition, it is not activated.
type LostError struct{ CPUs topology.CPUSet }

func (e *LostError) Error() string {
	return fmt.Sprintf("the kernel has lost CPUs %s with the cgroup of a partition that it had called invalid, and its list of partitions may be damaged: drain the node and boot it again", e.CPUs)
}

// remedyOf knows the reasons that the kernel gives (perr_strings in
// kernel/cgroup/cpuset.c).
func remedyOf(state string) string {
	for _, r := range []struct{ reason, remedy string }{
		{"not exclusive", "give the other containers of the pod CPUs apart from these"},
		{"cpuset.cpus.exclusive", "see that no other partition has one of these CPUs, and that they are not all the host has left"},
		{"not permitted", "give topolet CAP_SYS_ADMIN"},
		{"housekeeping", `CPUs isolated at boot can be in a partition of the kind "isolated" only`},
		{"hotplug", "switch the CPUs on and activate it again"},
	} {
		if strings.Contains(state, r.reason) {
			return r.remedy
		}
	}
	if strings.Contains(state, "invalid") {
		return "see that no other container of the pod has one of these CPUs in its cpuset, and activate it again or end it before the container does"
	}
	return "activate it again"
}

// SettingError is a setting of a cgroup that could not be read or made.
type SettingError struct {
	Cgroup, File string
	// Value is what is there, or what was to be written.
	Value  string
	Remedy string
	Err    error
}

func (e *SettingError) Error() string {
	text := fmt.Sprintf("cgroup %s: %s", e.Cgroup, e.File)
	if e.Value != "" {
		text += fmt.Sprintf(" %q", e.Value)
	}
	text += ": " + e.Err.Error()
	if e.Remedy != "" {
		text += ": " + e.Remedy
	}
	return text
}

func (e *SettingError) Unwrap() error { return e.Err }
