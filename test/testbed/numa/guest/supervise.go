package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/process"
)

// restartDelay is between the end of a daemon and its next start.
const restartDelay = time.Second

// afterLimit is how long a daemon is held back for the one that it needs.
const afterLimit = 30 * time.Second

// supervise starts the components, starts each again when it ends, and takes
// note of the end of every process that has no other parent.
func supervise(starter process.Starter, components []Component) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)

	due := make(chan Component)
	for _, c := range components {
		go func() {
			if c.After != "" {
				err := waitFor("the socket "+c.After, afterLimit, func() error { return dial(c.After) })
				if err != nil {
					say("%s is started all the same: %v", c.Spec.Name, err)
				}
			}
			due <- c
		}()
	}
	again := func(c Component) { time.AfterFunc(restartDelay, func() { due <- c }) }

	running := map[int]Component{}
	for {
		select {
		case c := <-due:
			cmd, _, err := starter.Launched(c.Spec)
			if err != nil {
				say("%v", err)
				again(c)
				continue
			}
			running[cmd.Process.Pid] = c
			say("%s started (pid %d)", c.Spec.Name, cmd.Process.Pid)
		case <-children:
			for {
				var status syscall.WaitStatus
				pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
				if errors.Is(err, syscall.EINTR) {
					continue
				}
				if err != nil || pid <= 0 {
					break
				}
				if c, ours := running[pid]; ours {
					delete(running, pid)
					say("%s (pid %d) ended: %s", c.Spec.Name, pid, describe(status))
					again(c)
				}
			}
		}
	}
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "signal " + s.Signal().String()
	}
	return fmt.Sprintf("exit code %d", s.ExitStatus())
}

func dial(socket string) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "unix", socket)
	if err != nil {
		return err
	}
	return conn.Close()
}

// say prints to the console.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "guest: "+format+"\n", args...) }
