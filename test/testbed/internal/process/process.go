// Package process starts the testbed's daemons, finds them again and ends
// them.
//
// There are no pid files. Every daemon carries in its environment which
// testbed it belongs to, which component it is and which specification it was
// started from; /proc is read whenever somebody wants to know what runs. So
// nothing can be lost, stale or out of step: not after a crash, and not after
// the state folder is gone.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/test/testbed/internal/cgroup"
)

// The environment variables that mark a process, and are inherited by what it
// starts.
const (
	envState     = "TOPOLET_TESTBED_STATE"
	envComponent = "TOPOLET_TESTBED_COMPONENT"
	envSpec      = "TOPOLET_TESTBED_SPEC"
)

// Process is one life of one process: a pid alone may be given to another
// process at any time, a pid with its start time may not.
type Process struct {
	PID int
	// Start is the start time in clock ticks since boot.
	Start uint64
	// Component is the marker that was inherited or set; empty for a
	// container's processes, which are known by their cgroup alone.
	Component string
	// Spec is the hash of the specification it was started from.
	Spec string
	// Args is the command line.
	Args []string
}

// Name is the base name of the program.
func (p Process) Name() string {
	if len(p.Args) == 0 {
		return "?"
	}
	return filepath.Base(p.Args[0])
}

func (p Process) String() string { return fmt.Sprintf("%s (pid %d)", p.Name(), p.PID) }

// Since is when the process started, by the wall clock; zero when the host has
// no clock that counts from its boot.
func (p Process) Since() time.Time {
	var sinceBoot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &sinceBoot); err != nil {
		return time.Time{}
	}
	// USER_HZ is 100 on every architecture that Go runs on.
	started := time.Duration(float64(p.Start) * float64(10*time.Millisecond))
	return time.Now().Add(started - time.Duration(sinceBoot.Nano()))
}

// Finder knows the marks of one testbed's processes.
type Finder struct {
	// State is the state folder; processes whose environment names it are
	// the testbed's.
	State string
	// Cgroup is the testbed's cgroup; processes in it or below are the
	// testbed's. Empty to go by the environment alone.
	Cgroup string
}

// All lists every living process of the testbed, containers included.
func (f Finder) All() ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	var found []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if p, ok := f.read(pid); ok {
			found = append(found, p)
		}
	}
	return found, nil
}

// Component finds the living process of one component. ok is false when it
// does not run.
func (f Finder) Component(name string) (p Process, ok bool, err error) {
	all, err := f.All()
	if err != nil {
		return Process{}, false, err
	}
	p, ok = Pick(all, name)
	return p, ok, nil
}

// Pick selects the process that is the component itself, not one of those
// that it started and that inherited its mark.
func Pick(all []Process, component string) (Process, bool) {
	i := slices.IndexFunc(all, func(p Process) bool {
		return p.Component == component && (p.Name() == component || p.Name() == "launch")
	})
	if i < 0 {
		return Process{}, false
	}
	return all[i], true
}

// read describes pid if it is alive and the testbed's. A process that is gone
// half way is not alive.
func (f Finder) read(pid int) (Process, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	p := Process{PID: pid}
	environ := memory(dir, "environ")
	var state string
	for kv := range bytes.SplitSeq(environ, []byte{0}) {
		k, v, _ := strings.Cut(string(kv), "=")
		switch k {
		case envState:
			state = v
		case envComponent:
			p.Component = v
		case envSpec:
			p.Spec = v
		}
	}
	mine := f.State != "" && state == f.State
	if !mine {
		p.Component, p.Spec = "", ""
		if f.Cgroup != "" {
			groups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
			mine = cgroup.Contains(string(groups), f.Cgroup)
		}
	}
	if !mine {
		return Process{}, false
	}
	start, alive := startTime(pid)
	if !alive {
		return Process{}, false
	}
	p.Start = start
	cmdline := memory(dir, "cmdline")
	if s := strings.TrimRight(string(cmdline), "\x00"); s != "" {
		p.Args = strings.Split(s, "\x00")
	}
	return p, true
}

// memory reads environ or cmdline of the process in dir. A process that is
// becoming another program has neither for a moment (fs/proc/base.c,
// environ_read), and would be taken for a stranger's; so whatever has a program
// and says nothing is asked again.
func memory(dir, file string) []byte {
	const asks, pause = 40, 5 * time.Millisecond
	for range asks {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || len(data) > 0 {
			return data
		}
		// Neither a thread of the kernel nor a zombie has one.
		if _, err := os.Readlink(filepath.Join(dir, "exe")); err != nil {
			return nil
		}
		time.Sleep(pause)
	}
	return nil
}

// startTime reads field 22 of /proc/PID/stat; alive is false for a process
// that is gone or only waits to be reaped.
func startTime(pid int) (ticks uint64, alive bool) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, false
	}
	// The second field is the program's name in parentheses and may contain
	// anything, spaces and parentheses too.
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, false
	}
	fields := strings.Fields(string(stat[i+1:]))
	if len(fields) < 20 {
		return 0, false
	}
	// While other threads of a killed process are still ending, its first is a
	// zombie already, but its sockets are open.
	state, threads := fields[0], fields[17]
	if state == "X" || (state == "Z" && (threads == "0" || threads == "1")) {
		return 0, false
	}
	ticks, err = strconv.ParseUint(fields[19], 10, 64)
	return ticks, err == nil
}

// Alive tells whether this very life of the process goes on.
func (p Process) Alive() bool {
	start, alive := startTime(p.PID)
	return alive && start == p.Start
}

// Signal sends sig to this very life of the process. A process that is gone
// is no error.
func (p Process) Signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal %v: %w", p, err)
	}
	defer func() { _ = unix.Close(fd) }()
	// The descriptor pins whatever has the pid now; only then does comparing
	// the start time say something that stays true.
	if !p.Alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %v: %w", p, err)
	}
	return nil
}

// Stop asks the process to end with SIGTERM and, when grace has passed, ends
// it with SIGKILL.
func (p Process) Stop(ctx context.Context, grace time.Duration) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	if p.waitGone(ctx, grace) {
		return nil
	}
	return p.Kill(ctx)
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p Process) Kill(ctx context.Context) error {
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	const limit = 10 * time.Second
	if !p.waitGone(ctx, limit) {
		return fmt.Errorf("%v is still there %v after SIGKILL; it may hang in the kernel, see /proc/%d/stack", p, limit, p.PID)
	}
	return nil
}

func (p Process) waitGone(ctx context.Context, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for p.Alive() {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
	return true
}

// KillAll ends every process of the testbed with SIGKILL, again and again
// until none is found: some start others while they are being ended. It
// returns how many it ended.
func (f Finder) KillAll(ctx context.Context, limit time.Duration) (killed int, err error) {
	deadline := time.Now().Add(limit)
	seen := map[life]bool{}
	for {
		all, err := f.All()
		if err != nil {
			return len(seen), err
		}
		if len(all) == 0 {
			return len(seen), nil
		}
		for _, p := range all {
			if err := p.Signal(unix.SIGKILL); err != nil {
				return len(seen), err
			}
			seen[life{p.PID, p.Start}] = true
		}
		if time.Now().After(deadline) {
			return len(seen), fmt.Errorf("processes are still there %v after SIGKILL: %v", limit, all)
		}
		if err := ctx.Err(); err != nil {
			return len(seen), err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

type life struct {
	pid   int
	start uint64
}
