package partition

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/topology"
)

// The tests in this file run on a kernel with cgroup v2 and remote partitions, as
// root, and skip elsewhere. Each makes its cgroups below one of its own, so the
// machine has to have CPUs 4 to 11, and others; none of these in a partition.

const mount = "/sys/fs/cgroup"

// sleeper makes a process of this program wait for its end, for a cgroup with a process.
const sleeper = "PARTITION_TEST_SLEEPER"

func TestMain(m *testing.M) {
	if os.Getenv(sleeper) != "" {
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	os.Exit(m.Run())
}

// machine is the kernel's hierarchy, and a tree on it.
type machine struct {
	testing.TB
	*Tree
	// base is the test's own cgroup, pods the kubelet's tree in it.
	base, pods string
	count      *counted
	root       topology.CPUSet
}

// counted counts the writes.
type counted struct {
	files
	writes int
}

func (c *counted) write(cgroup, file, value string) error {
	c.writes++
	return c.files.write(cgroup, file, value)
}

// onKernel gives a test its cgroup, and sees afterwards that the host has all it had.
func onKernel(t testing.TB) *machine {
	t.Helper()
	_, err := Open(mount)
	if os.Geteuid() != 0 || err != nil {
		t.Skipf("needs root and a kernel with remote cpuset partitions: %v", err)
	}
	m := &machine{TB: t, base: "topolet-test"}
	m.pods = m.base + "/kubepods"
	m.fresh()
	m.removeAll()
	m.root = m.free()
	if !m.cpuset("4-11").IsSubsetOf(m.root) || m.root.Size() < 10 {
		t.Skipf("needs a machine with CPUs 4-11 and others, the root has %s", m.root)
	}
	t.Cleanup(func() {
		m.removeAll()
		if now := m.free(); !now.Equals(m.root) {
			t.Errorf("the root had CPUs %s, and has %s now", m.root, now)
		}
	})
	m.mkdir(m.pods)
	return m
}

// fresh is a tree that remembers nothing, as after a restart.
func (m *machine) fresh() {
	m.Helper()
	tree, err := Open(mount)
	if err != nil {
		m.Fatal(err)
	}
	m.count = &counted{files: tree.files}
	tree.files = m.count
	m.Tree = tree
}

// mkdir makes a cgroup, with cpusets all the way.
func (m *machine) mkdir(cgroup string) {
	m.Helper()
	if err := os.MkdirAll(filepath.Join(mount, cgroup), 0o755); err != nil {
		m.Fatal(err)
	}
	for _, dir := range ancestors(cgroup) {
		m.put(dir, "cgroup.subtree_control", "+cpuset")
	}
}

func (m *machine) put(cgroup, file, value string) {
	m.Helper()
	if err := m.try(cgroup, file, value); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) try(cgroup, file, value string) error {
	return os.WriteFile(filepath.Join(mount, cgroup, file), []byte(value+"\n"), 0)
}

func (m *machine) get(cgroup, file string) string {
	m.Helper()
	data, err := os.ReadFile(filepath.Join(mount, cgroup, file))
	if err != nil {
		m.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// free are the CPUs that the root has.
func (m *machine) free() topology.CPUSet {
	m.Helper()
	return m.cpuset(m.get(top, effectiveFile))
}

func (m *machine) cpuset(list string) topology.CPUSet {
	m.Helper()
	cpus, err := topology.ParseCPUSet(list)
	if err != nil {
		m.Fatal(err)
	}
	return cpus
}

func (m *machine) want(cgroup, file, value string) {
	m.Helper()
	if got := m.get(cgroup, file); got != value {
		m.Errorf("%s of %s is %q, want %q", file, cgroup, got, value)
	}
}

// rootLacks holds the root's CPUs against what it has without partitions.
func (m *machine) rootLacks(list string) {
	m.Helper()
	if got := m.root.Difference(m.free()); got.String() != list {
		m.Errorf("the root lacks CPUs %q, want %q", got, list)
	}
}

// container makes a container's cgroup as a runtime does, with its CPUs.
func (m *machine) container(name, list string) string {
	m.Helper()
	cgroup := path.Join(m.pods, name)
	m.mkdir(cgroup)
	if list != "" {
		m.put(cgroup, cpusFile, list)
	}
	return cgroup
}

func (m *machine) partition(cgroup, list string, kind Kind) Partition {
	m.Helper()
	return Partition{Cgroup: cgroup, CPUs: m.cpuset(list), Kind: kind}
}

func (m *machine) activate(p Partition, live ...Partition) {
	m.Helper()
	if err := m.Activate(m.Context(), p, live); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) refused(err error, words ...string) {
	m.Helper()
	if err == nil {
		m.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			m.Errorf("the error is %q, want %q in it", err, w)
		}
	}
}

func (m *machine) broken(p Partition, word string) {
	m.Helper()
	err := m.Check(p)
	b, ok := errors.AsType[*BrokenError](err)
	if !ok || !strings.Contains(b.State, word) {
		m.Errorf("the check of %s says %v, want that it is broken, with %q", p.Cgroup, err, word)
	}
}

// run starts a process in the cgroup.
func (m *machine) run(cgroup string) (pid int) {
	m.Helper()
	self, err := os.Executable()
	if err != nil {
		m.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(m.Context()), self)
	cmd.Env = append(os.Environ(), sleeper+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		m.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	m.put(cgroup, "cgroup.procs", strconv.Itoa(cmd.Process.Pid))
	return cmd.Process.Pid
}

// allowed are the CPUs on which the kernel lets a process run.
func (m *machine) allowed(pid int) topology.CPUSet {
	m.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		m.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "Cpus_allowed_list:")
	list, _, _ := strings.Cut(rest, "\n")
	return m.cpuset(list)
}

func (m *machine) rmdir(cgroup string) {
	m.Helper()
	if err := os.Remove(filepath.Join(mount, cgroup)); err != nil {
		m.Fatal(err)
	}
}

// removeAll removes the test's cgroups, the deepest first, once they are empty.
func (m *machine) removeAll() {
	m.Helper()
	var dirs []string
	_ = filepath.WalkDir(filepath.Join(mount, m.base), func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, file)
		}
		return nil
	})
	slices.Reverse(dirs)
	for _, dir := range dirs {
		var err error
		for range 100 {
			if err = os.Remove(dir); !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			m.Errorf("remove the test's cgroup: %v", err)
		}
	}
}

func TestKernelActivatesAndDeactivates(t *testing.T) {
	for _, kind := range []Kind{Root, Isolated} {
		t.Run(string(kind), func(t *testing.T) {
			m := onKernel(t)
			ctr := m.container("burstable/pod1/ctr", "4-7")
			p := m.partition(ctr, "4-7", kind)
			begin := time.Now()
			m.activate(p)
			t.Logf("Activate: %d writes, %v", m.count.writes, time.Since(begin))
			m.rootLacks("4-7")
			for _, dir := range ancestors(ctr) {
				m.want(dir, exclusiveFile, "4-7")
			}
			if err := m.Check(p); err != nil {
				t.Error(err)
			}
			m.count.writes = 0
			m.activate(p)
			if m.count.writes != 0 {
				t.Errorf("%d writes for a partition that is in force", m.count.writes)
			}
			begin = time.Now()
			if err := m.Deactivate(t.Context(), p, nil); err != nil {
				t.Fatal(err)
			}
			t.Logf("Deactivate: %d writes, %v", m.count.writes, time.Since(begin))
			m.rootLacks("")
			m.want(ctr, stateFile, member)
			m.want(ctr, cpusFile, "4-7")
			for _, dir := range append(ancestors(ctr), ctr) {
				m.want(dir, exclusiveFile, "")
			}
			m.count.writes = 0
			if err := m.Deactivate(t.Context(), p, nil); err != nil || m.count.writes != 0 {
				t.Errorf("again: %d writes, %v", m.count.writes, err)
			}
		})
	}
}

func TestKernelPartitionBeforeItsAncestorsAreSet(t *testing.T) {
	m := onKernel(t)
	ctr := m.container("pod1/ctr", "4-7")
	m.put(ctr, stateFile, string(Isolated))
	p := m.partition(ctr, "4-7", Isolated)
	m.broken(p, "invalid")
	m.rootLacks("")
	m.activate(p)
	m.rootLacks("4-7")
}

func TestKernelSiblingThatOverlaps(t *testing.T) {
	m := onKernel(t)
	ctr := m.container("pod1/ctr", "4-7")
	sibling := m.container("pod1/sibling", "6-9")
	m.container("pod1/pause", "")
	m.container("pod2/cousin", "4-9")
	p := m.partition(ctr, "4-7", Isolated)
	m.refused(m.Activate(t.Context(), p, nil), sibling, "6-9", "apart")
	if m.count.writes != 0 {
		t.Errorf("%d writes before it was refused", m.count.writes)
	}
	m.put(sibling, cpusFile, "8-9")
	m.activate(p)
	m.rootLacks("4-7")

	t.Log("the sibling is changed behind our back")
	m.put(sibling, cpusFile, "6-9")
	m.broken(p, "isolated invalid")
	t.Logf("the root now lacks %q", m.root.Difference(m.free()))
	m.refused(m.Activate(t.Context(), p, nil), sibling)
	m.put(sibling, cpusFile, "8-9")
	m.activate(p)
	m.rootLacks("4-7")

	m.put(sibling, cpusFile, "6-9")
	m.broken(p, "isolated invalid")
	if err := m.Deactivate(t.Context(), p, nil); err != nil {
		t.Error(err)
	}
	m.rootLacks("")

	m.put(sibling, cpusFile, "8-9")
	m.activate(p)
	m.put(sibling, cpusFile, "6-9")
	t.Log("we were restarted")
	m.fresh()
	m.Roots(ctr)
	if err := m.Tidy(t.Context(), []Partition{p}); err != nil {
		t.Error(err)
	}
	m.rootLacks("")
	m.want(ctr, stateFile, member)
	m.want(m.pods, exclusiveFile, "4-7")
	m.rmdir(ctr)
	if err := m.Tidy(t.Context(), nil); err != nil {
		t.Error(err)
	}
	m.want(m.pods, exclusiveFile, "")
}

func TestKernelAncestorThatShrinks(t *testing.T) {
	for _, left := range []string{"4-5", ""} {
		t.Run(fmt.Sprintf("to %q", left), func(t *testing.T) {
			m := onKernel(t)
			p := m.partition(m.container("pod1/ctr", "4-7"), "4-7", Root)
			for _, mend := range []func(context.Context, Partition, []Partition) error{m.Activate, m.Deactivate} {
				m.activate(p)
				m.put(m.pods, exclusiveFile, left)
				t.Logf("the kernel says %q with CPUs %s", m.get(p.Cgroup, stateFile), m.get(p.Cgroup, grantedFile))
				m.broken(p, "")
				if err := mend(t.Context(), p, nil); err != nil {
					t.Error(err)
				}
			}
			m.rootLacks("")
			m.activate(p)
		})
	}
}

func TestKernelGrowsAndShrinks(t *testing.T) {
	m := onKernel(t)
	other := m.partition(m.container("burstable/pod2/ctr", "10-11"), "10-11", Isolated)
	m.activate(other)
	ctr := m.container("burstable/pod1/ctr", "4-5")
	for _, step := range []struct {
		cpus string
		kind Kind
	}{
		{"4-5", Root},
		{"4-7", Root},
		{"4-9", Root},
		{"6", Root},
		{"4-5,8", Root},
		{"4-5,8", Isolated},
		{"5,8-9", Isolated},
		{"4-7", Root},
	} {
		p := m.partition(ctr, step.cpus, step.kind)
		m.activate(p, other)
		if err := errors.Join(m.Check(p), m.Check(other)); err != nil {
			t.Error(err)
		}
		m.rootLacks(p.CPUs.Union(other.CPUs).String())
		m.want(ctr, cpusFile, step.cpus)
		m.want(path.Dir(ctr), exclusiveFile, step.cpus)
		m.want(m.pods, exclusiveFile, p.CPUs.Union(other.CPUs).String())
	}
	if err := m.Deactivate(t.Context(), m.partition(ctr, "4-7", Root), []Partition{other}); err != nil {
		t.Error(err)
	}
	m.want(m.pods, exclusiveFile, "10-11")
	if err := m.Check(other); err != nil {
		t.Error(err)
	}
}

func TestKernelFailedActivationIsPutBack(t *testing.T) {
	m := onKernel(t)
	ctr := m.container("burstable/pod1/ctr", "4-7")
	m.run(ctr)
	all := Partition{Cgroup: ctr, CPUs: m.root, Kind: Root}
	m.refused(m.Activate(t.Context(), all, nil), "root invalid (", "all the host has")
	m.want(ctr, stateFile, member)
	m.want(ctr, cpusFile, "4-7")
	for _, dir := range append(ancestors(ctr), ctr) {
		m.want(dir, exclusiveFile, "")
	}
	m.rootLacks("")
	p := m.partition(m.container("burstable/pod5/ctr", ""), "10-11", Root)
	m.activate(p)

	t.Log("one that is in force and does not get more")
	grown := m.partition(m.container("burstable/pod2/ctr", "4-5"), "4-5", Root)
	m.activate(grown, p)
	more := grown
	more.CPUs = m.cpuset("4-7")
	other := m.partition(m.container("pod3/ctr", "6-7"), "6-7", Root)
	m.activate(other, p, grown)
	m.refused(m.Activate(t.Context(), more, []Partition{p}), other.Cgroup, "6-7")
	if err := errors.Join(m.Check(grown), m.Check(other), m.Check(p)); err != nil {
		t.Error(err)
	}
	m.want(grown.Cgroup, cpusFile, "4-5")
	m.want(grown.Cgroup, exclusiveFile, "4-5")
	m.want(path.Dir(grown.Cgroup), exclusiveFile, "4-5")

	grown.CPUs = m.root.Difference(p.CPUs).Difference(other.CPUs)
	m.refused(m.Activate(t.Context(), grown, []Partition{p, other}), "all the host has")
	grown.CPUs = m.cpuset("4-5")
	if err := errors.Join(m.Check(grown), m.Check(other), m.Check(p)); err != nil {
		t.Error(err)
	}
	m.want(grown.Cgroup, cpusFile, "4-5")
	m.rootLacks("4-7,10-11")

	t.Log("one with processes that had no CPUs of its own")
	bare := Partition{Cgroup: m.container("pod4/ctr", ""), CPUs: m.root.Difference(m.cpuset("4-7,10-11")), Kind: Root}
	m.run(bare.Cgroup)
	m.refused(m.Activate(t.Context(), bare, []Partition{p, grown, other}), "all the host has")
	m.want(bare.Cgroup, stateFile, member)
	m.want(bare.Cgroup, effectiveFile, m.get(path.Dir(bare.Cgroup), effectiveFile))
	m.want(path.Dir(bare.Cgroup), exclusiveFile, "")
}

func TestKernelSecondClaimant(t *testing.T) {
	m := onKernel(t)
	first := m.partition(m.container("pod1/ctr", "4-7"), "4-7", Root)
	m.activate(first)
	second := m.partition(m.container("pod2/ctr", "6-9"), "6-9", Root)
	m.refused(m.Activate(t.Context(), second, []Partition{first}), "6-7", first.Cgroup)
	t.Log("nobody told of the first")
	m.refused(m.Activate(t.Context(), second, nil), "6-7", first.Cgroup)
	if err := m.Deactivate(t.Context(), second, []Partition{first}); err != nil {
		t.Error(err)
	}
	if err := m.Check(first); err != nil {
		t.Error(err)
	}
	m.want(second.Cgroup, stateFile, member)
	m.want(path.Dir(second.Cgroup), exclusiveFile, "")
}

func TestKernelKeepsOthersOff(t *testing.T) {
	m := onKernel(t)
	inside, outside, before := m.container("burstable/pod1/ctr", "4-7"), m.container("burstable/pod2/ctr", ""), m.container("besteffort/pod3/ctr", "4-11")
	in, out, pinned, old := m.run(inside), m.run(outside), m.run(outside), m.run(before)
	var mask unix.CPUSet
	mask.Set(5)
	if err := unix.SchedSetaffinity(pinned, &mask); err != nil {
		t.Fatal(err)
	}
	p := m.partition(inside, "4-7", Root)
	m.activate(p)
	later := m.container("burstable/pod4/ctr", "")
	m.put(later, cpusFile, "4-7")
	late := m.run(later)
	for _, p := range []struct {
		what string
		pid  int
		cpus topology.CPUSet
	}{
		{"in the partition", in, m.cpuset("4-7")},
		{"outside", out, m.root.Difference(m.cpuset("4-7"))},
		{"that was pinned to one of the CPUs", pinned, m.root.Difference(m.cpuset("4-7"))},
		{"of a container with some of the CPUs", old, m.cpuset("8-11")},
		{"of a later container that asks for the CPUs", late, m.root.Difference(m.cpuset("4-7"))},
	} {
		if got := m.allowed(p.pid); !got.Equals(p.cpus) {
			t.Errorf("the process %s may run on %s, want %s", p.what, got, p.cpus)
		}
	}
	if err := unix.SchedSetaffinity(out, &mask); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a process outside was let on the partition's CPU 5: %v", err)
	}
	if err := m.Check(p); err != nil {
		t.Error(err)
	}
	if err := m.Deactivate(t.Context(), p, nil); err != nil {
		t.Error(err)
	}
	if got := m.allowed(in); !got.Equals(m.cpuset("4-7")) {
		t.Errorf("after the end of the partition its process may run on %s", got)
	}
}

func TestKernelContainerThatEnded(t *testing.T) {
	for _, tc := range []struct{ name, root, ctr, other string }{
		{"cgroupfs", "kubepods", "burstable/pod1/ctr", "pod2/ctr"},
		{"systemd", "kubepods.slice", "kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-1.scope", "kubepods-pod2.slice/cri-containerd-2.scope"},
		{"nested kubelet", "kubelet.slice/kubelet-kubepods.slice", "kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod1.slice/cri-1.scope", "kubelet-kubepods-pod2.slice/cri-2.scope"},
	} {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restarted %v", tc.name, restarted), func(t *testing.T) {
				m := onKernel(t)
				m.pods = path.Join(m.base, tc.root)
				p := m.partition(m.container(tc.ctr, "4-7"), "4-7", Root)
				other := m.partition(m.container(tc.other, "8-9"), "8-9", Isolated)
				m.activate(p)
				m.activate(other, p)
				m.rmdir(p.Cgroup)
				m.rootLacks("8-9")
				if err := m.Check(p); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the check says %v, want that the cgroup is gone", err)
				}
				if restarted {
					m.fresh()
					m.Roots(other.Cgroup)
				}
				begin := time.Now()
				m.count.writes = 0
				if err := m.Tidy(t.Context(), []Partition{other}); err != nil {
					t.Fatal(err)
				}
				t.Logf("Tidy: %d writes, %v", m.count.writes, time.Since(begin))
				for _, dir := range ancestors(p.Cgroup) {
					if below(m.pods, dir) {
						m.want(dir, exclusiveFile, "8-9")
					} else {
						m.want(dir, exclusiveFile, "")
					}
				}
				if err := m.Check(other); err != nil {
					t.Error(err)
				}
				if err := m.Deactivate(t.Context(), p, []Partition{other}); err != nil {
					t.Errorf("deactivate what is gone: %v", err)
				}
				t.Log("a partition that nobody told of")
				if err := m.Tidy(t.Context(), nil); err != nil {
					t.Error(err)
				}
				if err := m.Check(other); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestKernelCrashBeforeTheLeaf(t *testing.T) {
	m := onKernel(t)
	ctr := m.container("burstable/pod1/ctr", "4-7")
	for _, dir := range append(ancestors(ctr), ctr) {
		m.put(dir, exclusiveFile, "4-7")
	}
	foreign := m.base + "/machine.slice"
	m.mkdir(foreign)
	m.put(m.base, exclusiveFile, "4-7")
	m.put(foreign, exclusiveFile, "10-11")

	t.Log("CPUs that a container that is gone left elsewhere are found when they are needed")
	p := m.partition(m.container("pod2/ctr", "6-7"), "6-7", Root)
	m.activate(p)
	for _, dir := range []string{m.pods + "/burstable", path.Dir(ctr), ctr} {
		m.want(dir, exclusiveFile, "")
	}
	if err := m.Deactivate(t.Context(), p, nil); err != nil {
		t.Error(err)
	}

	for _, dir := range append(ancestors(ctr), ctr) {
		m.put(dir, exclusiveFile, "4-7")
	}
	m.fresh()
	m.Roots(ctr)
	if err := m.Tidy(t.Context(), nil); err != nil {
		t.Error(err)
	}
	for _, dir := range append(ancestors(ctr), ctr) {
		m.want(dir, exclusiveFile, "")
	}
	m.want(foreign, exclusiveFile, "10-11")
}

func TestKernelCPUsOffline(t *testing.T) {
	m := onKernel(t)
	online := func(cpu int, on string) {
		t.Helper()
		if err := os.WriteFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", cpu), []byte(on), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { online(4, "1"); online(5, "1") })
	ctr := m.container("pod1/ctr", "4-5")
	m.run(ctr)
	p := m.partition(ctr, "4-5", Isolated)
	m.activate(p)
	online(4, "0")
	if err := m.Check(p); err != nil {
		t.Error(err)
	}
	online(5, "0")
	m.broken(p, "invalid")
	if err := m.Tidy(t.Context(), []Partition{p}); err != nil {
		t.Error(err)
	}
	m.want(m.pods, exclusiveFile, "4-5")
	m.refused(m.Activate(t.Context(), p, nil), "4-5")
	online(4, "1")
	m.refused(m.Activate(t.Context(), p, nil), "5")
	online(5, "1")
	m.activate(p)
	m.rootLacks("4-5")

	t.Log("an empty partition")
	empty := m.partition(m.container("pod2/ctr", "6"), "6", Isolated)
	t.Cleanup(func() { online(6, "1") })
	m.activate(empty, p)
	online(6, "0")
	t.Logf("%v, %q", m.Check(empty), m.get(empty.Cgroup, stateFile))
	m.rmdir(empty.Cgroup)
	if err := m.Tidy(t.Context(), []Partition{p}); err != nil {
		t.Error(err)
	}
	online(6, "1")
	m.rootLacks("4-5")
}

func TestKernelMountThatIsReadOnly(t *testing.T) {
	onKernel(t)
	dir := t.TempDir()
	if err := unix.Mount(mount, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir)
	if unsupported, ok := errors.AsType[*UnsupportedError](err); !ok || !strings.Contains(unsupported.Error(), "read-only") {
		t.Errorf("the error is %v, want that the mount is read-only", err)
	}
}

// BenchmarkKernel is on a node with 100 further pods.
func BenchmarkKernel(b *testing.B) {
	m := onKernel(b)
	for i := range 100 {
		m.container(fmt.Sprintf("burstable/pod-other%d/ctr", i), "")
	}
	for _, kind := range []Kind{Root, Isolated} {
		p := m.partition(m.container("burstable/pod1/ctr", "4-7"), "4-7", kind)
		b.Run("Activate "+string(kind), func(b *testing.B) {
			for b.Loop() {
				m.activate(p)
				b.StopTimer()
				if err := m.Deactivate(b.Context(), p, nil); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
		b.Run("Deactivate "+string(kind), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				m.activate(p)
				b.StartTimer()
				if err := m.Deactivate(b.Context(), p, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	p := m.partition(m.container("burstable/pod1/ctr", "4-7"), "4-7", Root)
	m.activate(p)
	b.Run("Check", func(b *testing.B) {
		for b.Loop() {
			if err := m.Check(p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Tidy without anything to do", func(b *testing.B) {
		for b.Loop() {
			if err := m.Tidy(b.Context(), []Partition{p}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
