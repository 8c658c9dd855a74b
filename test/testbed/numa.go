package testbed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/action"
	"github.com/topolet/topolet/test/testbed/internal/binaries"
	"github.com/topolet/topolet/test/testbed/internal/component"
	"github.com/topolet/topolet/test/testbed/internal/host"
	"github.com/topolet/topolet/test/testbed/internal/images"
	"github.com/topolet/topolet/test/testbed/internal/process"
	"github.com/topolet/topolet/test/testbed/numa"
	"github.com/topolet/topolet/test/testbed/numa/channel"
	"github.com/topolet/topolet/test/testbed/numa/machine"
)

// DefaultNUMANode is the name of the NUMA machine's node when none is given.
const DefaultNUMANode = "topolet-numa"

// NUMAOptions say how the NUMA machine is to be. NUMAUp records them; a field
// with its zero value takes what was recorded before, or the default.
type NUMAOptions struct {
	// Layout is the name of one of NUMALayouts.
	Layout string
	// NodeName is the name of its node.
	NodeName string
	// Images are further images that its runtime has, by their full names, each of
	// the static program at the path. They are not recorded.
	Images map[string]string
}

// NUMALayouts lists the names of the machines there are.
func NUMALayouts() []string {
	var names []string
	for _, l := range machine.Layouts() {
		names = append(names, l.Name)
	}
	return names
}

// InstallNUMAPackages installs the distribution's packages that a NUMA machine
// needs. When all are there it does nothing.
func (t *Testbed) InstallNUMAPackages(ctx context.Context) error {
	return binaries.InstallMachinePackages(ctx, t.log)
}

// NUMAUp boots a virtual machine with many NUMA nodes as a second node of the
// running cluster, and returns when that is Ready.
func (t *Testbed) NUMAUp(ctx context.Context, o NUMAOptions) error {
	start := time.Now()
	return t.withLock(ctx, func(c *action.Context) error {
		if err := c.Healthy(ctx, component.APIServer); err != nil {
			return fmt.Errorf("the cluster that the machine would join does not answer: run `testbed up` first: %w", err)
		}
		r, err := t.numaRecord(ctx, o)
		if err != nil {
			return err
		}
		if c.Builder, err = t.builder(); err != nil {
			return err
		}
		c.Builder.Env = process.MarkEnv(t.layout.State)
		c.WithoutTopolet = t.options.WithoutTopolet
		m, err := numa.New(r, c)
		if err != nil {
			return err
		}
		for _, ref := range slices.Sorted(maps.Keys(o.Images)) {
			program := o.Images[ref]
			m.Images = append(m.Images, images.Image{Ref: ref, Program: program, Path: "/" + filepath.Base(program)})
		}
		if err := r.Save(t.layout); err != nil {
			return err
		}
		if err := m.Up(ctx); err != nil {
			return err
		}
		t.log.Printf("up in %.1fs: %s, console in %s/numa-console.log", time.Since(start).Seconds(), r.NodeName, t.layout.Logs())
		return nil
	})
}

// numaRecord lays the options over the record of an earlier NUMAUp, if any.
func (t *Testbed) numaRecord(ctx context.Context, o NUMAOptions) (numa.Record, error) {
	r, err := numa.Load(t.layout)
	if err == nil {
		if (o.Layout != "" && o.Layout != r.Layout) || (o.NodeName != "" && o.NodeName != r.NodeName) {
			return r, fmt.Errorf("the machine is %s with the node %s, which cannot change while it lives: run `testbed numa down` first", r.Layout, r.NodeName)
		}
		return r, nil
	}
	if !errors.Is(err, numa.ErrNone) {
		return r, err
	}
	if o.Layout == "" {
		o.Layout = machine.DefaultLayout
	}
	if o.NodeName == "" {
		o.NodeName = DefaultNUMANode
	}
	if err := (Options{NodeName: o.NodeName}).Validate(); err != nil {
		return r, err
	}
	r = numa.Record{Layout: o.Layout, NodeName: o.NodeName}
	if r.Network, err = choosePodCIDR(host.Reaches); err != nil {
		return r, err
	}
	if r.KubeletPort, err = anyFreePort(ctx); err != nil {
		return r, err
	}
	r.ChannelPort, err = anyFreePort(ctx)
	return r, err
}

// NUMADown ends the NUMA machine and removes its node from the cluster.
// Without a machine it does nothing.
func (t *Testbed) NUMADown(ctx context.Context) error {
	return t.withLock(ctx, func(c *action.Context) error {
		m, err := t.numaMachine(c)
		if errors.Is(err, numa.ErrNone) {
			t.log.Printf("there is no NUMA machine")
			return nil
		}
		if err != nil {
			return err
		}
		return m.Down(ctx)
	})
}

// NUMAReset cuts the NUMA machine's power and boots it again with its disk as
// it is. It returns when its node is Ready again.
func (t *Testbed) NUMAReset(ctx context.Context) error {
	return t.withMachine(ctx, func(m *numa.Machine) error { return m.Reset(ctx) })
}

// NUMAUnplug takes a PCI device out of the NUMA machine.
func (t *Testbed) NUMAUnplug(ctx context.Context, id string) error {
	return t.withMachine(ctx, func(m *numa.Machine) error { return m.Unplug(ctx, id) })
}

// NUMAPlug puts it back.
func (t *Testbed) NUMAPlug(ctx context.Context, id string) error {
	return t.withMachine(ctx, func(m *numa.Machine) error { return m.Plug(ctx, id) })
}

// NUMAExec runs a program in the NUMA machine.
func (t *Testbed) NUMAExec(ctx context.Context, command channel.Command) (channel.Result, error) {
	ch, err := t.numaChannel()
	if err != nil {
		return channel.Result{}, err
	}
	return ch.Exec(ctx, command)
}

func (t *Testbed) numaChannel() (channel.Client, error) {
	r, err := numa.Load(t.layout)
	return channel.Client{URL: r.URL()}, err
}

// NUMAStatus is what is there of a NUMA machine at one moment.
type NUMAStatus struct {
	Layout  string    `json:"layout"`
	Node    string    `json:"node"`
	Channel string    `json:"channel"`
	PID     int       `json:"pid,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	// Ready is true when the machine runs and its node is Ready.
	Ready bool `json:"ready"`
	// Problem says what is wrong when it is not.
	Problem string `json:"problem,omitempty"`
	Console string `json:"console"`
}

// NUMAStatus looks at the machine once.
func (t *Testbed) NUMAStatus(ctx context.Context) (NUMAStatus, error) {
	c, err := t.recorded()
	if err != nil {
		return NUMAStatus{}, err
	}
	m, err := t.numaMachine(c)
	if err != nil {
		return NUMAStatus{}, err
	}
	s := NUMAStatus{Layout: m.Record.Layout, Node: m.Record.NodeName, Channel: m.Record.URL(), Console: t.layout.Logs() + "/numa-console.log"}
	p, runs, err := numa.Process(c)
	if err != nil {
		return s, err
	}
	if !runs {
		s.Problem = "the machine does not run"
		return s, nil
	}
	s.PID, s.Since = p.PID, p.Since()
	if _, err := m.Channel().BootID(ctx); err != nil {
		s.Problem = fmt.Sprint("the command channel: ", err)
	} else if err := m.Ready(ctx, s.Since); err != nil {
		s.Problem = err.Error()
	}
	s.Ready = s.Problem == ""
	return s, nil
}

func (t *Testbed) numaMachine(c *action.Context) (*numa.Machine, error) {
	r, err := numa.Load(t.layout)
	if err != nil {
		return nil, err
	}
	return numa.New(r, c)
}

func (t *Testbed) withMachine(ctx context.Context, do func(*numa.Machine) error) error {
	return t.withLock(ctx, func(c *action.Context) error {
		m, err := t.numaMachine(c)
		if err != nil {
			return err
		}
		return do(m)
	})
}

// withLock calls do with the recorded cluster while no other command changes it.
func (t *Testbed) withLock(ctx context.Context, do func(*action.Context) error) error {
	unlock, err := t.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := t.recorded()
	if err != nil {
		return err
	}
	return do(c)
}
