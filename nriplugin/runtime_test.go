package nriplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	nrilog "github.com/containerd/nri/pkg/log"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
)

func init() {
	nrilog.Set(quiet{})
	klog.SetLogger(klog.Logger{})
}

// quiet silences the runtime's half of NRI.
type quiet struct{}

func (quiet) Debugf(context.Context, string, ...any) {}
func (quiet) Infof(context.Context, string, ...any)  {}
func (quiet) Warnf(context.Context, string, ...any)  {}
func (quiet) Errorf(context.Context, string, ...any) {}

// fakeRuntime is a container runtime around the real runtime half of NRI. It
// keeps to what containerd does, also where that is inconvenient: one lock for
// all events; an update of a container that is not listed yet is dropped without
// a word; failures of updates that come with a reply are ignored; a container's
// exit is told some time after it.
//
// Its cgroups are files below root, and its tasks are nothing at all.
type fakeRuntime struct {
	t    testing.TB
	root string
	dir  string // of the sockets
	v1   bool
	all  string // CPUs of a cgroup that is not confined
	// release is the runtime's version, and version that of NRI in it, when it
	// starts.
	release, version string

	nri   *adaptation.Adaptation
	ended bool // what still comes is not heard
	proxy *proxy

	// hooks is held from the beginning of an event until its reply is carried
	// out. It is not held while the test calls.
	hooks sync.Mutex

	mu      sync.Mutex
	pods    map[string]*api.PodSandbox
	listed  map[string]*fakeContainer
	ignores map[string]bool // updates of these containers change nothing
	refuses map[string]bool // updates of these containers fail
	updates []string        // what was asked for, as "container=cpus"
	exits   sync.WaitGroup

	// beforeUpdate is called with an update of the plugin's own accord, before
	// the runtime takes its lock.
	beforeUpdate func()
}

type fakeContainer struct {
	*api.Container
	pod     *api.PodSandbox
	stopped bool
}

func newFakeRuntime(t testing.TB, v1 bool) *fakeRuntime {
	t.Helper()
	// Not t.TempDir(): a socket's path has 108 bytes, and tests have long names.
	dir, err := os.MkdirTemp("", "nri") //nolint:usetesting // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	r := &fakeRuntime{
		t: t, v1: v1, dir: dir, root: t.TempDir(), all: "0-7", release: "v2.4.2", version: "v0.12.5",
		pods:   map[string]*api.PodSandbox{},
		listed: map[string]*fakeContainer{}, ignores: map[string]bool{}, refuses: map[string]bool{},
	}
	if v1 {
		r.write("sys/fs/cgroup/cpuset/cpuset.cpus", r.all)
	} else {
		r.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory")
	}
	r.proxy = newProxy(t, r.socket(), filepath.Join(dir, "runtime.sock"))
	r.startNRI()
	t.Cleanup(func() {
		r.stopNRI()
		r.proxy.close()
		r.exits.Wait()
		os.RemoveAll(dir) //nolint:errcheck // only sockets
	})
	return r
}

// socket is the path to which the plugin connects.
func (r *fakeRuntime) socket() string { return filepath.Join(r.dir, "nri.sock") }

func (r *fakeRuntime) startNRI() {
	r.t.Helper()
	nri, err := adaptation.New("containerd", r.release, r.synchronize, r.updateFromPlugin,
		adaptation.WithSocketPath(filepath.Join(r.dir, "runtime.sock")),
		adaptation.WithPluginPath(filepath.Join(r.dir, "none")),
		adaptation.WithPluginConfigPath(filepath.Join(r.dir, "none")))
	if err == nil {
		// NRI reads its version from the program's build information, which a test
		// does not have.
		field := reflect.ValueOf(nri).Elem().FieldByName("nriVersion")
		*(*string)(field.Addr().UnsafePointer()) = r.version
		err = nri.Start()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.hooks.Lock()
	defer r.hooks.Unlock()
	r.nri, r.ended = nri, false
}

// stopNRI is the end of the runtime's process: no more connections, and those
// that are there break.
func (r *fakeRuntime) stopNRI() {
	r.hooks.Lock()
	defer r.hooks.Unlock()
	r.nri.Stop()
	r.proxy.drop()
	r.ended = true
}

var errEnded = errors.New("the runtime has ended")

func (r *fakeRuntime) synchronize(ctx context.Context, cb adaptation.SyncCB) error {
	r.hooks.Lock()
	defer r.hooks.Unlock()
	var pods []*api.PodSandbox
	var ctrs []*api.Container
	r.mu.Lock()
	for _, pod := range r.pods {
		pods = append(pods, pod)
	}
	for _, c := range r.listed {
		if !c.stopped {
			ctrs = append(ctrs, proto.CloneOf(c.Container))
		}
	}
	r.mu.Unlock()
	updates, err := cb(ctx, pods, ctrs)
	if err != nil {
		return err
	}
	r.apply(updates) //nolint:errcheck // as containerd does
	return nil
}

func (r *fakeRuntime) updateFromPlugin(_ context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	r.mu.Lock()
	before := r.beforeUpdate
	r.mu.Unlock()
	if before != nil {
		before()
	}
	r.hooks.Lock()
	defer r.hooks.Unlock()
	if r.ended {
		return nil, errEnded
	}
	return r.apply(updates)
}

func (r *fakeRuntime) apply(updates []*api.ContainerUpdate) (failed []*api.ContainerUpdate, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range updates {
		cpus := u.GetLinux().GetResources().GetCpu().GetCpus()
		c, found := r.listed[u.GetContainerId()]
		r.updates = append(r.updates, u.GetContainerId()+"="+cpus)
		switch {
		case !found || r.ignores[c.Id]:
		case r.refuses[c.Id]:
			failed = append(failed, u)
		default:
			r.confine(c, cpus)
		}
	}
	if len(failed) > 0 {
		return failed, errors.New("update of some containers failed")
	}
	return nil, nil
}

// confine changes the CPUs of a container, and of its cgroup if it runs: containerd
// leaves the cgroup of one that is being started as it is
// (internal/cri/server/container_update_resources.go).
func (r *fakeRuntime) confine(c *fakeContainer, cpus string) {
	if cpus == "" {
		return // CRI cannot say "anywhere"
	}
	c.Linux.Resources.Cpu.Cpus = cpus
	if c.State != api.ContainerState_CONTAINER_RUNNING {
		return
	}
	if _, err := os.Stat(filepath.Join(r.root, r.cgroupDir(c))); err == nil {
		r.writeCgroup(c)
	}
}

func (r *fakeRuntime) addPod(uid string) *api.PodSandbox {
	pod := &api.PodSandbox{Id: "sandbox-" + uid, Uid: uid, Name: uid, Namespace: "default"}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods[pod.Id] = pod
	return pod
}

// newContainer describes a container whose pod has a UID of "pod-" and its name.
func (r *fakeRuntime) newContainer(name string, devices ...string) *fakeContainer {
	pod := r.addPod("pod-" + name)
	c := &api.Container{
		Id: name, Name: name, PodSandboxId: pod.Id, State: api.ContainerState_CONTAINER_CREATED,
		Linux: &api.LinuxContainer{
			CgroupsPath: "kubepods-pod" + strings.ReplaceAll(pod.Uid, "-", "_") + ".slice:cri-containerd:" + name,
			Resources:   &api.LinuxResources{Cpu: &api.LinuxCPU{}},
		},
	}
	for _, device := range devices {
		c.CDIDevices = append(c.CDIDevices, &api.CDIDevice{Name: device})
		if _, ours, _ := allocator.ParseRef(device); ours {
			c.Mounts = []*api.Mount{{Destination: allocator.Unplaced, Source: allocator.UnplacedSource}}
		}
	}
	return &fakeContainer{Container: c, pod: pod}
}

// create is CRI's CreateContainer.
func (r *fakeRuntime) create(c *fakeContainer) error {
	if err := r.beginCreate(c); err != nil {
		return err
	}
	return r.endCreate(c)
}

// beginCreate goes up to the moment in which the container is not listed yet.
func (r *fakeRuntime) beginCreate(c *fakeContainer) error {
	r.hooks.Lock()
	reply, err := r.nri.CreateContainer(r.t.Context(), &api.CreateContainerRequest{Pod: c.pod, Container: proto.CloneOf(c.Container)})
	if err == nil {
		r.apply(reply.GetUpdate()) //nolint:errcheck // as containerd does
	}
	r.hooks.Unlock()
	if err == nil {
		err = mount(c, reply.GetAdjust())
	}
	if err != nil {
		return errors.Join(err, r.remove(c))
	}
	adjusted := reply.GetAdjust().GetLinux().GetResources().GetCpu()
	c.Linux.Resources.Cpu.Cpus, c.Linux.Resources.Cpu.Mems = adjusted.GetCpus(), adjusted.GetMems()
	if adjusted.GetQuota() != nil {
		c.Linux.Resources.Cpu.Quota = adjusted.GetQuota()
	}
	return nil
}

// mount makes the container's mounts, less those that plugins take away.
func mount(c *fakeContainer, adjust *api.ContainerAdjustment) error {
	gone := map[string]bool{}
	for _, m := range adjust.GetMounts() {
		if destination, removed := m.IsMarkedForRemoval(); removed {
			gone[destination] = true
		}
	}
	for _, m := range c.Mounts {
		if gone[m.Destination] {
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
	}
	return nil
}

func (r *fakeRuntime) endCreate(c *fakeContainer) error {
	r.mu.Lock()
	r.listed[c.Id] = c
	event := proto.CloneOf(c.Container)
	r.mu.Unlock()
	r.hooks.Lock()
	defer r.hooks.Unlock()
	return r.nri.PostCreateContainer(r.t.Context(), &api.PostCreateContainerRequest{Pod: c.pod, Container: event})
}

// start is CRI's StartContainer: the cgroup is made before the event.
func (r *fakeRuntime) start(c *fakeContainer) error {
	r.makeCgroup(c)
	return r.launch(c)
}

func (r *fakeRuntime) makeCgroup(c *fakeContainer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writeCgroup(c)
}

// launch lets a container run whose cgroup is there.
func (r *fakeRuntime) launch(c *fakeContainer) error {
	r.mu.Lock()
	event := proto.CloneOf(c.Container)
	r.mu.Unlock()
	r.hooks.Lock()
	err := r.nri.StartContainer(r.t.Context(), &api.StartContainerRequest{Pod: c.pod, Container: event})
	r.hooks.Unlock()
	if err != nil {
		return errors.Join(err, r.stop(c))
	}
	r.mu.Lock()
	c.State = api.ContainerState_CONTAINER_RUNNING
	event = proto.CloneOf(c.Container)
	r.mu.Unlock()
	r.hooks.Lock()
	defer r.hooks.Unlock()
	return r.nri.PostStartContainer(r.t.Context(), &api.PostStartContainerRequest{Pod: c.pod, Container: event})
}

// run creates and starts a container and fails the test if it cannot.
func (r *fakeRuntime) run(name string, devices ...string) *fakeContainer {
	r.t.Helper()
	c := r.newContainer(name, devices...)
	if err := r.create(c); err != nil {
		r.t.Fatalf("create %s: %v", name, err)
	}
	if err := r.start(c); err != nil {
		r.t.Fatalf("start %s: %v", name, err)
	}
	return c
}

// resize is CRI's UpdateContainerResources, with a quota of one CPU's time.
func (r *fakeRuntime) resize(c *fakeContainer, cpus string) error {
	quota := api.Int64(100000)
	r.hooks.Lock()
	reply, err := r.nri.UpdateContainer(r.t.Context(), &api.UpdateContainerRequest{
		Pod: c.pod, Container: proto.CloneOf(c.Container),
		LinuxResources: &api.LinuxResources{Memory: &api.LinuxMemory{}, Cpu: &api.LinuxCPU{Cpus: cpus, Quota: quota}},
	})
	updates := reply.GetUpdate()
	if n := len(updates); n > 0 { // the last is of the container itself
		r.apply(updates[:n-1]) //nolint:errcheck // as containerd does
		if own := updates[n-1]; own != nil {
			cpus, quota = own.GetLinux().GetResources().GetCpu().GetCpus(), own.GetLinux().GetResources().GetCpu().GetQuota()
		}
	}
	r.hooks.Unlock()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.confine(c, cpus)
	c.Linux.Resources.Cpu.Quota = quota
	return nil
}

// exit is the end of a container's process. The event comes later.
func (r *fakeRuntime) exit(c *fakeContainer) {
	r.removeCgroup(c)
	r.exits.Go(func() {
		if err := r.stop(c); err != nil && r.t.Context().Err() == nil {
			r.t.Errorf("stop %s: %v", c.Name, err)
		}
	})
}

func (r *fakeRuntime) stop(c *fakeContainer) error {
	r.removeCgroup(c)
	r.hooks.Lock()
	defer r.hooks.Unlock()
	return r.stopLocked(c)
}

func (r *fakeRuntime) stopLocked(c *fakeContainer) error {
	r.mu.Lock()
	done := c.stopped
	c.stopped, c.State = true, api.ContainerState_CONTAINER_STOPPED
	event := proto.CloneOf(c.Container)
	r.mu.Unlock()
	if done {
		return nil
	}
	reply, err := r.nri.StopContainer(context.Background(), &api.StopContainerRequest{Pod: c.pod, Container: event})
	if err == nil {
		r.apply(reply.GetUpdate()) //nolint:errcheck // as containerd does
	}
	return err
}

func (r *fakeRuntime) remove(c *fakeContainer) error {
	r.removeCgroup(c)
	r.hooks.Lock()
	defer r.hooks.Unlock()
	err := r.stopLocked(c)
	r.mu.Lock()
	delete(r.listed, c.Id)
	event := proto.CloneOf(c.Container)
	r.mu.Unlock()
	return errors.Join(err, r.nri.RemoveContainer(context.Background(), &api.RemoveContainerRequest{Pod: c.pod, Container: event}))
}

// cpusOf is what the kernel would say of the container.
func (r *fakeRuntime) cpusOf(c *fakeContainer) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	file := "cpuset.cpus.effective"
	if r.v1 {
		file = "cpuset.effective_cpus"
	}
	data, err := os.ReadFile(filepath.Join(r.root, r.cgroupDir(c), file))
	if errors.Is(err, fs.ErrNotExist) {
		return "none"
	}
	return strings.TrimSpace(string(data))
}

// asked returns the updates since the last call, in order of containers.
func (r *fakeRuntime) asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.updates
	r.updates = nil
	slices.Sort(asked)
	return asked
}

func (r *fakeRuntime) cgroupDir(c *fakeContainer) string {
	pod := strings.ReplaceAll(c.pod.Uid, "-", "_")
	dir := fmt.Sprintf("kubepods.slice/kubepods-pod%s.slice/cri-containerd-%s.scope", pod, c.Id)
	if r.v1 {
		dir = "cpuset/" + dir
	}
	return "sys/fs/cgroup/" + dir
}

func (r *fakeRuntime) writeCgroup(c *fakeContainer) {
	cpus := c.Linux.Resources.Cpu.Cpus
	effective := cpus
	if effective == "" {
		effective = r.all
	}
	file := "cpuset.cpus.effective"
	if r.v1 {
		file = "cpuset.effective_cpus"
	}
	r.write(r.cgroupDir(c)+"/cpuset.cpus", cpus)
	r.write(r.cgroupDir(c)+"/"+file, effective)
}

func (r *fakeRuntime) removeCgroup(c *fakeContainer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.RemoveAll(filepath.Join(r.root, r.cgroupDir(c))); err != nil {
		r.t.Error(err)
	}
}

// write replaces a file in one step, as the kernel's own change at once.
func (r *fakeRuntime) write(name, content string) {
	name = filepath.Join(r.root, name)
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name+".new", []byte(content+"\n"), 0o644)
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		r.t.Error(err)
	}
}

// configured are the CPUs of the container's configuration, also before it has
// a cgroup.
func (r *fakeRuntime) configured(c *fakeContainer) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.Linux.Resources.Cpu.Cpus
}

// ignore lets updates of the container change nothing from now on.
func (r *fakeRuntime) ignore(name string) { r.set(r.ignores, name, true) }

// heed ends what ignore and refuse began.
func (r *fakeRuntime) heed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.ignores)
	clear(r.refuses)
}

// refuse lets updates of the container fail from now on.
func (r *fakeRuntime) refuse(name string) { r.set(r.refuses, name, true) }

func (r *fakeRuntime) set(flags map[string]bool, name string, value bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	flags[name] = value
}

// updateUnasked has a function called with each update of the plugin's own
// accord, before it waits for the runtime's lock.
func (r *fakeRuntime) updateUnasked(before func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beforeUpdate = before
}
