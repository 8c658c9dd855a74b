package profile

import "maps"

// bootIDFile is the kernel's name of this run of the machine.
const bootIDFile = "proc/sys/kernel/random/boot_id"

// State is what a function was like before topolet changed it.
type State struct {
	// BootID is the kernel's (/proc/sys/kernel/random/boot_id). Settings do not outlive the
	// machine's run, so after that there is nothing to restore.
	BootID string `json:"bootID"`
	// Address and Family are as in [Plan].
	Address string `json:"address"`
	Family  string `json:"family"`
	// Before has all settings that were changed since, or were lost by that.
	Before Settings `json:"before"`
}

func (s State) equal(other State) bool {
	return s.BootID == other.BootID && s.Address == other.Address && s.Family == other.Family && maps.Equal(s.Before, other.Before)
}

// Save keeps all states, in place of those kept before, where a crash does not reach them.
// If it fails, nothing that depends on it is done.
type Save func([]State) error
