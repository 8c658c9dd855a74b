package rebind

import (
	"fmt"
	"strings"
	"time"

	"github.com/topolet/topolet/draplugin/sysfs"
)

// RefusedError says why a function is not given to a vfio driver. Nothing was written.
type RefusedError struct {
	Address, Reason, Remedy string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s cannot be given to vfio: %s: %s", e.Address, e.Reason, e.Remedy)
}

// ModuleError says that a driver is not there to be bound.
type ModuleError struct {
	Address, Driver string
}

// Module is the kernel module that has the driver.
func (e *ModuleError) Module() string {
	switch strings.TrimSuffix(e.Driver, "vf") {
	case "dh895xcc", "c6xx", "c3xxx", "c4xxx", "d15xx", "4xxx", "420xx", "6xxx":
		return "qat_" + e.Driver
	}
	return e.Driver
}

func (e *ModuleError) Error() string {
	return fmt.Sprintf("%s: the driver %s is not loaded: run modprobe %s on the host, and see that it is loaded at boot", e.Address, e.Driver, e.Module())
}

// WriteError is a write that the kernel answered with an error.
type WriteError = sysfs.WriteError

// StuckError is a write that the kernel has not answered: it waits for a process that has
// the function open.
type StuckError = sysfs.StuckError

// WaitError is what has not appeared after a driver was bound.
type WaitError struct {
	Address, Missing string
	Limit            time.Duration
	// Err is set where the wait was not over but called off.
	Err error
}

func (e *WaitError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: waiting for /%s: %v", e.Address, e.Missing, e.Err)
	}
	return fmt.Sprintf("%s: /%s has not appeared within %s: see the kernel's log", e.Address, e.Missing, e.Limit)
}

func (e *WaitError) Unwrap() error { return e.Err }

// ChangedError says that somebody else has changed the binding of a function since it was
// given. It is left to them: the state is done.
type ChangedError struct {
	State State
	// Now is what was found; Gone says that there is no such function any more.
	Now  Binding
	Gone bool
}

func (e *ChangedError) Error() string {
	if e.Gone {
		return fmt.Sprintf("%s is gone: nothing is restored", e.State.Address)
	}
	return fmt.Sprintf("%s has %s, which is not topolet's doing: it is left so, and not given back to %s", e.State.Address, e.Now, e.State.Before)
}

// String prints the binding for people.
func (b Binding) String() string {
	text := "no driver"
	if b.Driver != "" {
		text = "the driver " + b.Driver
	}
	if b.Override != "" {
		text += " (override " + b.Override + ")"
	}
	return text
}
