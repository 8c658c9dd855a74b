package harness

import (
	"os/exec"
	"syscall"
	"time"
)

// interruptGrace is how long an interrupted command has to put things in order.
const interruptGrace = 30 * time.Second

// interruptGroup makes the end of the command's context an interrupt for the
// command and for what it started: `go run` would otherwise be killed and leave
// its program running. In a group of its own the command does not get a
// terminal's Ctrl-C, so that taking down is not cut short by the one that asked
// for it.
func interruptGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = interruptGrace
}
