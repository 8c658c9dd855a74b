package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	nrilog "github.com/containerd/nri/pkg/log"
	"google.golang.org/protobuf/proto"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

// quiet silences the runtime's half of NRI.
type quiet struct{}

func (quiet) Debugf(context.Context, string, ...any) {}
func (quiet) Infof(context.Context, string, ...any)  {}
func (quiet) Warnf(context.Context, string, ...any)  {}
func (quiet) Errorf(context.Context, string, ...any) {}

// containerRuntime is a container runtime around the real runtime half of NRI. Its
// containers are cgroup files.
type containerRuntime struct {
	root, socket string
	nri          *adaptation.Adaptation // nil while it does not run

	// hooks is held during each event until its reply is carried out, as in
	// containerd.
	hooks      sync.Mutex
	containers map[string]*container
	took       durations
}

// container is one of the runtime's, alone in its pod.
type container struct {
	*api.Container
	pod   *api.PodSandbox
	claim *resourceapi.ResourceClaim // nil without one
}

func newContainerRuntime(root, socket string, took durations) (*containerRuntime, error) {
	nrilog.Set(quiet{})
	cgroups := filepath.Join(root, "sys/fs/cgroup")
	err := os.MkdirAll(cgroups, 0o750)
	if err == nil {
		err = os.WriteFile(filepath.Join(cgroups, "cgroup.controllers"), []byte("cpuset cpu memory\n"), 0o600)
	}
	return &containerRuntime{root: root, socket: socket, containers: map[string]*container{}, took: took}, err
}

// listen begins to take connections of plugins, unless it does already.
func (r *containerRuntime) listen() error {
	if r.nri != nil {
		return nil
	}
	nri, err := adaptation.New("containerd", "v2.4.2", r.synchronize, r.updateFromPlugin,
		adaptation.WithSocketPath(r.socket),
		adaptation.WithPluginPath(filepath.Join(r.root, "none")), adaptation.WithPluginConfigPath(filepath.Join(r.root, "none")))
	if err != nil {
		return err
	}
	if err := nri.Start(); err != nil {
		return err
	}
	r.nri = nri
	return nil
}

// close ends all connections.
func (r *containerRuntime) close() {
	if r.nri != nil {
		r.nri.Stop()
		r.nri = nil
	}
}

func (r *containerRuntime) synchronize(ctx context.Context, cb adaptation.SyncCB) error {
	r.hooks.Lock()
	defer r.hooks.Unlock()
	var pods []*api.PodSandbox
	var containers []*api.Container
	for _, c := range r.containers {
		pods, containers = append(pods, c.pod), append(containers, c.Container)
	}
	updates, err := cb(ctx, pods, containers)
	if err != nil {
		return err
	}
	return r.apply(updates)
}

func (r *containerRuntime) updateFromPlugin(_ context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	r.hooks.Lock()
	defer r.hooks.Unlock()
	return nil, r.apply(updates)
}

// apply carries updates out. One of a container that has ended meanwhile is dropped
// without a word, as in containerd.
func (r *containerRuntime) apply(updates []*api.ContainerUpdate) error {
	for _, u := range updates {
		c, found := r.containers[u.GetContainerId()]
		if !found {
			continue
		}
		c.Linux.Resources.Cpu.Cpus = u.GetLinux().GetResources().GetCpu().GetCpus()
		if err := r.writeCgroup(c); err != nil {
			return err
		}
	}
	return nil
}

// found adds a container that runs already, and nowhere in particular.
func (r *containerRuntime) found(c *container) error {
	c.Linux.Resources.Cpu.Cpus = "0-511"
	c.State = api.ContainerState_CONTAINER_RUNNING
	r.containers[c.Id] = c
	return r.writeCgroup(c)
}

// run creates and starts a container.
func (r *containerRuntime) run(ctx context.Context, c *container) error {
	err := r.event(func() error {
		begin := time.Now()
		reply, err := r.nri.CreateContainer(ctx, &api.CreateContainerRequest{Pod: c.pod, Container: proto.CloneOf(c.Container)})
		r.took.add("CreateContainer, "+c.Name, begin)
		if err != nil {
			return err
		}
		c.Linux.Resources.Cpu.Cpus = reply.GetAdjust().GetLinux().GetResources().GetCpu().GetCpus()
		return r.apply(reply.GetUpdate())
	})
	if err != nil {
		return err
	}
	err = r.event(func() error {
		r.containers[c.Id] = c
		return r.nri.PostCreateContainer(ctx, &api.PostCreateContainerRequest{Pod: c.pod, Container: proto.CloneOf(c.Container)})
	})
	if err != nil {
		return err
	}
	return r.event(func() error {
		if err := r.writeCgroup(c); err != nil {
			return err
		}
		begin := time.Now()
		err := r.nri.StartContainer(ctx, &api.StartContainerRequest{Pod: c.pod, Container: proto.CloneOf(c.Container)})
		r.took.add("StartContainer, "+c.Name, begin)
		c.State = api.ContainerState_CONTAINER_RUNNING
		return err
	})
}

// end stops and removes a container.
func (r *containerRuntime) end(ctx context.Context, c *container) error {
	return r.event(func() error {
		if err := os.RemoveAll(r.cgroup(c)); err != nil {
			return err
		}
		begin := time.Now()
		reply, err := r.nri.StopContainer(ctx, &api.StopContainerRequest{Pod: c.pod, Container: proto.CloneOf(c.Container)})
		r.took.add("StopContainer, "+c.Name, begin)
		if err != nil {
			return err
		}
		delete(r.containers, c.Id)
		return errors.Join(r.apply(reply.GetUpdate()),
			r.nri.RemoveContainer(ctx, &api.RemoveContainerRequest{Pod: c.pod, Container: proto.CloneOf(c.Container)}))
	})
}

func (r *containerRuntime) event(do func() error) error {
	r.hooks.Lock()
	defer r.hooks.Unlock()
	return do()
}

// confined waits until the containers of claims are alone on their CPUs, and all
// others are on all of the rest: the last updates come of the daemon's own accord.
func (r *containerRuntime) confined(ctx context.Context) error {
	return harness.Wait(ctx, limit, "the containers to be confined", func(context.Context) error {
		return r.event(func() error {
			rest, err := topology.ParseCPUSet("0-511")
			if err != nil {
				return err
			}
			// Those of claims first.
			inOrder := slices.SortedFunc(maps.Values(r.containers), func(a, b *container) int {
				return strings.Compare(a.Name, b.Name)
			})
			for _, c := range inOrder {
				data, err := os.ReadFile(filepath.Join(r.cgroup(c), "cpuset.cpus.effective"))
				if err != nil {
					return err
				}
				cpus, err := topology.ParseCPUSet(string(data))
				switch {
				case err != nil:
					return err
				case c.claim == nil && !cpus.Equals(rest):
					return fmt.Errorf("container %s of no claim is on CPUs %s, not %s", c.Id, cpus, rest)
				case c.claim != nil && (cpus.Size() != claimed || !cpus.IsSubsetOf(rest)):
					return fmt.Errorf("container %s of a claim is on CPUs %s, want %d out of %s", c.Id, cpus, claimed, rest)
				case c.claim != nil:
					rest = rest.Difference(cpus)
				}
			}
			return nil
		})
	})
}

// cgroup is the folder of the container's cgroup, as the systemd driver names it.
func (r *containerRuntime) cgroup(c *container) string {
	slice, id, _ := strings.Cut(c.Linux.CgroupsPath, ":cri-containerd:")
	return filepath.Join(r.root, "sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice", slice, "cri-containerd-"+id+".scope")
}

func (r *containerRuntime) writeCgroup(c *container) error {
	if err := os.MkdirAll(r.cgroup(c), 0o750); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.cgroup(c), "cpuset.cpus.effective"), []byte(c.Linux.Resources.Cpu.Cpus+"\n"), 0o600)
}

// describe makes up a container with about as much to say of it as containerd has
// of one of Kubernetes.
func describe(name string, number int) *container {
	podUID, id := uid('a', number), fmt.Sprintf("%064x", number)
	podName := fmt.Sprintf("%s-7d9c5b8f6d-%05d", name, number)
	pod := &api.PodSandbox{
		Id: fmt.Sprintf("%063xa", number), Uid: podUID, Name: podName, Namespace: "production",
		Labels: map[string]string{
			"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "shop", "pod-template-hash": "7d9c5b8f6d",
			"io.kubernetes.pod.name": podName, "io.kubernetes.pod.namespace": "production", "io.kubernetes.pod.uid": podUID,
		},
		Annotations: map[string]string{"kubernetes.io/config.seen": "2026-01-02T03:04:05.678901234Z", "kubernetes.io/config.source": "api"},
		Linux:       &api.LinuxPodSandbox{CgroupParent: "/kubepods.slice/kubepods-burstable.slice", Resources: &api.LinuxResources{Cpu: &api.LinuxCPU{Shares: api.UInt64(uint64(512))}}},
	}
	c := &api.Container{
		Id: id, PodSandboxId: pod.Id, Name: name, State: api.ContainerState_CONTAINER_CREATED,
		Labels: map[string]string{
			"io.cri-containerd.kind": "container", "io.kubernetes.container.name": name,
			"io.kubernetes.pod.name": podName, "io.kubernetes.pod.namespace": "production", "io.kubernetes.pod.uid": podUID,
		},
		Annotations: map[string]string{
			"io.kubernetes.cri.container-name": name, "io.kubernetes.cri.container-type": "container",
			"io.kubernetes.cri.image-name": "registry.example/shop/" + name + ":v1.2.3", "io.kubernetes.cri.sandbox-id": pod.Id,
			"io.kubernetes.cri.sandbox-name": podName, "io.kubernetes.cri.sandbox-namespace": "production", "io.kubernetes.cri.sandbox-uid": podUID,
		},
		Args: []string{"/usr/local/bin/" + name, "--config=/etc/" + name + "/config.yaml", "--listen=:8080", "--log-level=info"},
		Env:  []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=" + podName},
		Linux: &api.LinuxContainer{
			CgroupsPath: "kubepods-burstable-pod" + strings.ReplaceAll(podUID, "-", "_") + ".slice:cri-containerd:" + id,
			OomScoreAdj: api.Int(1000),
			Resources: &api.LinuxResources{
				Cpu:    &api.LinuxCPU{Shares: api.UInt64(uint64(512)), Period: api.UInt64(uint64(100000)), Quota: api.Int64(int64(200000))},
				Memory: &api.LinuxMemory{Limit: api.Int64(int64(1 << 30))},
			},
		},
		CreatedAt: time.Now().UnixNano(),
	}
	// Kubernetes tells every container of each service in its namespace.
	for service := range 10 {
		for _, what := range []string{"SERVICE_HOST=10.96.0.1", "SERVICE_PORT=8080", "PORT=tcp://10.96.0.1:8080", "PORT_8080_TCP_ADDR=10.96.0.1"} {
			c.Env = append(c.Env, fmt.Sprintf("BACKEND_%d_%s", service, what))
		}
	}
	for _, to := range []string{
		"/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf",
		"/dev/shm", "/dev/termination-log", "/var/run/secrets/kubernetes.io/serviceaccount", "/etc/" + name,
	} {
		c.Mounts = append(c.Mounts, &api.Mount{
			Destination: to, Type: "bind", Source: "/var/lib/kubelet/pods/" + podUID + "/volumes" + to,
			Options: []string{"rbind", "rprivate", "rw"},
		})
	}
	for _, kind := range []string{"pid", "ipc", "uts", "mount", "network", "cgroup"} {
		c.Linux.Namespaces = append(c.Linux.Namespaces, &api.LinuxNamespace{Type: kind, Path: "/proc/12345/ns/" + kind})
	}
	return &container{Container: c, pod: pod}
}

// hold gives the container the CDI devices of its claim.
func (c *container) hold(devices []string) {
	for _, device := range devices {
		c.CDIDevices = append(c.CDIDevices, &api.CDIDevice{Name: device})
	}
}
