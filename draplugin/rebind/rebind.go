package rebind

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/topolet/topolet/draplugin/sysfs"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// Limits bound how long things take.
type Limits struct {
	// Write is how long the kernel has for one write: drivers start whole devices in it.
	Write time.Duration
	// Wait is how long files may take to appear after it.
	Wait time.Duration
}

// pollInterval is the time between two looks at what is waited for.
const pollInterval = 20 * time.Millisecond

// Rebinder changes the drivers of PCI functions. It can be used from several goroutines,
// but not for the same function: claims exclude each other long before.
type Rebinder struct {
	root   fs.FS
	guard  *sysfs.Guard
	limits Limits
}

// New returns a rebinder that reads the machine below a root, as [topology.OpenRoot] opens
// it, and writes by the writer.
func New(root fs.FS, w sysfs.Writer, limits Limits) *Rebinder {
	return &Rebinder{
		root:   root,
		guard:  sysfs.NewGuard(w, limits.Write),
		limits: limits,
	}
}

// ToVFIO gives a function to its vfio driver. That nobody uses it the caller has seen to.
//
// Before the first write, save is called with the state that [Rebinder.Restore] needs, and
// again when the function is given. If giving fails, all is put back, and save is called
// with a state that is done; if that fails too, both errors are returned, and Restore is to
// be tried later, as after a [StuckError] or a crash. So long ToVFIO is not to be called
// again: it would take for the function's own what is only half done.
//
// Where a vfio driver is bound already, nothing is written or saved, and the state that is
// returned restores nothing.
func (r *Rebinder) ToVFIO(ctx context.Context, address string, save Save) (State, error) {
	f, err := r.function(address)
	if err != nil {
		return State{}, err
	}
	boot, ok := f.Read(bootIDFile)
	if !ok || boot == "" {
		return State{}, fmt.Errorf("%s: /%s cannot be read: nothing that is written could be restored", address, bootIDFile)
	}
	if !f.there() {
		return State{}, &RefusedError{Address: address, Reason: "there is no such function", Remedy: "see what lspci lists"}
	}
	if stuck := r.Stuck(address); stuck != nil {
		return State{}, stuck
	}
	now := f.binding()
	driver := f.vfioDriver()
	if err := f.refuse(driver); err != nil {
		return State{}, err
	}
	s := State{BootID: boot, Address: f.address, Before: now, After: Binding{driver, driver}, Step: Moving}
	if device.IsVFIODriver(now.Driver) {
		s.After, s.Step = now, Given
		return s, r.wait(ctx, f, now.Driver)
	}
	if err := save(s); err != nil {
		return s, fmt.Errorf("%s is not given to %s: saving its state: %w", address, driver, err)
	}
	err = r.give(ctx, f, s)
	if err == nil {
		given := s
		given.Step = Given
		if err = save(given); err == nil {
			return given, nil
		}
		err = fmt.Errorf("%s is taken back from %s: saving its state: %w", address, driver, err)
	}
	if _, stuck := errors.AsType[*StuckError](err); stuck {
		return s, err
	}
	// Whoever called this off wants it undone all the more.
	s, failed := r.putBack(context.WithoutCancel(ctx), f, s, false, save)
	return s, errors.Join(err, failed)
}

// give binds the function to the driver.
func (r *Rebinder) give(ctx context.Context, f function, s State) error {
	if err := r.override(ctx, f, s.After.Override); err != nil {
		return err
	}
	if s.Before.Driver != "" {
		if err := r.unbind(ctx, f, s.Before.Driver); err != nil {
			return err
		}
	}
	return r.bind(ctx, f, s.After.Driver)
}

// Restore gives a function back to the driver that it had, with the override that it had.
// reset has the function reset in between, where it can be. save is called whenever the
// step changes, at last with a state that is done.
//
// It can be called with the last state that was saved at any time: after a failed ToVFIO or
// Restore, and by a process that was not there. After the machine has started again, and
// where the function is as it was, there is nothing to do. What somebody else has made of it
// is respected: that is a [ChangedError], and the state is done. So it is when only the
// reset failed. After any other error it is to be tried again.
func (r *Rebinder) Restore(ctx context.Context, s State, reset bool, save Save) error {
	if s.Step == Done {
		return nil
	}
	f, err := r.function(s.Address)
	if err != nil {
		return err
	}
	boot, ok := f.Read(bootIDFile)
	if !ok || boot == "" || s.BootID == "" {
		return fmt.Errorf("%s is not restored: it is not known whether the machine has started again since: state of boot %q, now %q", s.Address, s.BootID, boot)
	}
	if stuck := r.Stuck(s.Address); stuck != nil {
		return stuck
	}
	if boot != s.BootID || s.Before == s.After {
		_, err = done(s, save)
	} else {
		_, err = r.putBack(ctx, f, s, reset, save)
	}
	return err
}

// done saves that there is nothing left to restore.
func done(s State, save Save) (State, error) {
	s.Step = Done
	if err := save(s); err != nil {
		return s, fmt.Errorf("%s is restored: saving that: %w", s.Address, err)
	}
	return s, nil
}

// putBack undoes what was done of giving, from wherever it stands.
func (r *Rebinder) putBack(ctx context.Context, f function, s State, reset bool, save Save) (State, error) {
	now := f.binding()
	if gone := !f.there(); gone || s.foreign(now) {
		finished, err := done(s, save)
		return finished, errors.Join(&ChangedError{State: s, Now: now, Gone: gone}, err)
	}
	if now == s.Before {
		return done(s, save)
	}
	if s.Step != Moving {
		s.Step = Moving
		if err := save(s); err != nil {
			return s, fmt.Errorf("%s is not restored: saving its state: %w", s.Address, err)
		}
	}
	left, err := r.takeBack(ctx, f, s.Before, now.Driver, reset)
	if err == nil {
		err = r.override(ctx, f, s.Before.Override)
	}
	if err == nil {
		s, err = done(s, save)
	}
	return s, errors.Join(left, err)
}

// takeBack takes a function from the driver that it has and gives it to that which it had.
// left is why the function still has in it what its user has left there.
func (r *Rebinder) takeBack(ctx context.Context, f function, before Binding, driver string, reset bool) (left, err error) {
	if driver != "" && driver == before.Driver {
		return nil, nil
	}
	if driver != "" {
		if err := r.unbind(ctx, f, driver); err != nil {
			return nil, err
		}
	}
	if reset {
		left = r.reset(ctx, f)
	}
	if before.Driver == "" {
		return left, nil
	}
	// Without an override, a virtual function may be bound to no driver at all
	// (sriov_drivers_autoprobe of the physical one).
	if err := r.override(ctx, f, before.Driver); err != nil {
		return left, err
	}
	return left, r.bind(ctx, f, before.Driver)
}

// Stuck returns the write for a function that the kernel has not answered yet, a
// [StuckError], or nil. So long, nothing can be done with the function.
func (r *Rebinder) Stuck(address string) error {
	stuck := r.guard.Stuck(address)
	if stuck == nil {
		return nil
	}
	return stuck
}

// function returns a function by its address, which may come from a file.
func (r *Rebinder) function(address string) (function, error) {
	a, err := topology.ParsePCIAddress(address)
	if err == nil && a.String() != address {
		err = fmt.Errorf("%q is not how the kernel prints the PCI address %s", address, a)
	}
	return function{topology.NewFiles(r.root), address}, err
}

// override sets the only driver that may be bound, or with nothing takes that back.
func (r *Rebinder) override(ctx context.Context, f function, driver string) error {
	if f.binding().Override == driver {
		return nil
	}
	if driver == "" {
		driver = "\n" // an empty write does not reach the kernel
	}
	return r.guard.Write(ctx, f.address, f.dir()+"driver_override", driver)
}

func (r *Rebinder) unbind(ctx context.Context, f function, driver string) error {
	err := r.guard.Write(ctx, f.address, driversDir+driver+"/unbind", f.address)
	if errors.Is(err, syscall.ENODEV) || errors.Is(err, fs.ErrNotExist) {
		return nil // it is not bound to it, which is what was wanted
	}
	return err
}

// bind asks the one driver: drivers_probe would say nothing of a failure.
func (r *Rebinder) bind(ctx context.Context, f function, driver string) error {
	err := r.guard.Write(ctx, f.address, driversDir+driver+"/bind", f.address)
	if errors.Is(err, fs.ErrNotExist) {
		return &ModuleError{Address: f.address, Driver: driver}
	}
	if err != nil {
		return err
	}
	return r.wait(ctx, f, driver)
}

// reset has the function forget what its user has left in it.
func (r *Rebinder) reset(ctx context.Context, f function) error {
	if !f.Exists(f.dir() + "reset") {
		return nil
	}
	return r.guard.Write(ctx, f.address, f.dir()+"reset", "1")
}

// wait waits until all is there that follows from a driver being bound.
func (r *Rebinder) wait(ctx context.Context, f function, driver string) error {
	end := time.NewTimer(r.limits.Wait)
	defer end.Stop()
	for {
		missing := f.missing(driver)
		if missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return &WaitError{Address: f.address, Missing: missing, Limit: r.limits.Wait, Err: ctx.Err()}
		case <-end.C:
			return &WaitError{Address: f.address, Missing: missing, Limit: r.limits.Wait}
		case <-time.After(pollInterval):
		}
	}
}
