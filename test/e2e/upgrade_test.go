//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

// TestAnUpgradeLeavesNoContainerUnpinned replaces the daemon while pods come and
// go. A claim holds a CPU all the time, so a container that started without a
// daemon would have a CPU too many.
func TestAnUpgradeLeavesNoContainerUnpinned(t *testing.T) {
	again := installOnPodNetwork(t)
	for name, midway := range map[string]func(t *testing.T, old corev1.Pod){
		"the old daemon ends as it is told": func(*testing.T, corev1.Pod) {},
		"the old daemon hangs and is killed": func(t *testing.T, old corev1.Pod) {
			t.Helper()
			signalDaemon(t, old, syscall.SIGSTOP)
			waitTold(t, old.Name)
			signalDaemon(t, old, syscall.SIGKILL)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := namespace(t)
			all := start(t, ns, podOf("plain")).Allowed
			claimFor(t, ns, "held", "1", withParameters(`{"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig","sharing":"ManyPods"}`))
			held := start(t, ns, podOf("holder", "held")).Allowed
			changeTo(t, ns, "plain", all.Difference(held))
			before := placements(t)
			longLived := map[string]int{"plain": len(lines(t, ns, "plain")), "holder": len(lines(t, ns, "holder"))}
			deleted := watchSlices(t)
			old, err := daemon(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			logged := logSize(t)

			c := newChurn(t, ns, held, all.Difference(held))
			attempts := createAllTheTime(t, all.Difference(held))
			c.wait(3)
			upgraded := make(chan error, 1)
			began := time.Now()
			go func() { upgraded <- again("podAnnotations.upgrade=" + strings.ToLower(ns)) }()
			waitStandby(t, old.Name)
			midway(t, old)
			if err := <-upgraded; err != nil {
				t.Fatal(err)
			}
			waitDaemon(t, 0)
			t.Logf("the upgrade took %s", time.Since(began).Round(time.Millisecond))
			c.wait(3)
			c.end()
			created, refused := attempts()

			fresh, err := daemon(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if fresh.UID == old.UID {
				t.Errorf("daemon %s is still there", old.Name)
			}
			if names := deleted(); len(names) > 0 {
				t.Errorf("slices were deleted: %v", names)
			}
			if diff := cmp.Diff(before, placements(t)); diff != "" {
				t.Errorf("CPUs of running containers -before +after:\n%s", diff)
			}
			for pod, said := range longLived {
				if got := lines(t, ns, pod); len(got) != said {
					t.Errorf("pod %s was moved: %+v", pod, got)
				}
			}
			for _, gap := range withoutActive(t, logged) {
				t.Logf("no active topolet was connected for %s", gap)
			}
			t.Logf("%d pods ended; of containers without a pod %d were created and %d refused", c.ended(), created, refused)
		})
	}
}

// TestContainersAreRefusedWhileTheActiveConnectionIsLost cuts the NRI connection of
// the active plugin and leaves that of the guard.
func TestContainersAreRefusedWhileTheActiveConnectionIsLost(t *testing.T) {
	dir, err := os.MkdirTemp("", "nri") //nolint:usetesting // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // in the system's temporary folder
	socket := filepath.Join(dir, "nri.sock")
	r := newRelay(t, "unix", socket, "unix", cluster.Var("TESTBED_NRI_SOCKET"))
	r.mark, r.unmarked = []byte("topolet\x12"), []byte("topolet-guard\x12") // names in the registration
	install(t, "nri.socket="+socket)
	waitDaemon(t, 0)
	ns := namespace(t)
	all := start(t, ns, podOf("plain")).Allowed
	before := placements(t)

	r.cutMarked(true)
	claimFor(t, ns, "one", "1")
	create(t, ns, podOf("shared"))
	waitEvent(t, ns, "shared", "no active topolet has placed container main of pod "+ns+"/shared: it would run on CPUs that are other containers' alone")
	// The claim is not even prepared: topolet does not know who runs where.
	create(t, ns, podOf("exclusive", "one"))
	waitEvent(t, ns, "exclusive", "topolet is not ready yet, the kubelet will try again")
	if diff := cmp.Diff(before, placements(t)); diff != "" {
		t.Errorf("CPUs -before +after:\n%s", diff)
	}

	r.cutMarked(false)
	// The kubelet prepares a claim again after a minute and more.
	if err := harness.Wait(t.Context(), restartLimit, "the claimed container to run", func(ctx context.Context) error {
		return cluster.Running(ctx, ns, "exclusive", "main")
	}); err != nil {
		t.Fatal(err)
	}
	cpu := running(t, ns, "exclusive", "main").Allowed
	if !cpu.Equals(granted(t, ns, "one")) {
		t.Errorf("granted %s, runs on %s", granted(t, ns, "one"), cpu)
	}
	running(t, ns, "shared", "main")
	changeTo(t, ns, "shared", all.Difference(cpu))
}

// TestAPodThatNeedsTopoletDoesNotStartWithoutIt has no daemon, so that no guard can refuse
// anything: a claim's container cannot be created, and the runtime's own validator refuses
// others that ask for it.
func TestAPodThatNeedsTopoletDoesNotStartWithoutIt(t *testing.T) {
	requires := func(p *corev1.Pod) *corev1.Pod {
		p.Annotations = map[string]string{"required-plugins.noderesource.dev": "[topolet]"}
		return p
	}
	ns := namespace(t)
	claimFor(t, ns, "one", "1")
	k := start(t, ns, podOf("exclusive", "one"))
	cpu := granted(t, ns, "one")
	withoutDaemon(t, func() {
		// A claim that is prepared already does not hold its container back.
		for _, pid := range k.Pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		waitEvent(t, ns, "exclusive", allocator.UnplacedSource)
		create(t, ns, requires(podOf("shared")))
		waitEvent(t, ns, "shared", `required plugin "topolet" not present`)
		create(t, ns, podOf("plain"))
		running(t, ns, "plain", "main")
	})
	if got := running(t, ns, "exclusive", "main").Allowed; !got.Equals(cpu) {
		t.Errorf("granted %s, runs on %s", cpu, got)
	}
	if said := lines(t, ns, "exclusive"); len(said) != 1 || said[0].CPUsAllowed != cpu.String() {
		t.Errorf("granted %s; the workload has seen %+v", cpu, said)
	}
	for _, pod := range []string{"shared", "plain"} {
		if got := running(t, ns, pod, "main").Allowed; got.Intersects(cpu) {
			t.Errorf("pod %s runs on %s, of which %s are claimed", pod, got, cpu)
		}
	}
}

// installOnPodNetwork has the daemon leave the host's network until the test ends:
// only there two of them fit on the node. The returned function installs it again,
// with further values.
func installOnPodNetwork(t *testing.T) (again func(values ...string) error) {
	t.Helper()
	bridge, err := net.InterfaceByName(cluster.Var("TESTBED_BRIDGE"))
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := bridge.Addrs()
	if err != nil || len(addresses) == 0 {
		t.Fatalf("addresses of the bridge: %v, %v", addresses, err)
	}
	ip, _, err := net.ParseCIDR(addresses[0].String())
	if err != nil {
		t.Fatal(err)
	}
	api := newRelay(t, "tcp", net.JoinHostPort(ip.String(), "0"),
		"tcp", net.JoinHostPort(cluster.Var("TESTBED_APISERVER_HOST"), cluster.Var("TESTBED_APISERVER_PORT")))
	_, port, err := net.SplitHostPort(api.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	values := []string{"hostNetwork=false", "kubernetesServiceHost=" + ip.String(), "kubernetesServicePort=" + port}
	install(t, values...)
	waitDaemon(t, 0)
	return func(further ...string) error { return cluster.Install(t.Context(), append(values, further...)...) }
}

// waitStandby waits until a second daemon runs beside this one.
func waitStandby(t *testing.T, old string) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, "the new daemon to run beside the old one", func(ctx context.Context) error {
		pods, err := cluster.Client.CoreV1().Pods(harness.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			if p.Name != old && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Running != nil {
				return nil
			}
		}
		return fmt.Errorf("%d daemons", len(pods.Items))
	}); err != nil {
		t.Fatal(err)
	}
}

// waitTold waits until a daemon is told to end.
func waitTold(t *testing.T, name string) {
	t.Helper()
	if err := harness.Wait(t.Context(), startLimit, "the old daemon to be told to end", func(ctx context.Context) error {
		p, err := cluster.Client.CoreV1().Pods(harness.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && p.DeletionTimestamp == nil {
			err = errors.New("it is not")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// signalDaemon sends a signal to a daemon that is still there.
func signalDaemon(t *testing.T, p corev1.Pod, signal syscall.Signal) {
	t.Helper()
	k, err := cluster.Kernel(t.Context(), harness.Namespace, p.Name, "topolet")
	if err != nil {
		t.Fatalf("the old daemon ended before it could be sent a signal: %v", err)
	}
	for _, pid := range k.Pids {
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
	}
}

// watchSlices notes which of topolet's slices are deleted until the returned
// function is called, which returns their names.
func watchSlices(t *testing.T) (deleted func() []string) {
	t.Helper()
	w, err := cluster.Client.ResourceV1().ResourceSlices().Watch(t.Context(), metav1.ListOptions{FieldSelector: "spec.driver=" + draplugin.DriverName})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	var watching sync.WaitGroup
	watching.Go(func() {
		for e := range w.ResultChan() {
			if s, ok := e.Object.(*resourceapi.ResourceSlice); ok && e.Type == watch.Deleted {
				names = append(names, s.Name)
			}
		}
	})
	return func() []string {
		w.Stop()
		watching.Wait()
		return names
	}
}

// churn creates pods that end by themselves, one after the other of each kind, and
// looks where each of them ran.
type churn struct {
	t         *testing.T
	namespace string
	stop      chan struct{}
	running   sync.WaitGroup

	mu    sync.Mutex
	count map[string]int
}

// newChurn makes pods that share the pool, such that hold memory, whose claims are
// prepared and released each time, and such that share the claim "held".
func newChurn(t *testing.T, namespace string, held, pool topology.CPUSet) *churn {
	t.Helper()
	template := &resourceapi.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: "memory"}}
	template.Spec.Spec.Devices.Requests = []resourceapi.DeviceRequest{{Name: "memory", Exactly: &resourceapi.ExactDeviceRequest{
		DeviceClassName: "memory.topolet.dev",
		Capacity: &resourceapi.CapacityRequirements{
			Requests: map[resourceapi.QualifiedName]resource.Quantity{draplugin.CapacityMemory: resource.MustParse("16Mi")},
		},
	}}}
	if _, err := cluster.Client.ResourceV1().ResourceClaimTemplates(namespace).Create(t.Context(), template, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c := &churn{t: t, namespace: namespace, stop: make(chan struct{}), count: map[string]int{}}
	c.running.Go(func() { c.loop("shared", pool, func(name string) *corev1.Pod { return podOf(name) }) })
	c.running.Go(func() { c.loop("claimed", held, func(name string) *corev1.Pod { return podOf(name, "held") }) })
	c.running.Go(func() {
		c.loop("memory", pool, func(name string) *corev1.Pod {
			p := podOf(name, "memory")
			p.Spec.ResourceClaims[0] = corev1.PodResourceClaim{Name: "memory", ResourceClaimTemplateName: ptr.To("memory")}
			return p
		})
	})
	return c
}

func (c *churn) loop(kind string, want topology.CPUSet, pod func(name string) *corev1.Pod) {
	ctx := c.t.Context()
	pods := cluster.Client.CoreV1().Pods(c.namespace)
	for i := 0; ; i++ {
		select {
		case <-c.stop:
			return
		default:
		}
		p := pod(fmt.Sprintf("%s-%d", kind, i))
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers[0].Args = []string{"-for", "200ms"}
		if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
			c.t.Error(err)
			return
		}
		if err := c.look(ctx, p.Name, want); err != nil {
			c.t.Error(err)
			return
		}
		if err := pods.Delete(ctx, p.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			c.t.Error(err)
			return
		}
		c.mu.Lock()
		c.count[kind]++
		c.mu.Unlock()
	}
}

// look waits until a pod has ended and returns an error if it ever ran elsewhere.
func (c *churn) look(ctx context.Context, pod string, want topology.CPUSet) error {
	if err := harness.Wait(ctx, restartLimit, "pod "+pod+" to end", func(ctx context.Context) error {
		p, err := cluster.Client.CoreV1().Pods(c.namespace).Get(ctx, pod, metav1.GetOptions{})
		if err == nil && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			err = fmt.Errorf("it is %s: %+v", p.Status.Phase, p.Status.ContainerStatuses)
		}
		return err
	}); err != nil {
		return err
	}
	said, err := cluster.Lines(ctx, c.namespace, pod, "main")
	if err != nil {
		return err
	}
	if len(said) == 0 {
		return fmt.Errorf("pod %s ended without a word", pod)
	}
	for _, line := range said {
		if line.CPUsAllowed != want.String() {
			return fmt.Errorf("pod %s ran on CPUs %s instead of %s: %+v", pod, line.CPUsAllowed, want, said)
		}
	}
	return nil
}

// wait waits until so many more pods of each kind have ended.
func (c *churn) wait(more int) {
	c.t.Helper()
	c.mu.Lock()
	want := map[string]int{}
	for _, kind := range []string{"shared", "claimed", "memory"} {
		want[kind] = c.count[kind] + more
	}
	c.mu.Unlock()
	if err := harness.Wait(c.t.Context(), restartLimit, "pods to come and go", func(context.Context) error {
		if c.t.Failed() {
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for kind, n := range want {
			if c.count[kind] < n {
				return fmt.Errorf("%d of %d pods of kind %s have ended", c.count[kind], n, kind)
			}
		}
		return nil
	}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *churn) end() {
	close(c.stop)
	c.running.Wait()
}

func (c *churn) ended() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := 0
	for _, n := range c.count {
		sum += n
	}
	return sum
}

// createAllTheTime has the runtime create containers, which never start, one after
// the other until the returned function is called. Those that are not refused must
// have these CPUs.
func createAllTheTime(t *testing.T, want topology.CPUSet) (end func() (created, refused int)) {
	t.Helper()
	s := newSandbox(t, "hasty")
	stop := make(chan struct{})
	created, refused := 0, 0
	var running sync.WaitGroup
	running.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			id, err := s.create(fmt.Sprintf("hasty-%d", i))
			if err == nil {
				var cpus string
				if cpus, err = s.cpus(id); err == nil {
					created++
					if cpus != want.String() {
						t.Errorf("a container was created with CPUs %q instead of %s", cpus, want)
					}
					_, err = s.runtime.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: id})
				}
			}
			switch {
			case err == nil:
			case strings.Contains(err.Error(), "topolet"):
				refused++
			default: // the kubelet ends sandboxes that are not its own
				if err := s.run(); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	return func() (int, int) {
		close(stop)
		running.Wait()
		s.remove()
		return created, refused
	}
}

// cpus are those that the runtime gives a container when it starts.
func (s *sandbox) cpus(id string) (string, error) {
	status, err := s.runtime.ContainerStatus(s.t.Context(), &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		return "", err
	}
	var info struct {
		RuntimeSpec struct {
			Linux struct {
				Resources struct {
					CPU struct{ Cpus string }
				}
			}
		}
	}
	err = json.Unmarshal([]byte(status.GetInfo()["info"]), &info)
	return info.RuntimeSpec.Linux.Resources.CPU.Cpus, err
}

func logSize(t *testing.T) int64 {
	t.Helper()
	info, err := os.Stat(containerdLog())
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func containerdLog() string { return filepath.Join(cluster.Var("TESTBED_LOGS"), "containerd.log") }

var connectionLine = regexp.MustCompile(`time="([^"]+)" .*(?:(plugin \\"50-topolet\\" connected and synchronized)|connection to plugin \\"50-topolet\\" closed)`)

// withoutActive reads from containerd's log, from this place on, for how long no
// active plugin was connected, each time. There must never be two.
func withoutActive(t *testing.T, from int64) []time.Duration {
	t.Helper()
	data, err := os.ReadFile(containerdLog())
	if err != nil {
		t.Fatal(err)
	}
	var gaps []time.Duration
	var closed time.Time
	for line := range strings.Lines(string(data[from:])) {
		found := connectionLine.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, found[1])
		if err != nil {
			t.Fatal(err)
		}
		switch connected := found[2] != ""; {
		case !connected:
			closed = at
		case closed.IsZero():
			t.Errorf("two active plugins: a second one connected at %s", at)
		default:
			gaps = append(gaps, at.Sub(closed))
			closed = time.Time{}
		}
	}
	if len(gaps) == 0 {
		t.Error("no other plugin became active")
	}
	return gaps
}

// TestANodeWhoseRuntimeRequiresTopoletComesUp is about the trap in requiring a
// plugin that itself runs in a pod.
func TestANodeWhoseRuntimeRequiresTopoletComesUp(t *testing.T) {
	const tolerates = "tolerate-missing-nri-plugins.noderesource.dev"
	install(t, "podAnnotations."+strings.ReplaceAll(tolerates, ".", `\.`)+"=t")
	defer requirePlugin(t, "topolet", tolerates)()
	ns := namespace(t)
	withoutDaemon(t, func() {
		create(t, ns, podOf("plain"))
		waitEvent(t, ns, "plain", `required plugin "topolet" not present`)
		needed := podOf("needed")
		needed.Annotations = map[string]string{tolerates: "true"}
		start(t, ns, needed)
	})
	running(t, ns, "plain", "main")
}

// requirePlugin has containerd require a plugin of every container until the
// returned function is called.
func requirePlugin(t *testing.T, name, tolerates string) (restore func()) {
	t.Helper()
	config := filepath.Join(cluster.Var("TESTBED_STATE"), "config", "containerd.toml")
	before, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	set := func(content string) {
		if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		restartComponent(t, "containerd")
	}
	const validator = "default_validator]\n"
	if !strings.Contains(string(before), validator) {
		t.Fatalf("%s has no %q", config, validator)
	}
	set(strings.Replace(string(before), validator,
		validator+fmt.Sprintf("  required_plugins = [%q]\n  tolerate_missing_plugins_annotation = %q\n", name, tolerates), 1))
	return func() { set(string(before)) }
}
