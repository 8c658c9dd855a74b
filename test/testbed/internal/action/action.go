// Package action is what `up` and `down` do, as two ordered lists of steps. A
// step looks first whether its work is done already: running a list again
// repairs what is missing and leaves the rest alone.
package action

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/api"
	"github.com/topolet/topolet/test/testbed/internal/binaries"
	"github.com/topolet/topolet/test/testbed/internal/component"
	"github.com/topolet/topolet/test/testbed/internal/layout"
	"github.com/topolet/topolet/test/testbed/internal/process"
	"github.com/topolet/topolet/test/testbed/internal/progress"
)

// Context is what the steps work on.
type Context struct {
	Layout  layout.Layout
	Cluster component.Cluster
	Builder binaries.Builder
	// WithoutTopolet leaves the topolet image alone.
	WithoutTopolet bool
	// TopoletTags are the build tags of topolet.
	TopoletTags []string
	Log         *progress.Log

	step *progress.Step
	// lives are the components' processes that were found or started, by name.
	lives map[string]process.Process
}

// Action is one step.
type Action struct {
	// Title is what a person reads while it runs.
	Title string
	// Run does it and returns what is worth telling about it, or nothing.
	Run func(ctx context.Context, c *Context) (detail string, err error)
}

// Up brings a cluster up.
func Up() []Action {
	return []Action{
		{"programs", findPrograms},
		{"host", prepareHost},
		{"certificates", makeCertificates},
		{"network", makeNetwork},
		{"configuration", writeConfiguration},
		{"etcd and API server started", startControlPlane},
		{"containerd", startContainerd},
		{"API server ready", waitForAPIServer},
		{"controller manager, scheduler and kubelet started", startRest},
		// Meanwhile the cluster comes to itself.
		{"images", importImages},
		{"node ready", waitForNode},
	}
}

// Down removes everything that a testbed may have left, whole or half.
func Down() []Action {
	return []Action{
		{"processes", killProcesses},
		{"mounts", removeMounts},
		{"network", removeNetwork},
		{"cgroups", removeCgroups},
		{"host", restoreHost},
		{"files", removeFiles},
	}
}

// Run runs the actions in order and stops at the first that fails.
func (c *Context) Run(ctx context.Context, actions []Action) error {
	for i, a := range actions {
		if err := c.run(ctx, i+1, len(actions), a); err != nil {
			return err
		}
	}
	return nil
}

// RunAll runs all actions, also after one failed, and returns all errors.
func (c *Context) RunAll(ctx context.Context, actions []Action) error {
	var errs []error
	for i, a := range actions {
		errs = append(errs, c.run(ctx, i+1, len(actions), a))
	}
	return errors.Join(errs...)
}

func (c *Context) run(ctx context.Context, k, n int, a Action) error {
	c.step = c.Log.Start(k, n, a.Title)
	detail, err := a.Run(ctx, c)
	if err != nil {
		c.step.Failed()
		return fmt.Errorf("%s: %w", a.Title, err)
	}
	c.step.Done(detail)
	return nil
}

// Finder finds the testbed's processes.
func (c *Context) Finder() process.Finder {
	return process.Finder{State: c.Layout.State, Cgroup: c.Layout.Cgroup()}
}

// Starter starts processes of the testbed.
func (c *Context) Starter() process.Starter {
	return process.Starter{
		State:  c.Layout.State,
		Launch: c.Layout.Program("launch"),
		Cgroup: c.Layout.SystemCgroup(),
		Logs:   c.Layout.Logs(),
		// The CNI plugins and the kubelet call tools of the host.
		Path: c.Layout.Bin() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
}

// Ensure makes a component run as it is specified: a component that runs with
// another specification is started again. It does not wait for it to be ready.
func (c *Context) Ensure(ctx context.Context, name string) (p process.Process, started bool, err error) {
	defer func() {
		if err == nil {
			c.remember(name, p)
		}
	}()
	spec, err := c.Cluster.Spec(name)
	if err != nil {
		return process.Process{}, false, err
	}
	hash, err := spec.Hash()
	if err != nil {
		return process.Process{}, false, err
	}
	p, runs, err := c.Finder().Component(name)
	if err != nil {
		return process.Process{}, false, err
	}
	if runs && p.Spec == hash {
		return p, false, nil
	}
	if runs {
		if err := p.Stop(ctx, StopGrace); err != nil {
			return process.Process{}, false, err
		}
	}
	p, err = c.Starter().Start(spec)
	return p, true, err
}

// StopGrace is how long a component gets to end by itself. All end at once but
// the API server, which would wait for its watchers to go away.
const StopGrace = 3 * time.Second

// ensureAll is Ensure for several, told in one line.
func (c *Context) ensureAll(ctx context.Context, names ...string) (string, error) {
	var running []string
	for _, name := range names {
		_, started, err := c.Ensure(ctx, name)
		if err != nil {
			return "", err
		}
		if !started {
			running = append(running, name)
		}
	}
	switch {
	case len(running) == len(names):
		return "running", nil
	case len(running) > 0:
		return "running before: " + strings.Join(running, ", "), nil
	}
	return "", nil
}

// Waiting says what the running step is waiting for.
func (c *Context) Waiting(format string, args ...any) { c.step.Waiting(format, args...) }

// Until waits for a condition of one component: ready returns nil when it is
// met and otherwise why not. The wait ends early when the component ends. Its
// error says what was waited for, why it was not met, and the end of the
// component's log.
func (c *Context) Until(ctx context.Context, name, what string, limit time.Duration, ready func(context.Context) error) error {
	deadline := time.Now().Add(limit)
	if c.step != nil {
		c.step.Waiting("%s", what)
	}
	const interval = 50 * time.Millisecond
	for checks := 0; ; checks++ {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for %s: %w: %w", what, ctx.Err(), err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s: %w%s", limit, what, err, c.logTail(name))
		}
		if checks%10 == 9 {
			runs, findErr := c.runs(name)
			if findErr != nil {
				return findErr
			}
			if !runs {
				return fmt.Errorf("%s ended while waiting for %s%s", name, what, c.logTail(name))
			}
		}
		time.Sleep(interval)
	}
}

func (c *Context) remember(name string, p process.Process) {
	if c.lives == nil {
		c.lives = map[string]process.Process{}
	}
	c.lives[name] = p
}

// runs tells whether a component runs. A process shows none of its marks while it becomes
// another program, which takes as long as the disk does; so one that is known is asked for
// by its pid and start time, which stay.
func (c *Context) runs(name string) (bool, error) {
	if p, known := c.lives[name]; known && p.Alive() {
		return true, nil
	}
	_, runs, err := c.Finder().Component(name)
	return runs, err
}

// logTail is the end of a component's log, for an error message.
func (c *Context) logTail(name string) string {
	file := c.Starter().LogFile(name)
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Sprintf("\n(no log: %v)", err)
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	lines = lines[max(0, len(lines)-20):]
	return fmt.Sprintf("\nthe end of %s:\n  %s", file, strings.Join(lines, "\n  "))
}

// Client speaks to the cluster's servers as its administrator.
func (c *Context) Client() (*api.Client, error) { return api.New(c.Layout.PKI(), "admin") }
