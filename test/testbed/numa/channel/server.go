package channel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Server answers the requests.
type Server struct {
	// Component finds the process of a component; ok is false when it does
	// not run.
	Component func(name string) (pid int, ok bool, err error)
}

// Handler routes the requests.
func (s Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /files/{path...}", respond(read))
	mux.HandleFunc("PUT /files/{path...}", respond(write))
	mux.HandleFunc("POST /exec", respond(execute))
	mux.HandleFunc("POST /kill", respond(s.kill))
	return mux
}

// callerError is a mistake in a request.
type callerError struct{ error }

// errTooLarge is for what is beyond maxFile.
var errTooLarge = fmt.Errorf("larger than %d bytes", maxFile)

func respond(handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := handle(w, r)
		if err == nil {
			return
		}
		status := http.StatusConflict
		_, mistake := errors.AsType[callerError](err)
		switch {
		case mistake:
			status = http.StatusBadRequest
		case errors.Is(err, errTooLarge):
			status = http.StatusRequestEntityTooLarge
		case errors.Is(err, fs.ErrNotExist):
			status = http.StatusNotFound
		}
		text := err.Error()
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			text += " (" + unix.ErrnoName(errno) + ")"
		}
		http.Error(w, text, status)
	}
}

func read(w http.ResponseWriter, r *http.Request) error {
	path := "/" + r.PathValue("path")
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return list(w, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// Files of the kernel have no size before they are read.
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(data) > maxFile {
		return fmt.Errorf("read %s: %w", path, errTooLarge)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(data) //nolint:gosec // no browser asks
	return nil
}

func list(w http.ResponseWriter, dir string) error {
	found, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	entries := []Entry{}
	for _, f := range found {
		e := Entry{Name: f.Name(), Dir: f.IsDir()}
		if f.Type() == fs.ModeSymlink {
			path := filepath.Join(dir, e.Name)
			// A link that leads nowhere is a link all the same, and one that
			// is gone by now is left out.
			if e.Link, err = os.Readlink(path); err != nil {
				continue
			}
			info, err := os.Stat(path)
			e.Dir = err == nil && info.IsDir()
		}
		entries = append(entries, e)
	}
	return answer(w, entries)
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
	return nil
}

// write writes in one system call, as the kernel's own files want it. What is
// on a disk is there when the answer is given, whatever happens next.
func write(w http.ResponseWriter, r *http.Request) error {
	path := "/" + r.PathValue("path")
	data, err := io.ReadAll(io.LimitReader(r.Body, maxFile+1))
	if err != nil {
		return callerError{fmt.Errorf("read what is to be written to %s: %w", path, err)}
	}
	if len(data) > maxFile {
		return fmt.Errorf("write %s: %w", path, errTooLarge)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		// The kernel's own files have no disk.
		if err = f.Sync(); errors.Is(err, unix.EINVAL) {
			err = nil
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func decode(r *http.Request, into any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, maxFile))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return callerError{fmt.Errorf("the request is not the JSON that is expected: %w", err)}
	}
	return nil
}

func (s Server) kill(w http.ResponseWriter, r *http.Request) error {
	var k Kill
	if err := decode(r, &k); err != nil {
		return err
	}
	name := strings.ToUpper(k.Signal)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	signal := unix.SignalNum(name)
	if signal == 0 {
		return callerError{fmt.Errorf("signal %q: use a name such as KILL, TERM or STOP", k.Signal)}
	}
	pid := k.PID
	if k.Component != "" {
		found, runs, err := s.Component(k.Component)
		if err != nil {
			return err
		}
		if !runs {
			return fmt.Errorf("the component %q does not run: %w", k.Component, fs.ErrNotExist)
		}
		pid = found
	}
	if pid <= 1 {
		return callerError{fmt.Errorf("pid %d: name a component, or a process other than the first", pid)}
	}
	if err := unix.Kill(pid, signal); err != nil {
		return fmt.Errorf("send %s to %d: %w", name, pid, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
