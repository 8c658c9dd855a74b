// Package testbed runs a real one-node Kubernetes cluster on any Linux host,
// as root, without a container engine and without a registry: etcd, the
// control plane, containerd with CDI and NRI, and a kubelet, all built from
// the versions that this Go module pins.
//
//	t, err := testbed.New(testbed.Options{Progress: os.Stderr})
//	err = t.Up(ctx)   // creates, or repairs, or does nothing
//	env, err := t.Env() // where everything is
//	err = t.Down(ctx) // leaves nothing behind
//
// NUMAUp adds a second node, a virtual machine with many NUMA nodes; see the
// package numa.
//
// Everything of a testbed is in its state folder, in one cgroup and behind one
// bridge. What runs is asked of /proc and never noted, so Up and Down work
// after any crash, their own included.
//
// The daemons listen on loopback, and the kubelet on the bridge's address: no
// other host can reach them. There is no kube-proxy; a pod that needs the API
// server uses the host's network and the address from Env.
package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/test/testbed/internal/action"
	"github.com/topolet/topolet/test/testbed/internal/binaries"
	"github.com/topolet/topolet/test/testbed/internal/component"
	"github.com/topolet/topolet/test/testbed/internal/host"
	"github.com/topolet/topolet/test/testbed/internal/layout"
	"github.com/topolet/topolet/test/testbed/internal/process"
	"github.com/topolet/topolet/test/testbed/internal/progress"
)

// Components lists the names that Kill, Start and Restart take.
func Components() []string { return component.Names() }

// Images that every testbed has.
const (
	PauseImage    = action.PauseImage
	WorkloadImage = action.WorkloadImage
	// TopoletImage is made from this repository, unless WithoutTopolet.
	TopoletImage = action.TopoletImage
)

// Testbed is one testbed, running or not.
type Testbed struct {
	options Options
	layout  layout.Layout
	log     *progress.Log
}

// New checks the options. It has no effect on the host.
func New(o Options) (*Testbed, error) {
	if o.State == "" {
		o.State = DefaultState
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	l, err := layout.New(o.State)
	if err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	return &Testbed{options: o, layout: l, log: progress.New(o.Progress)}, nil
}

// InstallPackages installs the distribution's packages that building needs.
// When all are there it does nothing.
func (t *Testbed) InstallPackages(ctx context.Context) error {
	return binaries.InstallPackages(ctx, t.log)
}

// Build builds the programs that the cache does not have, and creates nothing
// else.
func (t *Testbed) Build(ctx context.Context) error {
	b, err := t.builder()
	if err != nil {
		return err
	}
	paths, err := b.Ensure(ctx, binaries.Programs())
	if err != nil {
		return err
	}
	t.log.Printf("%d programs in %s", len(paths), b.Cache)
	return nil
}

// Up brings the cluster up, as the options and the record of earlier calls
// say, and returns when the node is Ready and pods can be created. On a
// cluster that runs it changes only what differs.
func (t *Testbed) Up(ctx context.Context) error {
	start := time.Now()
	if err := host.Check(); err != nil {
		return err
	}
	builder, err := t.builder()
	if err != nil {
		return err
	}
	// A compiler that outlives an Up which was killed is Down's to end.
	builder.Env = process.MarkEnv(t.layout.State)
	if err := action.Ours(t.layout.State, t.layout.Record()); err != nil {
		return err
	}
	if err := os.MkdirAll(t.layout.State, 0o755); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	unlock, err := t.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	before, err := t.load()
	if err != nil && !errors.Is(err, ErrNone) {
		return err
	}
	if before.PodCIDR == "" && t.options.PodCIDR == "" {
		if before.PodCIDR, err = choosePodCIDR(host.Reaches); err != nil {
			return err
		}
	}
	r := merge(t.options, before)
	if before.NodeName != "" && (r.NodeName != before.NodeName || r.PodCIDR != before.PodCIDR) {
		return fmt.Errorf("the cluster in %s has the node %s and the pod network %s, which cannot change while it lives: run `testbed down` first", t.layout.State, before.NodeName, before.PodCIDR)
	}
	var reserved reservations
	defer reserved.release()
	if r.Ports, err = t.freePorts(ctx, &reserved, r.Ports); err != nil {
		return err
	}
	if err := r.save(t.layout.Record()); err != nil {
		return err
	}
	c, err := t.context(r)
	if err != nil {
		return err
	}
	c.Builder, c.WithoutTopolet, c.TopoletTags = builder, t.options.WithoutTopolet, t.options.TopoletTags
	if err := c.Run(ctx, action.Up()); err != nil {
		return err
	}
	t.log.Printf("up in %.1fs: %s in %s", time.Since(start).Seconds(), r.NodeName, t.layout.State)
	return nil
}

// Down ends and removes everything of the testbed: processes, mounts, the
// network, cgroups, kernel settings and files. It needs neither a complete nor
// a running cluster; without a testbed it does nothing.
func (t *Testbed) Down(ctx context.Context) error {
	start := time.Now()
	if os.Geteuid() != 0 {
		return errors.New("not root: run as root")
	}
	if err := action.Ours(t.layout.State, t.layout.Record()); err != nil {
		return err
	}
	if _, err := os.Stat(t.layout.State); err == nil {
		unlock, err := t.lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
	}
	c := &action.Context{Layout: t.layout, Log: t.log}
	if err := c.RunAll(ctx, action.Down()); err != nil {
		return err
	}
	t.log.Printf("down in %.1fs", time.Since(start).Seconds())
	return nil
}

// Load imports image archives for the kubelet's containers.
func (t *Testbed) Load(ctx context.Context, archives ...string) error {
	c, err := t.recorded()
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if _, err := os.Stat(archive); err != nil {
			return fmt.Errorf("load an image: %w", err)
		}
		abs, err := filepath.Abs(archive)
		if err != nil {
			return fmt.Errorf("load an image: %w", err)
		}
		out, err := c.Ctr(ctx, "images", "import", "--digests=false", abs)
		if err != nil {
			return err
		}
		t.log.Printf("loaded %s: %s", archive, strings.TrimSpace(out))
	}
	return nil
}

// Kill sends a signal to one component and, if it is SIGKILL, waits until the
// component is gone. Nothing starts it again: that is Start's. It fails when
// the component does not run.
func (t *Testbed) Kill(ctx context.Context, name string, sig syscall.Signal) error {
	c, err := t.recorded()
	if err != nil {
		return err
	}
	p, err := running(c, name)
	if err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		err = p.Kill(ctx)
	} else {
		err = p.Signal(sig)
	}
	if err != nil {
		return err
	}
	t.log.Printf("sent %s to %s (pid %d)", unix.SignalName(sig), name, p.PID)
	return nil
}

// Start starts one component unless it runs, and waits until it is ready; for
// the kubelet, until the node is.
func (t *Testbed) Start(ctx context.Context, name string) error {
	unlock, err := t.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return t.start(ctx, name)
}

// Restart ends one component, gently if possible, starts it again and waits
// until it is ready. Containers go on meanwhile.
func (t *Testbed) Restart(ctx context.Context, name string) error {
	unlock, err := t.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := t.recorded()
	if err != nil {
		return err
	}
	if p, err := running(c, name); err == nil {
		if err := p.Stop(ctx, action.StopGrace); err != nil {
			return err
		}
	}
	return t.start(ctx, name)
}

func (t *Testbed) start(ctx context.Context, name string) error {
	begin := time.Now()
	c, err := t.recorded()
	if err != nil {
		return err
	}
	p, started, err := c.Ensure(ctx, name)
	if err != nil {
		return err
	}
	if err := c.WaitReady(ctx, name); err != nil {
		return err
	}
	verb := "runs"
	if started {
		verb = "started"
	}
	t.log.Printf("%s %s (pid %d), ready after %.1fs", name, verb, p.PID, time.Since(begin).Seconds())
	return nil
}

func running(c *action.Context, name string) (process.Process, error) {
	if _, err := c.Cluster.Spec(name); err != nil {
		return process.Process{}, err
	}
	p, ok, err := c.Finder().Component(name)
	if err != nil {
		return process.Process{}, err
	}
	if !ok {
		return process.Process{}, fmt.Errorf("%s does not run: start it with `testbed restart %s`", name, name)
	}
	return p, nil
}

// recorded is the context of the cluster that the state folder describes.
func (t *Testbed) recorded() (*action.Context, error) {
	r, err := t.load()
	if err != nil {
		return nil, err
	}
	return t.context(r)
}

func (t *Testbed) context(r record) (*action.Context, error) {
	cidr, err := parsePodCIDR(r.PodCIDR)
	if err != nil {
		return nil, err
	}
	return &action.Context{
		Layout: t.layout,
		Log:    t.log,
		Cluster: component.Cluster{
			Layout:              t.layout,
			NodeName:            r.NodeName,
			Ports:               r.Ports,
			PodCIDR:             cidr,
			FeatureGates:        r.FeatureGates,
			RuntimeConfig:       r.RuntimeConfig,
			PauseImage:          PauseImage,
			CanRaiseOOMPriority: host.CanRaiseOOMPriority(),
		},
	}, nil
}

func (t *Testbed) builder() (binaries.Builder, error) {
	b := binaries.Builder{Source: t.options.Source, Cache: t.options.Cache, Log: t.log}
	var err error
	if b.Source == "" {
		if b.Source, err = binaries.FindSource(); err != nil {
			return b, err
		}
	}
	if b.Cache == "" {
		if b.Cache, err = binaries.DefaultCache(); err != nil {
			return b, err
		}
	}
	return b, nil
}

// freePorts keeps the ports of running components and replaces the others
// where somebody else has them.
func (t *Testbed) freePorts(ctx context.Context, reserved *reservations, ports component.Ports) (component.Ports, error) {
	all, err := process.Finder{State: t.layout.State}.All()
	if err != nil {
		return ports, err
	}
	owned := map[string][]int{
		component.APIServer:         {ports.APIServer},
		component.Etcd:              {ports.EtcdClient, ports.EtcdPeer},
		component.ControllerManager: {ports.ControllerManager},
		component.Scheduler:         {ports.Scheduler},
		component.Kubelet:           {ports.Kubelet, ports.KubeletHealth},
	}
	inUse := map[int]bool{}
	for name, list := range owned {
		if _, runs := process.Pick(all, name); runs {
			for _, port := range list {
				inUse[port] = true
			}
		}
	}
	return reserved.choose(ctx, ports, inUse, t.options.APIServerPort)
}

// lock serialises the commands that change the testbed. The lock is gone with
// the process that holds it, however that ends.
func (t *Testbed) lock(ctx context.Context) (unlock func(), err error) {
	const limit = 2 * time.Minute
	deadline := time.Now().Add(limit)
	said := false
	for {
		f, err := os.OpenFile(t.layout.Lock(), os.O_CREATE|os.O_RDWR, 0o644)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", t.layout.State, ErrNone)
		}
		if err != nil {
			return nil, fmt.Errorf("lock the state folder: %w", err)
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && sameFile(f, t.layout.Lock()) {
			return func() { _ = f.Close() }, nil
		}
		_ = f.Close()
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock the state folder: %w", err)
		}
		if !said {
			t.log.Printf("another testbed command works on %s; waiting for it", t.layout.State)
			said = true
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("waited %v for another testbed command on %s to finish: end it, then try again", limit, t.layout.State)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// sameFile is false when the lock was deleted, with the whole testbed, while
// this process waited for it.
func sameFile(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(mine, now)
}
