//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

const (
	partitionFile = "cpuset.cpus.partition"
	exclusiveFile = "cpuset.cpus.exclusive"
	// stolen is how much time of the claimed CPUs the kernel's own bookkeeping may come
	// to, as a part of what the greedy got elsewhere.
	stolen = 0.05
)

// exclusivePod is a pod that holds two CPUs of a NUMA node and leaves them idle.
type exclusivePod struct {
	node harness.Node
	ns   string
	name string
	cpus topology.CPUSet
	dir  string // of its container's cgroup
}

func startIdle(t *testing.T, node harness.Node, ns, name string, numa int, change ...func(*resourceapi.DeviceClaim)) exclusivePod {
	t.Helper()
	claimFor(t, ns, name, "2", append(change, atNUMANode(numa))...)
	p := podOn(node, name, name)
	p.Spec.Containers[0].Args = []string{"-interval=1h"}
	cpus := start(t, ns, p).Allowed
	dir, err := cluster.CgroupOf(t.Context(), ns, name, "main")
	if err != nil {
		t.Fatal(err)
	}
	return exclusivePod{node, ns, name, cpus, dir}
}

func podOn(node harness.Node, name string, claims ...string) *corev1.Pod {
	p := podOf(name, claims...)
	p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node.Name}
	return p
}

// waitState waits until something of the machine is so.
func waitState(t *testing.T, what string, state func() string, want string) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("%s to be %q", what, want), func(context.Context) error {
		if got := state(); got != want {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// waitFile waits until a file of the machine says this.
func waitFile(t *testing.T, node harness.Node, file, want string) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("%s to say %q", file, want), func(context.Context) error {
		data, err := node.ReadFile(file)
		if got := strings.TrimSpace(string(data)); err == nil && got != want {
			err = fmt.Errorf("it says %q", got)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// kernelTier shows that the kernel keeps everyone on the host off claimed CPUs.
func kernelTier(t *testing.T, node harness.Node) {
	ns := namespace(t)
	held := startIdle(t, node, ns, "held", 1)
	waitFile(t, node, held.dir+"/"+partitionFile, "root")
	waitConditions(t, ns, "held", "Enforced=True Kernel")

	t.Run("nobody gets time of the CPUs", func(t *testing.T) {
		t.Run("topolet alive", func(t *testing.T) { attack(t, held, stolen) })
		t.Run("topolet gone", func(t *testing.T) { withoutDaemons(t, func() { attack(t, held, stolen) }) })
		waitFile(t, node, held.dir+"/"+partitionFile, "root")
		waitConditions(t, ns, "held", "Enforced=True Kernel")
	})
	t.Run("what others change is put back", func(t *testing.T) {
		pod := path.Dir(held.dir)
		for _, change := range []struct{ file, value string }{
			{held.dir + "/" + partitionFile, "member"},
			{pod + "/" + exclusiveFile, "\n"}, // nothing at all would be no write
			{path.Dir(pod) + "/" + exclusiveFile, "\n"},
			{held.dir + "/" + exclusiveFile, "\n"},
		} {
			before, err := node.ReadFile(change.file)
			if err != nil {
				t.Fatal(err)
			}
			if err := node.WriteFile(change.file, change.value); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			waitFile(t, node, change.file, strings.TrimSpace(string(before)))
			waitFile(t, node, held.dir+"/"+partitionFile, "root")
			waitFile(t, node, held.dir+"/cpuset.cpus.effective", held.cpus.String())
			took := time.Since(begin)
			t.Logf("%s: all is put back after %s", change.file, took)
			if took > followLimit {
				t.Errorf("it has to be put back within %s", followLimit)
			}
		}
	})
	t.Run("no load balancing", func(t *testing.T) {
		alone := startIdle(t, node, ns, "alone", 2, func(d *resourceapi.DeviceClaim) {
			d.Config = []resourceapi.DeviceClaimConfiguration{{DeviceConfiguration: resourceapi.DeviceConfiguration{
				Opaque: &resourceapi.OpaqueDeviceConfiguration{Driver: draplugin.DriverName, Parameters: runtime.RawExtension{
					Raw: []byte(`{"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig","loadBalancing":"Disabled"}`),
				}},
			}}}
		})
		waitFile(t, node, alone.dir+"/"+partitionFile, "isolated")
		waitConditions(t, ns, "alone", "Enforced=True Kernel")
		deletePod(t.Context(), t, ns, "alone")
	})
	t.Run("two containers of one claim are the runtime's, and the last of them the kernel's again", func(t *testing.T) {
		claimFor(t, ns, "both", "2", atNUMANode(2))
		p := podOn(node, "both", "both")
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers = append(p.Spec.Containers, workload("short", "both"))
		p.Spec.Containers[1].Args = []string{"-for=40s"}
		start(t, ns, p)
		waitConditions(t, ns, "both", "Enforced=True Runtime")
		waitFile(t, node, held.dir+"/"+partitionFile, "root")
		waitEnded(t, ns, "both", "short")
		waitConditions(t, ns, "both", "Enforced=True Kernel")
		deletePod(t.Context(), t, ns, "both")
	})
	deletePod(t.Context(), t, ns, "held")
	for dir := path.Dir(path.Dir(held.dir)); dir != "/sys/fs/cgroup"; dir = path.Dir(dir) {
		waitFile(t, node, dir+"/"+exclusiveFile, "")
	}
	online, err := node.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		t.Fatal(err)
	}
	waitFile(t, node, "/sys/fs/cgroup/cpuset.cpus.effective", strings.TrimSpace(string(online)))
}

func waitEnded(t *testing.T, ns, pod, container string) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("container %s of pod %s to end", container, pod), func(ctx context.Context) error {
		p, err := cluster.Client.CoreV1().Pods(ns).Get(ctx, pod, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, s := range p.Status.ContainerStatuses {
			if s.Name == container && s.State.Terminated == nil {
				return fmt.Errorf("it is %+v", s.State)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// attack has others try for the CPUs of an idle exclusive container, and checks that what
// they got there is at most this part of what they got elsewhere.
func attack(t *testing.T, held exclusivePod, limit float64) {
	for who, greedy := range attackers {
		t.Run(who, func(t *testing.T) {
			greedy(t, held, func() {
				if got := share(t, held); got > limit {
					t.Errorf("it got %.0f %% of its time on the CPUs %s of the claim", 100*got, held.cpus)
				}
			})
		})
	}
}

// attackers try for the CPUs of an idle exclusive container while something else is done.
var attackers = map[string]func(t *testing.T, held exclusivePod, meanwhile func()){
	"a process of the host":                               hostProcess,
	"a privileged container that rewrites its own cpuset": rewritingContainer,
}

// hostProcess runs a process outside of Kubernetes that insists on the CPUs.
func hostProcess(t *testing.T, held exclusivePod, meanwhile func()) {
	t.Helper()
	k := running(t, held.ns, held.name, "main")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := held.node.Run(ctx, fmt.Sprintf("/proc/%d/root/workload", k.Pids[0]), "-spin="+held.cpus.String(), "-interval=1h")
		ended <- err
	}()
	defer func() {
		cancel()
		<-ended //nolint:errcheck // it was ended
	}()
	meanwhile()
}

// rewritingContainer is hostProcess for a privileged container that also gives its own
// cgroup these CPUs, again and again.
func rewritingContainer(t *testing.T, held exclusivePod, meanwhile func()) {
	t.Helper()
	p := podOn(held.node, "greedy")
	p.Spec.Containers[0].Args = []string{
		"-rewrite=/sys/fs/cgroup/cpuset.cpus=" + held.cpus.String(), "-spin=" + held.cpus.String(), "-interval=1h",
	}
	p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	start(t, held.ns, p)
	defer deletePod(context.Background(), t, held.ns, "greedy")
	meanwhile()
}

// share is which part of the time that processes use from now on is of these CPUs. It is
// taken when that is two seconds of one CPU.
func share(t *testing.T, held exclusivePod) (part float64) {
	t.Helper()
	const enough = 200 // in the hundredths of a second of /proc/stat
	ownBefore, allBefore := userTime(t, held)
	if err := harness.Wait(t.Context(), startLimit, "processes to use two seconds", func(context.Context) error {
		own, all := userTime(t, held)
		if all-allBefore < enough {
			return fmt.Errorf("they used %d hundredths", all-allBefore)
		}
		part = float64(own-ownBefore) / float64(all-allBefore)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f %% of the time was on the claim's CPUs", 100*part)
	return part
}

// userTime is the time in which processes other than the claim's ran on its CPUs and on
// all (proc_stat(5), user and nice, without the user_usec of its container's cpu.stat).
func userTime(t *testing.T, held exclusivePod) (own, all int) {
	t.Helper()
	used, err := held.node.ReadFile(held.dir + "/cpu.stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(used)) {
		if value, ok := strings.CutPrefix(line, "user_usec "); ok {
			usec, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatalf("cpu.stat: %v", err)
			}
			own, all = -usec/10_000, -usec/10_000
		}
	}
	data, err := held.node.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		cpu, err := strconv.Atoi(strings.TrimPrefix(fields[0], "cpu"))
		if err != nil || len(fields) < 3 {
			continue
		}
		for _, field := range fields[1:3] {
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatalf("/proc/stat: %q: %v", line, err)
			}
			all += n
			if held.cpus.Contains(cpu) {
				own += n
			}
		}
	}
	return own, all
}

// withoutDaemons does something while no node has a topolet.
func withoutDaemons(t *testing.T, do func()) {
	t.Helper()
	patch := func(value string) {
		if _, err := cluster.Kubectl(context.Background(), "patch", "daemonset/topolet", "--namespace", harness.Namespace,
			"--patch", fmt.Sprintf(`{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/os":%q}}}}}`, value)); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		patch("linux")
		if _, err := cluster.Kubectl(context.Background(), "rollout", "status", "daemonset/topolet", "--namespace", harness.Namespace,
			"--timeout="+restartLimit.String()); err != nil {
			t.Error(err)
		}
	}()
	patch("none")
	if err := harness.Wait(t.Context(), deleteLimit, "all topolets to be gone", func(ctx context.Context) error {
		pods, err := cluster.Client.CoreV1().Pods(harness.Namespace).List(ctx, metav1.ListOptions{})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("there are %d", len(pods.Items))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	do()
}

// runtimeTier shows what is held where the kernel does not enforce it, and what is not.
func runtimeTier(t *testing.T, node harness.Node) {
	ns := namespace(t)
	held := startIdle(t, node, ns, "held", 1)
	waitFile(t, node, held.dir+"/"+partitionFile, "member")
	waitConditions(t, ns, "held", "Enforced=True Runtime")
	for who, greedy := range attackers {
		t.Run(who+" gets time of the CPUs", func(t *testing.T) {
			before, _ := userTime(t, held)
			greedy(t, held, func() {
				if err := harness.Wait(t.Context(), startLimit, "it to use half a second of the claim's CPUs, which the documentation says nobody prevents", func(context.Context) error {
					if now, _ := userTime(t, held); now-before < 50 {
						return fmt.Errorf("it used %d hundredths", now-before)
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			})
		})
	}
	deletePod(t.Context(), t, ns, "held")
}
