package profile

import (
	"fmt"
	"time"
)

// Result says how it went with one function.
type Result struct {
	// Address, Family and Profile are as in [Plan].
	Address, Family, Profile string
	Outcome                  Outcome
	// Holder uses the function, if the outcome is Pending.
	Holder string
	// Err is set if the outcome is Failed: of the types of this package or of
	// [github.com/topolet/topolet/draplugin/sysfs].
	Err error
}

// Outcome is one of a closed list.
type Outcome string

// The outcomes.
const (
	// Applied functions are as they should be: nothing was written.
	Applied Outcome = "Applied"
	// Changed functions were brought to it.
	Changed Outcome = "Changed"
	// Pending functions are in use. Nothing was written.
	Pending Outcome = "Pending"
	// Failed functions are as they were before, unless the error says otherwise.
	Failed Outcome = "Failed"
	// Restored functions have no profile any more, and are as they were before they had one.
	Restored Outcome = "Restored"
)

// String tells people.
func (r Result) String() string {
	text := fmt.Sprintf("%s: %s", r.Address, r.Outcome)
	switch {
	case r.Err != nil:
		text += ": " + r.Err.Error()
	case r.Holder != "":
		text += ": " + r.Holder
	}
	return text
}

// UnfitError says why a function cannot be what a profile wants. Nothing was written.
type UnfitError struct {
	Address string
	// File is where it says so.
	File           string
	Reason, Remedy string
}

func (e *UnfitError) Error() string {
	return fmt.Sprintf("%s: %s (/%s): %s", e.Address, e.Reason, e.File, e.Remedy)
}

// ConflictError says that a function matches several profiles. Nothing was written.
type ConflictError struct {
	Address string
	// First and Second are the profiles' names.
	First, Second string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s matches both %s and %s: write their matches so that it is in one of them", e.Address, e.First, e.Second)
}

// MismatchError says that a setting has another value than was written.
type MismatchError struct {
	Address, File, Want, Got string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: /%s is %q, although %q was written without an error: see the kernel's log", e.Address, e.File, e.Got, e.Want)
}

// WaitError says what has not appeared.
type WaitError struct {
	Address, Missing string
	Limit            time.Duration
}

func (e *WaitError) Error() string {
	return fmt.Sprintf("%s: /%s has not appeared within %s: see the kernel's log", e.Address, e.Missing, e.Limit)
}
