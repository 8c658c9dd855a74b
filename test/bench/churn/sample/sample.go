// Package sample looks at the cgroups of all containers of a node again and again, and
// finds those that could run on the CPUs of an exclusive one. It reads the kernel's files
// and asks nobody what ought to be: which pods are exclusive it is told by their UIDs, and
// which CPUs they have it reads from their own cgroups.
//
// A look at hundreds of files is not a moment. What looks like an overlap is therefore
// looked at again, the exclusive container before and after the other one, and counts
// when neither has changed. What comes and goes between two looks is not seen.
package sample

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/topolet/topolet/topology"
)

// keptViolations is how many are kept with their details.
const keptViolations = 50

// Result is what was seen so far. Containers are counted once each, however often they
// were looked at.
type Result struct {
	// Samples are the looks at all containers. LongestGap is between the beginnings of two
	// of them, LongestSample from the beginning of one to its end.
	Samples                               int
	LongestGap, LongestSample, MeanSample time.Duration
	// Containers includes the pods' sandboxes.
	Containers int
	// Exclusive are the containers of exclusive pods that were seen while they ran.
	Exclusive int
	// Changed are those of them whose CPUs were others later on.
	Changed int
	// Late are those that were seen before their pod was known to be exclusive.
	Late int
	// Violations are pairs of running containers with a common CPU, of which one is
	// exclusive at least. Details has the first of them.
	Violations int
	Details    []Violation
	// Sandboxes and Starting could run on exclusive CPUs, too, and are no violations: a
	// sandbox does nothing, and a container that starts has not come to its first
	// instruction, only the runtime's.
	Sandboxes, Starting int
	// Ended is true when nothing more comes, with the error that ended it, if any.
	Ended bool
	Error string
}

// Violation is a container that could run on the CPUs of an exclusive one.
type Violation struct {
	Time             time.Time
	Exclusive, Other Seen
}

// Seen is a container as it was found.
type Seen struct {
	Pod, Container string
	CPUs           topology.CPUSet
	Pids, Program  string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: container %.12s of pod %s (%s, processes %s) could run on CPUs %s; container %.12s of the exclusive pod %s (processes %s) has %s",
		v.Time.UTC().Format(time.RFC3339Nano), v.Other.Container, v.Other.Pod, v.Other.Program, v.Other.Pids, v.Other.CPUs,
		v.Exclusive.Container, v.Exclusive.Pod, v.Exclusive.Pids, v.Exclusive.CPUs)
}

// Sampler looks at the containers below one folder. It is for one goroutine.
type Sampler struct {
	// Kubepods is the kubelet's cgroup of all pods (cgroup v1: in the cpuset hierarchy).
	Kubepods string
	// Proc is where the processes are, /proc.
	Proc string

	exclusive map[string]bool // by pod UID
	known     map[string]*container
	pairs     map[[2]string]bool
	sets      map[string]topology.CPUSet // by what the kernel wrote
	file      string
	last      time.Time
	spent     time.Duration
	result    Result
}

// container is a cgroup of the kubelet's lowest level.
type container struct {
	dir, pod, id string
	present      bool // in the look that is going on
	cpus         topology.CPUSet
	stage        stage
	// ran are the CPUs of an exclusive container when it was first seen running.
	ran              topology.CPUSet
	late, changed    bool
	sandbox, starter bool // was counted as such
}

// stage is how far a container has come.
type stage int

const (
	gone stage = iota
	starting
	running
	sandbox
)

// Exclusive adds the UIDs of pods whose containers are exclusive.
func (s *Sampler) Exclusive(uids ...string) {
	if s.exclusive == nil {
		s.exclusive = map[string]bool{}
	}
	for _, uid := range uids {
		s.exclusive[uid] = true
	}
}

// Result returns what was seen so far.
func (s *Sampler) Result() Result {
	r := s.result
	if r.Samples > 0 {
		r.MeanSample = s.spent / time.Duration(r.Samples)
	}
	return r
}

// Look takes one sample and returns how long that took.
func (s *Sampler) Look() (time.Duration, error) {
	begin := time.Now()
	if !s.last.IsZero() {
		s.result.LongestGap = max(s.result.LongestGap, begin.Sub(s.last))
	}
	s.last = begin
	if err := s.list(); err != nil {
		return 0, err
	}
	var exclusive []*container
	for dir, c := range s.known {
		if !c.present {
			delete(s.known, dir)
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, s.cpusFile()))
		if isGone(err) {
			c.cpus = topology.CPUSet{}
			continue
		}
		if err != nil {
			return 0, err
		}
		if c.cpus, err = s.parse(string(data)); err != nil {
			return 0, fmt.Errorf("%s: %w", dir, err)
		}
		if s.exclusive[c.pod] && c.stage != sandbox {
			exclusive = append(exclusive, c)
		}
	}
	for _, e := range exclusive {
		if err := s.compare(e); err != nil {
			return 0, err
		}
	}
	took := time.Since(begin)
	s.result.Samples++
	s.spent += took
	s.result.LongestSample = max(s.result.LongestSample, took)
	return took, nil
}

// compare looks for containers that could run on the CPUs of this one.
func (s *Sampler) compare(e *container) error {
	before, err := s.inspect(e)
	if err != nil || e.stage != running {
		return err
	}
	s.note(e, before)
	for _, other := range s.known {
		counted := other.sandbox || s.pairs[pairOf(e, other)]
		if other == e || counted || !other.cpus.Intersects(before.CPUs) {
			continue
		}
		if err := s.confirm(e, other); err != nil {
			return err
		}
	}
	return nil
}

// note counts an exclusive container that runs.
func (s *Sampler) note(e *container, now Seen) {
	switch {
	case e.ran.IsEmpty():
		e.ran = now.CPUs
		s.result.Exclusive++
		if e.late {
			s.result.Late++
		}
	case !e.changed && !now.CPUs.IsEmpty() && !now.CPUs.Equals(e.ran):
		e.changed = true
		s.result.Changed++
	}
}

// confirm counts the two if the exclusive one is the same before and after the other
// one was looked at twice.
func (s *Sampler) confirm(e, other *container) error {
	var looks [4]Seen
	var stages [4]stage
	for i, c := range []*container{e, other, other, e} {
		var err error
		if looks[i], err = s.inspect(c); err != nil {
			return err
		}
		stages[i] = c.stage
	}
	same := looks[0].is(looks[3]) && looks[1].is(looks[2]) && stages[1] == stages[2]
	if !same || stages[0] != running || stages[3] != running || !looks[0].CPUs.Intersects(looks[1].CPUs) {
		return nil
	}
	switch stages[1] {
	case gone:
	case starting:
		if !other.starter {
			other.starter = true
			s.result.Starting++
		}
	case sandbox:
		other.sandbox = true
		s.result.Sandboxes++
	case running:
		if s.pairs == nil {
			s.pairs = map[[2]string]bool{}
		}
		s.pairs[pairOf(e, other)] = true
		s.result.Violations++
		if len(s.result.Details) < keptViolations {
			s.result.Details = append(s.result.Details, Violation{Time: time.Now(), Exclusive: looks[0], Other: looks[1]})
		}
	}
	return nil
}

func pairOf(a, b *container) [2]string { return [2]string{min(a.id, b.id), max(a.id, b.id)} }

func (a Seen) is(b Seen) bool { return a.Pids == b.Pids && a.CPUs.Equals(b.CPUs) }

// inspect reads a container's processes and CPUs and sets its stage.
func (s *Sampler) inspect(c *container) (Seen, error) {
	seen := Seen{Pod: c.pod, Container: c.id}
	procs, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
	if err != nil && !isGone(err) {
		return seen, err
	}
	pids := strings.Fields(string(procs))
	c.stage = gone
	for _, pid := range pids {
		program, err := s.program(pid)
		if err != nil {
			return seen, err
		}
		if program == "" {
			continue
		}
		seen.Program = program
		switch {
		case strings.Contains(program, "runc"): // also a copy in memory, /memfd:runc_cloned:…
			c.stage = max(c.stage, starting)
		case filepath.Base(program) == "pause":
			c.stage = sandbox
		default:
			c.stage = max(c.stage, running)
		}
	}
	seen.Pids = strings.Join(pids, ",")
	cpus, err := os.ReadFile(filepath.Join(c.dir, s.cpusFile()))
	if isGone(err) {
		c.stage = gone
		return seen, nil
	}
	if err != nil {
		return seen, err
	}
	if seen.CPUs, err = s.parse(string(cpus)); err != nil {
		return seen, fmt.Errorf("%s: %w", c.dir, err)
	}
	return seen, nil
}

// program is the file that a process runs, nothing if it has ended: the kernel's word for it,
// where a process can choose its own name.
func (s *Sampler) program(pid string) (string, error) {
	dir := filepath.Join(s.Proc, pid)
	program, err := os.Readlink(filepath.Join(dir, "exe"))
	if errors.Is(err, fs.ErrPermission) {
		// proc_pid_readlink in the kernel's fs/proc/base.c says that also of a process that
		// ends meanwhile.
		if _, gone := os.Stat(dir); gone != nil {
			err = gone
		}
	}
	if isGone(err) {
		return "", nil
	}
	return program, err
}

// list finds the containers there are now.
func (s *Sampler) list() error {
	if s.known == nil {
		s.known = map[string]*container{}
	}
	for _, c := range s.known {
		c.present = false
	}
	for _, class := range []string{"", "burstable", "besteffort"} {
		dir := filepath.Join(s.Kubepods, class)
		pods, err := folders(dir)
		if err != nil {
			return err
		}
		for _, pod := range pods {
			uid, ok := strings.CutPrefix(pod, "pod")
			if !ok {
				continue
			}
			ids, err := folders(filepath.Join(dir, pod))
			if err != nil {
				return err
			}
			for _, id := range ids {
				s.found(filepath.Join(dir, pod, id), uid, id)
			}
		}
	}
	return nil
}

func (s *Sampler) found(dir, pod, id string) {
	c, ok := s.known[dir]
	if !ok {
		c = &container{dir: dir, pod: pod, id: id}
		s.known[dir] = c
		s.result.Containers++
	}
	c.present = true
	c.late = c.late || !s.exclusive[pod]
}

// folders are the names of the folders in one. One that is gone has none.
func folders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !isGone(err) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// cpusFile is the file with the effective CPUs of a cgroup, of version 1 or 2.
func (s *Sampler) cpusFile() string {
	if s.file == "" {
		s.file = "cpuset.effective_cpus"
		if _, err := os.Stat(filepath.Join(s.Kubepods, s.file)); err != nil {
			s.file = "cpuset.cpus.effective"
		}
	}
	return s.file
}

func (s *Sampler) parse(list string) (topology.CPUSet, error) {
	if set, ok := s.sets[list]; ok {
		return set, nil
	}
	set, err := topology.ParseCPUSet(list)
	if err != nil {
		return set, err
	}
	if s.sets == nil {
		s.sets = map[string]topology.CPUSet{}
	}
	s.sets[list] = set
	return set, nil
}

// isGone is true for the errors of files whose cgroup or process has ended.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ESRCH)
}
