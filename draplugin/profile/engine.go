package profile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/topolet/topolet/draplugin/sysfs"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/inuse"
)

// Users knows who has been given functions.
type Users interface {
	// Withhold sees to it that nobody is given a physical function, a part of it or one of
	// its virtual functions, until release is called, when it may have others. If somebody
	// has one already, holder says who, for people, and there is nothing to release.
	Withhold(ctx context.Context, address string) (release func(), holder string)
}

// Limits bound how long things take.
type Limits struct {
	// Write is how long the kernel has for one write.
	Write time.Duration
	// Wait is how long files may take to appear after it.
	Wait time.Duration
	// Retry is how long a function is left alone after an attempt has failed, unless its
	// settings change.
	Retry time.Duration
}

// pollInterval is the time between two looks at what is waited for.
const pollInterval = 20 * time.Millisecond

// Engine brings the functions of a machine to what profiles want. It is for one goroutine.
type Engine struct {
	root     fs.FS
	guard    *sysfs.Guard
	users    Users
	limits   Limits
	profiles []Profile
	states   []State
	save     Save
	failed   map[string]failure
}

// failure is a failed attempt.
type failure struct {
	// now is what it has left.
	now, want Settings
	at        time.Time
	result    Result
}

// New returns an engine that reads the machine below a root, as [topology.OpenRoot] opens
// it, and writes by the writer. The states are those that were saved last.
func New(root fs.FS, w sysfs.Writer, users Users, limits Limits, profiles []Profile, states []State, save Save) *Engine {
	return &Engine{
		root: root, guard: sysfs.NewGuard(w, limits.Write), users: users, limits: limits,
		profiles: profiles, states: slices.Clone(states), save: save, failed: map[string]failure{},
	}
}

// Apply does what there is to do on a machine, function by function. Where all is as it
// should be, nothing is written. After a result that is Changed or Restored, there may be
// other functions than the machine has.
func (e *Engine) Apply(ctx context.Context, m *topology.Machine) []Result {
	h := device.NewHost(e.root, m)
	var results []Result
	for _, p := range Plans(h, e.profiles, e.states) {
		results = append(results, e.apply(ctx, p))
	}
	return results
}

func (e *Engine) apply(ctx context.Context, p Plan) Result {
	r := Result{Address: p.Address, Family: p.Family, Profile: p.Profile, Outcome: Failed}
	if p.Err != nil {
		r.Err = p.Err
		return r
	}
	if len(p.Writes) == 0 {
		delete(e.failed, p.Address)
		return e.settle(p, r, Applied)
	}
	if stuck := e.guard.Stuck(p.Address); stuck != nil {
		r.Err = stuck
		return r
	}
	if last, ok := e.failed[p.Address]; ok && last.holds(p, e.limits.Retry) {
		return last.result
	}
	release, holder := e.hold(ctx, p)
	if holder != "" {
		r.Outcome, r.Holder = Pending, holder
		return r
	}
	defer release()
	before := slices.Clone(e.states)
	if err := e.remember(p); err != nil {
		r.Err = err
		return r
	}
	if err := e.run(ctx, p); err != nil {
		r.Err = errors.Join(err, e.rollBack(ctx, p, before, err))
		e.failed[p.Address] = failure{p.settings.read(p.function, p.want), p.want, time.Now(), r}
		return r
	}
	delete(e.failed, p.Address)
	return e.settle(p, r, Changed)
}

// holds reports whether there is no use in another attempt yet.
func (f failure) holds(p Plan, retry time.Duration) bool {
	if _, stuck := errors.AsType[*sysfs.StuckError](f.result.Err); stuck {
		return false // It is answered by now.
	}
	return time.Since(f.at) < retry && maps.Equal(f.now, p.now) && maps.Equal(f.want, p.want)
}

// settle ends the story of a function that is as it should be.
func (e *Engine) settle(p Plan, r Result, outcome Outcome) Result {
	r.Outcome = outcome
	if p.Profile != "" {
		return r
	}
	r.Outcome = Restored
	rest := slices.DeleteFunc(slices.Clone(e.states), func(s State) bool { return s.Address == p.Address })
	if err := e.save(rest); err != nil {
		r.Outcome, r.Err = Failed, fmt.Errorf("%s is restored: saving that: %w", p.Address, err)
		return r
	}
	e.states = rest
	return r
}

// hold keeps a function from being used, unless somebody uses it.
func (e *Engine) hold(ctx context.Context, p Plan) (release func(), holder string) {
	if holder = p.settings.busy(p.function); holder != "" {
		return nil, holder
	}
	holder, err := inuse.Of(p.function.Host).Function(p.function.PCIFunction)
	if err != nil {
		return nil, "perhaps the host itself: " + err.Error()
	}
	if holder != "" {
		return nil, "the host itself: " + holder
	}
	return e.users.Withhold(ctx, p.Address)
}

// remember saves what a function is like, as far as that is not known from before.
func (e *Engine) remember(p Plan) error {
	boot, ok := p.function.Read(bootIDFile)
	if !ok || boot == "" {
		return fmt.Errorf("%s: /%s cannot be read: nothing that is written could be restored", p.Address, bootIDFile)
	}
	// What another run of the machine was like is of no use.
	states := slices.DeleteFunc(slices.Clone(e.states), func(s State) bool { return s.BootID != boot })
	i := slices.IndexFunc(states, func(s State) bool { return s.Address == p.Address })
	if i < 0 {
		i = len(states)
		states = append(states, State{BootID: boot, Address: p.Address, Family: p.Family})
	}
	isNew := states[i].Before == nil
	first := maps.Clone(p.now)
	// What has appeared since is topolet's own doing.
	maps.DeleteFunc(first, func(name, _ string) bool { return !isNew && p.settings.appears(name) })
	maps.Copy(first, states[i].Before)
	if maps.Equal(first, states[i].Before) {
		return nil
	}
	states[i].Before = first
	slices.SortFunc(states, func(a, b State) int { return cmp.Compare(a.Address, b.Address) })
	if err := e.save(states); err != nil {
		return fmt.Errorf("%s stays as it is: saving that: %w", p.Address, err)
	}
	e.states = states
	return nil
}

// run makes the writes of a plan and sees that they had their effect.
func (e *Engine) run(ctx context.Context, p Plan) error {
	for _, w := range p.Writes {
		err := e.guard.Write(ctx, p.Address, w.File, w.Data)
		if failed, ok := errors.AsType[*sysfs.WriteError](err); ok {
			failed.Remedy = cmp.Or(p.settings.explain(p.function, w, failed.Err), failed.Remedy)
		}
		if err != nil {
			return err
		}
		if name := path.Base(w.File); name == "bind" || name == "unbind" {
			continue // They can only be written.
		}
		want := w.Data
		if want == nothing {
			want = ""
		}
		if got, ok := p.function.Read(w.File); !ok || !same(got, want) {
			return &MismatchError{p.Address, w.File, want, got}
		}
	}
	if err := e.wait(ctx, p); err != nil {
		return err
	}
	now := p.settings.read(p.function, p.want)
	if name, differs := now.differs(p.want); differs {
		return &MismatchError{p.Address, p.settings.file(p.function, name), p.want[name], now[name]}
	}
	return nil
}

// nothing is what is written to empty a setting: of an empty write, the kernel does not tell
// the driver.
const nothing = "\n"

// rollBack brings a function back to where it was before a plan, and the saved states too.
// While the kernel does not answer, it cannot be.
func (e *Engine) rollBack(ctx context.Context, p Plan, states []State, cause error) error {
	if _, stuck := errors.AsType[*sysfs.StuckError](cause); stuck {
		return nil
	}
	back := p
	back.want = p.now
	back.now = p.settings.read(p.function, back.want)
	if _, differs := back.now.differs(back.want); differs {
		back.Writes = p.settings.writes(p.function, back.now, back.want)
		// Whoever called this off wants it undone all the more.
		if err := e.run(context.WithoutCancel(ctx), back); err != nil {
			return fmt.Errorf("and it cannot be brought back to what it was: %w", err)
		}
	}
	if slices.EqualFunc(e.states, states, State.equal) {
		return nil
	}
	if err := e.save(states); err != nil {
		return fmt.Errorf("saving that it is as before: %w", err)
	}
	e.states = states
	return nil
}

// wait waits until all is there that follows from the settings.
func (e *Engine) wait(ctx context.Context, p Plan) error {
	end := time.Now().Add(e.limits.Wait)
	for {
		missing := p.settings.missing(p.function, p.want)
		if missing == "" {
			return nil
		}
		if time.Now().After(end) {
			return &WaitError{p.Address, missing, e.limits.Wait}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: waiting for /%s: %w", p.Address, missing, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}
