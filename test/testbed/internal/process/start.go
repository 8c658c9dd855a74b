package process

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Spec says how a component is started. Two specifications with the same Hash
// start the same thing.
type Spec struct {
	// Name is the component's name and the base name of Path.
	Name string
	// Path is the program; a link is resolved when it is hashed.
	Path string
	Args []string
	// Env is added to a minimal environment, as NAME=VALUE.
	Env []string
	// Inputs are files that the program reads at start: a component whose
	// inputs changed has to be started again.
	Inputs []string
	// Binds are SOURCE:TARGET pairs of folders, seen by this component only.
	Binds []string
}

// Hash identifies the specification, including the content of its inputs.
func (s Spec) Hash() (string, error) {
	h := sha256.New()
	program, err := filepath.EvalSymlinks(s.Path)
	if err != nil {
		return "", fmt.Errorf("find the program of %s: %w", s.Name, err)
	}
	fmt.Fprintf(h, "%q %q %q %q\n", program, s.Args, s.Env, s.Binds)
	for _, path := range s.Inputs {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("read the configuration of %s: %w", s.Name, err)
		}
		_, err = io.Copy(h, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return "", fmt.Errorf("read the configuration of %s: %w", s.Name, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// Starter starts components of one testbed.
type Starter struct {
	State string
	// Launch is the program that enters the cgroup and the mount namespace
	// and then becomes the component.
	Launch string
	// Cgroup is what the components enter.
	Cgroup string
	// Logs is the folder that receives one NAME.log per component.
	Logs string
	// Path is the PATH of the components.
	Path string
}

// LogFile is where the component's output goes.
func (s Starter) LogFile(name string) string { return filepath.Join(s.Logs, name+".log") }

// Start starts the component detached from the caller: it goes on after the
// caller's end, in a session of its own, with its output appended to its log.
func (s Starter) Start(spec Spec) (Process, error) {
	cmd, hash, err := s.Launched(spec)
	if err != nil {
		return Process{}, err
	}
	p := Process{PID: cmd.Process.Pid, Component: spec.Name, Spec: hash, Args: cmd.Args}
	p.Start, _ = startTime(p.PID)
	// While the caller lives it is the parent, and has to take note of the end.
	go func() { _ = cmd.Wait() }()
	return p, nil
}

// Launched is Start for a caller that takes note of the end by itself.
func (s Starter) Launched(spec Spec) (cmd *exec.Cmd, hash string, err error) {
	if hash, err = spec.Hash(); err != nil {
		return nil, "", err
	}
	out, err := os.OpenFile(s.LogFile(spec.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, "", fmt.Errorf("open the log of %s: %w", spec.Name, err)
	}
	defer out.Close()

	args := []string{"-cgroup", s.Cgroup, "-share", s.State}
	for _, b := range spec.Binds {
		args = append(args, "-bind", b)
	}
	args = append(args, "--", spec.Path)
	cmd = exec.Command(s.Launch, append(args, spec.Args...)...) //nolint:noctx // a component outlives every context
	cmd.Dir = s.State
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append([]string{
		"PATH=" + s.Path,
		"HOME=" + s.State,
		envState + "=" + s.State,
		envComponent + "=" + spec.Name,
		envSpec + "=" + hash,
	}, spec.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("start %s: %w", spec.Name, err)
	}
	return cmd, hash, nil
}

// MarkEnv is the environment by which a helper that runs only for a moment is
// found should its parent be killed.
func MarkEnv(state string) []string { return []string{envState + "=" + state} }
