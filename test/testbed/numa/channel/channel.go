// Package channel is how the host looks and acts inside of the machine: a
// small HTTP server in the guest, and its client.
//
//	GET  /files/PATH  the content of a file; of a folder, its entries as JSON
//	PUT  /files/PATH  writes a file in one piece; a new one can be run
//	POST /exec        runs a program: Command in, Result out
//	POST /kill        sends a signal to a component or a process: Kill in
//
// Paths are absolute and resolved by the guest's kernel, so sysfs, procfs and
// cgroup files work like others. The status tells what went wrong: 404 when
// PATH does not exist, 409 for any other error of the guest's kernel, with its
// words and the error's name as the text, 400 for a request that makes no
// sense, and 413 for what is too large.
//
// Who can connect is root in the guest. On the host that is every local user.
package channel

import "time"

// maxFile is the largest file that is read or written, in bytes.
const maxFile = 256 << 20

// maxOutput is how much of each output of a program is kept, in bytes.
const maxOutput = 16 << 20

// defaultTimeout ends a program whose caller named no limit.
const defaultTimeout = time.Minute

// Entry is one entry of a folder.
type Entry struct {
	Name string `json:"name"`
	// Dir is true for a folder and for a link to one.
	Dir bool `json:"dir,omitempty"`
	// Link is the target of a symbolic link, as it is written there.
	Link string `json:"link,omitempty"`
}

// Command is a program to run.
type Command struct {
	// Argv is the program, by its path or as found on the PATH, and its
	// arguments.
	Argv  []string `json:"argv"`
	Stdin string   `json:"stdin,omitempty"`
	// TimeoutSeconds ends the program and what it started; zero means a minute.
	TimeoutSeconds float64 `json:"timeoutSeconds,omitempty"`
}

// Result is what became of a Command.
type Result struct {
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	// ExitCode is 128 and the signal's number for a program that a signal ended.
	ExitCode int `json:"exitCode"`
	// TimedOut is true for a program that was ended at its limit.
	TimedOut bool `json:"timedOut,omitempty"`
}

// Kill is a signal to send.
type Kill struct {
	// Component is containerd or kubelet. PID is used when it is empty.
	Component string `json:"component,omitempty"`
	PID       int    `json:"pid,omitempty"`
	// Signal is a name such as SIGKILL or KILL.
	Signal string `json:"signal"`
}
