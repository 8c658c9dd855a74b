package rebind

// State is what there is to know of a function that was given to a vfio driver, in order
// to take it back.
type State struct {
	// BootID is the kernel's (/proc/sys/kernel/random/boot_id): what it says of the
	// function is true until the machine starts again.
	BootID string `json:"bootID"`
	// Address is the function's, as the kernel prints it.
	Address string `json:"address"`
	// Before is how it was, After is how it is with a claim. They are equal where nothing
	// had to be done.
	Before Binding `json:"before"`
	After  Binding `json:"after"`
	Step   Step    `json:"step"`
}

// Binding is what decides on the driver of a function.
type Binding struct {
	// Driver is the driver that is bound, or empty.
	Driver string `json:"driver,omitempty"`
	// Override is the only driver that may be bound (driver_override), or empty.
	Override string `json:"override,omitempty"`
}

// Step is how far a function has come.
type Step string

// The steps.
const (
	// Moving functions are anywhere between Before and After, on the way to either.
	Moving Step = "moving"
	// Given functions are at After.
	Given Step = "given"
	// Done means that there is nothing to be restored any more; the state can go.
	Done Step = "done"
)

// Save keeps a state where a crash does not reach it. If it fails, nothing that depends on
// it is done.
type Save func(State) error

// foreign reports whether somebody else has changed the binding, as far as one can tell:
// between Before and After, a function has no driver for a while, and its old driver is
// bound again by an override.
func (s State) foreign(now Binding) bool {
	ours := now.Driver == s.Before.Driver || now.Driver == s.After.Driver || now.Driver == "" && s.Step == Moving
	switch now.Override {
	case s.Before.Override, s.After.Override, s.Before.Driver:
		return !ours
	}
	return true
}
