package fpgaprogram

import (
	"fmt"
	"path"
	"path/filepath"

	cdi "tags.cncf.io/container-device-interface/specs-go"

	"github.com/topolet/topolet/topology/device/fpga"
	"github.com/topolet/topolet/topology/device/fpga/bitstream"
)

// Command is the first argument of a program that is run as the hook; those of
// [Job.Arguments] follow.
const Command = "program-fpga"

// timeout is how many seconds the runtime waits for the hook. The kubelet waits 120 s for
// the runtime.
const timeout = 110

// Job is a port that shall have a function.
type Job struct {
	// Device is the name of the port's device. Unlike the kernel's names it is the same
	// whatever was plugged in or bound since.
	Device string
	// AFUID is the function, in the form of [bitstream.ID].
	AFUID string
	// StateDir is the folder in which hooks of a card keep out of each other's way.
	StateDir string
	// Folder is the path of that of the programs; empty where the node has none any more.
	Folder string
}

// Hook has the program, by its path on the host, do the job in the runtime's own namespaces
// (OCI runtime specification, config, createRuntime hooks).
func (j Job) Hook(program string) *cdi.Hook {
	seconds := timeout
	return &cdi.Hook{
		HookName: "createRuntime", Path: program, Timeout: &seconds,
		Args: append([]string{path.Base(program), Command}, j.Arguments()...),
	}
}

// Arguments are those from which [ParseJob] makes the job again.
func (j Job) Arguments() []string { return []string{j.Device, j.AFUID, j.StateDir, j.Folder} }

// ParseJob reads arguments. They come from a file that anyone may have written who can write
// CDI specs.
func ParseJob(arguments []string) (Job, error) {
	const want = 4
	if len(arguments) != want {
		return Job{}, fmt.Errorf("%d arguments in place of a device, a function, a state folder and a folder of programs", len(arguments))
	}
	j := Job{Device: arguments[0], AFUID: arguments[1], StateDir: arguments[2], Folder: arguments[3]}
	if _, ok := fpga.PortNumber(j.Device); !ok {
		return Job{}, fmt.Errorf("argument %q is not the name of a port of an FPGA", j.Device)
	}
	if id, ok := bitstream.ID(j.AFUID); !ok || id != j.AFUID {
		return Job{}, fmt.Errorf("argument %q is not the ID of a function: use 32 hexadecimal digits in lower case", j.AFUID)
	}
	for _, dir := range []string{j.StateDir, j.Folder} {
		if dir != "" && (!filepath.IsAbs(dir) || filepath.Clean(dir) != dir) {
			return Job{}, fmt.Errorf("argument %q is not an absolute path", dir)
		}
	}
	if j.StateDir == "" {
		return Job{}, fmt.Errorf("argument %q is not an absolute path", j.StateDir)
	}
	return j, nil
}
