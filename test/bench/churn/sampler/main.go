// Command sampler looks at the containers of the machine that it runs on, until it is
// told to end. How it talks with who started it are two files in a folder: it reads UIDs
// of exclusive pods, one a line, and writes what it saw. A line "end" ends it, and so
// does the end of the folder, or the limit.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/topolet/topolet/test/bench/churn/sample"
)

const (
	// pause is between two looks. idle is how many times as long as a look it is at least:
	// where looking is slow, it must not become the load.
	pause = 50 * time.Millisecond
	idle  = 2

	// niceness has it look also while the machine is busy, which is when it matters.
	niceness = -15

	writeInterval = time.Second
	fetchLimit    = 30 * time.Second
)

func main() {
	dir := flag.String("dir", "", "`folder` for the two files; it is made")
	kubepods := flag.String("kubepods", "", "`cgroup` of all pods")
	limit := flag.Duration("limit", time.Hour, "after which it ends by itself")
	detach := flag.Bool("detach", false, "go on in the background, and return when the files are there")
	fetch := flag.String("fetch", "", "print what is at this `URL`, and nothing else")
	flag.Parse()
	var err error
	switch {
	case *fetch != "":
		err = get(*fetch)
	case *detach:
		err = start(*dir)
	default:
		err = run(*dir, *kubepods, *limit)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sampler:", err)
		os.Exit(1)
	}
}

// start makes the files and starts this program again in a session of its own.
func start(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{sample.UIDsFile, sample.ResultFile} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(filepath.Join(dir, "sampler.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool { return arg == "-detach" })
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", args...) //nolint:gosec // this program, with its own arguments
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// A new process has the priority of the thread that made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, niceness); err != nil {
		fmt.Fprintln(log, "sampler: it has no priority over the load, and its gaps are longer:", err)
	}
	return errors.Join(cmd.Start(), log.Close())
}

func run(dir, kubepods string, limit time.Duration) error {
	s := &sample.Sampler{Kubepods: kubepods, Proc: "/proc"}
	err := look(s, dir, limit)
	result := s.Result()
	result.Ended = true
	if err != nil {
		result.Error = err.Error()
	}
	return errors.Join(err, write(dir, result))
}

// look takes samples until it is told to end.
func look(s *sample.Sampler, dir string, limit time.Duration) error {
	var written time.Time
	for begin := time.Now(); time.Since(begin) < limit; {
		uids, err := os.ReadFile(filepath.Join(dir, sample.UIDsFile))
		if err != nil {
			return err
		}
		// A line without an end is being written.
		lines := strings.Fields(string(uids[:bytes.LastIndexByte(uids, '\n')+1]))
		if slices.Contains(lines, sample.End) {
			return nil
		}
		s.Exclusive(lines...)
		took, err := s.Look()
		if err != nil {
			return err
		}
		if time.Since(written) > writeInterval {
			if err := write(dir, s.Result()); err != nil {
				return err
			}
			written = time.Now()
		}
		time.Sleep(max(pause, idle*took))
	}
	return fmt.Errorf("nobody ended it for %v", limit)
}

// write replaces the result in one step.
func write(dir string, result sample.Result) error {
	data, err := json.Marshal(result)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, sample.ResultFile)
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// get prints a page of a server on this machine.
func get(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), fetchLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", address, response.Status)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}
