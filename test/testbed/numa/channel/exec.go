package channel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// pipeGrace is how long the outputs of a program are read after its end: what
// it left running may hold them open for ever.
const pipeGrace = 500 * time.Millisecond

func execute(w http.ResponseWriter, r *http.Request) error {
	var c Command
	if err := decode(r, &c); err != nil {
		return err
	}
	if len(c.Argv) == 0 {
		return callerError{errors.New("argv is empty: name a program")}
	}
	timeout := defaultTimeout
	if c.TimeoutSeconds > 0 {
		timeout = time.Duration(c.TimeoutSeconds * float64(time.Second))
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	result, err := run(ctx, c)
	if err != nil {
		return err
	}
	return answer(w, result)
}

func run(ctx context.Context, c Command) (Result, error) {
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	var stdout, stderr capped
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.Stdin), &stdout, &stderr
	cmd.Env, cmd.Dir = os.Environ(), "/"
	cmd.WaitDelay = pipeGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		return Result{}, fmt.Errorf("run %s: %w", c.Argv[0], err)
	}
	result := Result{Stdout: stdout.String(), Stderr: stderr.String(), ExitCode: cmd.ProcessState.ExitCode(), TimedOut: errors.Is(ctx.Err(), context.DeadlineExceeded)}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		result.ExitCode = 128 + int(status.Signal())
	}
	return result, nil
}

// capped keeps the first maxOutput bytes and says so when there were more.
type capped struct {
	bytes.Buffer
	cut bool
}

func (c *capped) Write(p []byte) (int, error) {
	if room := maxOutput - c.Len(); len(p) > room {
		c.cut = true
		c.Buffer.Write(p[:room])
	} else {
		c.Buffer.Write(p)
	}
	return len(p), nil
}

func (c *capped) String() string {
	if c.cut {
		return c.Buffer.String() + fmt.Sprintf("\n(cut after %d bytes)\n", maxOutput)
	}
	return c.Buffer.String()
}
