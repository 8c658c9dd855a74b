package sample

import (
	"os"
	"path/filepath"
	"testing"
)

// tree is a folder with cgroups and processes as the kernel shows them.
type tree struct {
	t          *testing.T
	pods, proc string
}

func newTree(t *testing.T) tree {
	return tree{t, filepath.Join(t.TempDir(), "kubepods"), t.TempDir()}
}

// container makes a container, or changes it; without a program it has no process.
func (tr tree) container(pod, id, cpus, program string) {
	tr.t.Helper()
	dir := filepath.Join(tr.pods, "burstable", "pod"+pod, id)
	procs := ""
	if program != "" {
		procs = id + "\n"
		exe := filepath.Join(tr.proc, id, "exe")
		_ = os.Remove(exe)
		if err := os.MkdirAll(filepath.Dir(exe), 0o755); err != nil {
			tr.t.Fatal(err)
		}
		if err := os.Symlink(program, exe); err != nil {
			tr.t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tr.t.Fatal(err)
	}
	for file, content := range map[string]string{"cpuset.cpus.effective": cpus + "\n", "cgroup.procs": procs} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			tr.t.Fatal(err)
		}
	}
}

func (tr tree) look(s *Sampler) {
	tr.t.Helper()
	if _, err := s.Look(); err != nil {
		tr.t.Fatal(err)
	}
}

func TestWhoCouldRunOnExclusiveCPUs(t *testing.T) {
	for _, test := range []struct {
		name string
		// other is beside the container "10" of the exclusive pod "e", which runs on CPU 1.
		pod, cpus, program              string
		violations, starting, sandboxes int
	}{
		{"a container on other CPUs", "s", "0,2-3", "/workload", 0, 0, 0},
		{"a container on all CPUs", "s", "0-3", "/workload", 1, 0, 0},
		{"another exclusive container", "f", "1-2", "/workload", 1, 0, 0},
		{"a container of the same pod", "e", "1", "/workload", 1, 0, 0},
		{"a container that the runtime is still starting", "s", "0-3", "/memfd:runc_cloned:/proc/self/exe (deleted)", 0, 1, 0},
		{"a sandbox", "s", "0-3", "/pause", 0, 0, 1},
		{"a container without a process", "s", "0-3", "", 0, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := newTree(t)
			s := &Sampler{Kubepods: tr.pods, Proc: tr.proc}
			s.Exclusive("e", "f")
			tr.container("e", "10", "1", "/workload")
			tr.container(test.pod, "20", test.cpus, test.program)
			for range 3 { // each is counted once
				tr.look(s)
			}
			r := s.Result()
			if r.Violations != test.violations || len(r.Details) != test.violations || r.Starting != test.starting || r.Sandboxes != test.sandboxes {
				t.Errorf("%+v", r)
			}
			if r.Samples != 3 || r.Containers != 2 || r.Late != 0 || r.Changed != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestAnExclusiveContainerHoldsNothingBeforeItRuns(t *testing.T) {
	tr := newTree(t)
	s := &Sampler{Kubepods: tr.pods, Proc: tr.proc}
	s.Exclusive("e")
	tr.container("e", "10", "0-3", "/runc")
	tr.container("s", "20", "0-3", "/workload")
	tr.look(s)
	if r := s.Result(); r.Exclusive != 0 || r.Violations != 0 {
		t.Errorf("it is being started: %+v", r)
	}
	tr.container("s", "20", "0", "/workload")
	tr.container("e", "10", "1", "/workload")
	tr.look(s)
	if r := s.Result(); r.Exclusive != 1 || r.Violations != 0 {
		t.Errorf("it runs: %+v", r)
	}
	tr.container("e", "10", "2", "/workload")
	tr.look(s)
	if r := s.Result(); r.Changed != 1 {
		t.Errorf("its CPUs changed: %+v", r)
	}
	tr.container("s", "20", "2", "/workload")
	tr.container("e", "10", "2", "")
	tr.look(s)
	if r := s.Result(); r.Violations != 0 {
		t.Errorf("it ended: %+v", r)
	}
}

func TestAPodThatIsKnownTooLateIsSaid(t *testing.T) {
	tr := newTree(t)
	s := &Sampler{Kubepods: tr.pods, Proc: tr.proc}
	tr.container("e", "10", "1", "/workload")
	tr.look(s)
	s.Exclusive("e")
	tr.look(s)
	if r := s.Result(); r.Exclusive != 1 || r.Late != 1 {
		t.Errorf("%+v", r)
	}
}

// An overlap that is over when it is looked at again was one look's mistake.
func TestWhatIsNotTheSameTwiceIsNotCounted(t *testing.T) {
	tr := newTree(t)
	s := &Sampler{Kubepods: tr.pods, Proc: tr.proc}
	s.Exclusive("e")
	tr.container("e", "10", "1", "/workload")
	tr.container("s", "20", "0", "/workload")
	tr.look(s)
	for dir, c := range s.known {
		if filepath.Base(dir) == "20" {
			c.cpus = c.cpus.Union(s.sets["1\n"])
		}
	}
	for _, c := range s.known {
		if c.id != "10" {
			continue
		}
		if err := s.compare(c); err != nil {
			t.Fatal(err)
		}
	}
	if r := s.Result(); r.Violations != 0 {
		t.Errorf("%+v", r)
	}
}
