package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/test/demo/internal/picture"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func set(t *testing.T, list string) topology.CPUSet {
	t.Helper()
	s, err := topology.ParseCPUSet(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func on(t *testing.T, cgroup, processes string) harness.Kernel {
	t.Helper()
	return harness.Kernel{Cgroup: set(t, cgroup), Allowed: set(t, processes), Pids: []int{1}}
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// scene is a demonstration in which all is right, until a test changes it.
type scene struct {
	before, during, after moment
	first                 harness.Line
	left                  time.Time
}

func newScene(t *testing.T) *scene {
	t.Helper()
	return &scene{
		before: moment{kernels: map[string]harness.Kernel{plainPod: on(t, "0-3", "0-3"), "topolet": on(t, "0-3", "0-3")}},
		during: moment{claim: "one", granted: set(t, "2"), kernels: map[string]harness.Kernel{
			plainPod: on(t, "0-1,3", "0-1,3"), claimPod: on(t, "2", "2"), "topolet": on(t, "0-1,3", "0-1,3"),
		}},
		after: moment{kernels: map[string]harness.Kernel{plainPod: on(t, "0-3", "0-3"), "topolet": on(t, "0-3", "0-3")}},
		first: harness.Line{Event: "start", Time: noon, CPUsAllowed: "2"},
		left:  noon.Add(-90 * time.Millisecond),
	}
}

// judge returns what the story says and whether it fails.
func (s *scene) judge() (string, error) {
	var out bytes.Buffer
	err := newStory(&out, picture.Palette{}).checks(append(append(
		checkBefore(s.before), checkDuring(s.before, s.during, s.first, s.left)...), checkAfter(s.before, s.after)...))
	return out.String(), err
}

func TestWhatIsRightPasses(t *testing.T) {
	if said, err := newScene(t).judge(); err != nil || strings.Contains(said, "WRONG") {
		t.Errorf("%v\n%s", err, said)
	}
}

func TestWhatIsWrongFails(t *testing.T) {
	tests := map[string]struct {
		change func(*scene)
		want   string
	}{
		"a cgroup larger than the grant": {
			func(s *scene) { s.during.kernels[claimPod] = on(t, "2-3", "2") },
			"expected CPU 2, seen CPUs 2-3 in the cgroup and CPU 2 for the processes",
		},
		"processes elsewhere": {
			func(s *scene) { s.during.kernels[claimPod] = on(t, "2", "1") },
			"expected CPU 2, seen CPU 2 in the cgroup and CPU 1 for the processes",
		},
		"the wrong CPU": {
			func(s *scene) { s.during.kernels[claimPod] = on(t, "1", "1") },
			"expected CPU 2, seen CPU 1",
		},
		"the exclusive container is not there": {
			func(s *scene) { delete(s.during.kernels, claimPod) },
			"expected CPU 2, seen no CPU",
		},
		"the plain pod stayed": {
			func(s *scene) { s.during.kernels[plainPod] = on(t, "0-3", "0-3") },
			"expected CPUs 0-1,3, seen CPUs 0-3",
		},
		"the plain pod lost more": {
			func(s *scene) { s.during.kernels[plainPod] = on(t, "0", "0") },
			"expected CPUs 0-1,3, seen CPU 0",
		},
		"another container stayed": {
			func(s *scene) { s.during.kernels["topolet"] = on(t, "0-1,3", "0-3") },
			"topolet is kept off CPU 2, too expected no CPU, seen CPU 2",
		},
		"nothing was granted": {
			func(s *scene) { s.during.granted = topology.CPUSet{} },
			"expected a CPU, seen no CPU",
		},
		"nothing was taken from the plain pod": {
			func(s *scene) { s.before.kernels[plainPod] = on(t, "0-1,3", "0-1,3") },
			"a CPU that plain-pod had before expected CPU 2, seen no CPU",
		},
		"the plain pod left late": {
			func(s *scene) { s.left = noon.Add(3 * time.Millisecond) },
			"expected before, seen 3ms after",
		},
		"the plain pod never left": {
			func(s *scene) { s.left = time.Time{} },
			"expected before, seen never",
		},
		"the workload started elsewhere": {
			func(s *scene) { s.first.CPUsAllowed = "0-3" },
			"first instruction one-cpu had CPU 2 and no other expected CPU 2, seen CPUs 0-3",
		},
		"a log that is no CPU list": {
			func(s *scene) { s.first.CPUsAllowed = "x" },
			"is not a CPU number",
		},
		"cgroup and processes differ before": {
			func(s *scene) { s.before.kernels[plainPod] = on(t, "0-3", "0-2") },
			"seen CPUs 0-3 in the cgroup and CPUs 0-2 for the processes",
		},
		"a claim before the first": {
			func(s *scene) { s.before.granted = set(t, "1") },
			"no claim holds a CPU yet expected no CPU, seen CPU 1",
		},
		"the pool did not grow": {
			func(s *scene) { s.after.kernels[plainPod] = on(t, "0-1,3", "0-1,3") },
			"plain-pod may run on CPUs 0-3 again expected CPUs 0-3, seen CPUs 0-1,3",
		},
		"the grant outlived the pod": {
			func(s *scene) { s.after.granted = set(t, "2") },
			"no claim holds a CPU any more expected no CPU, seen CPU 2",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			test.change(s)
			said, err := s.judge()
			if err == nil {
				t.Error("no error")
			}
			_, wrong, _ := strings.Cut(said, "WRONG")
			if !strings.Contains(strings.Join(strings.Fields(wrong), " "), test.want) {
				t.Errorf("want %q to be WRONG, got\n%s", test.want, said)
			}
		})
	}
}

func TestAMachineOfOneCoreIsRefused(t *testing.T) {
	for name, spec := range map[string]topologytest.Spec{
		"one CPU":     {CoresPerL3: 1},
		"two threads": {CoresPerL3: 1, Threads: 2},
	} {
		t.Run(name, func(t *testing.T) {
			err := claimable(topologytest.New(spec))
			if err == nil || !strings.Contains(err.Error(), "two cores or more") {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := claimable(topologytest.New(topologytest.Spec{CoresPerL3: 2})); err != nil {
		t.Errorf("two cores: %v", err)
	}
}

func TestAPodThatFailedIsNotWaitedFor(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: claimPod}}
	p.Status.Phase = corev1.PodPending
	if err := failure(p); err != nil {
		t.Errorf("pending: %v", err)
	}
	p.Status.Phase = corev1.PodFailed
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{Reason: "StartError", Message: "not started"},
	}}}
	if err := failure(p); err == nil || err.Error() != "pod one-cpu was to run and is Failed: StartError: not started" {
		t.Errorf("failed: %v", err)
	}
}
