package channel

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// serve is a channel to this host, where "sleeper" is the only component.
func serve(t *testing.T, sleeper int) Client {
	t.Helper()
	s := httptest.NewServer(Server{Component: func(name string) (int, bool, error) {
		return sleeper, name == "sleeper" && sleeper != 0, nil
	}}.Handler())
	t.Cleanup(s.Close)
	return Client{URL: s.URL}
}

func TestFilesAreReadAndWritten(t *testing.T) {
	c := serve(t, 0)
	file := filepath.Join(t.TempDir(), "a b%2F?#:1")
	if err := c.Write(t.Context(), file, "first and long"); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(t.Context(), file, "second"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Read(t.Context(), file); err != nil || got != "second" {
		t.Errorf("read %q, %v", got, err)
	}
	// A file of the kernel says that it is empty.
	if got, err := c.Read(t.Context(), "/proc/self/status"); err != nil || !strings.HasPrefix(got, "Name:") {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestFoldersAreListed(t *testing.T) {
	c := serve(t, 0)
	dir := t.TempDir()
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "folder"), 0o755),
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o644),
		os.Symlink("folder", filepath.Join(dir, "to-folder")),
		os.Symlink("nowhere", filepath.Join(dir, "to-nowhere")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.List(t.Context(), dir)
	want := []Entry{{Name: "file"}, {Name: "folder", Dir: true}, {Name: "to-folder", Dir: true, Link: "folder"}, {Name: "to-nowhere", Link: "nowhere"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("listed %+v, %v", got, err)
	}
	if got, err := c.List(t.Context(), filepath.Join(dir, "to-folder")); err != nil || len(got) != 0 {
		t.Errorf("an empty folder lists %v, %v", got, err)
	}
	if _, err := c.List(t.Context(), filepath.Join(dir, "file")); err == nil || !strings.Contains(err.Error(), "no folder") {
		t.Errorf("a file as a folder: error %v", err)
	}
}

func TestErrorsOfTheKernelAreTold(t *testing.T) {
	c := serve(t, 0)
	dir := t.TempDir()
	if _, err := c.Read(t.Context(), dir+"/absent"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "ENOENT") {
		t.Errorf("read what is not there: error %v", err)
	}
	if err := c.Write(t.Context(), dir+"/absent/file", ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("write below what is not there: error %v", err)
	}
	if err := c.Write(t.Context(), dir, "x"); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "EISDIR") {
		t.Errorf("write a folder: error %v", err)
	}
	if _, err := c.Read(t.Context(), "/proc/self/mem"); err == nil || !strings.Contains(err.Error(), "EIO") {
		t.Errorf("read what cannot be read: error %v", err)
	}
	for path, want := range map[string]int{dir + "/absent": http.StatusNotFound, "/proc/self/mem": http.StatusConflict} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL+"/files"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close() != nil || resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestProgramsRun(t *testing.T) {
	c := serve(t, 0)
	for name, test := range map[string]struct {
		command Command
		want    Result
	}{
		"all comes back":         {Command{Argv: []string{"sh", "-c", "cat; echo oops >&2; exit 3"}, Stdin: "in"}, Result{Stdout: "in", Stderr: "oops\n", ExitCode: 3}},
		"a signal ends it":       {Command{Argv: []string{"sh", "-c", "kill -TERM $$"}}, Result{ExitCode: 143}},
		"the limit ends it":      {Command{Argv: []string{"sh", "-c", "echo begun; sleep 60 & wait"}, TimeoutSeconds: 0.3}, Result{Stdout: "begun\n", ExitCode: 137, TimedOut: true}},
		"what it left goes on":   {Command{Argv: []string{"sh", "-c", "sleep 5 & echo done"}}, Result{Stdout: "done\n"}},
		"nothing has to be said": {Command{Argv: []string{"true"}}, Result{}},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			got, err := c.Exec(t.Context(), test.command)
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
			if took := time.Since(begin); took > 4*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestProgramsThatCannotRun(t *testing.T) {
	c := serve(t, 0)
	if _, err := c.Exec(t.Context(), Command{}); err == nil || !strings.Contains(err.Error(), "name a program") {
		t.Errorf("no program: error %v", err)
	}
	if _, err := c.Exec(t.Context(), Command{Argv: []string{"/no/such/program"}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program that is not there: error %v", err)
	}
	for _, body := range []string{"{", `{"argw":["true"]}`} {
		if _, err := c.do(t.Context(), http.MethodPost, "/exec", []byte(body)); err == nil || !strings.Contains(err.Error(), "not the JSON that is expected") {
			t.Errorf("the request %s: error %v", body, err)
		}
	}
}

func TestSignalsReachComponents(t *testing.T) {
	sleeper := exec.CommandContext(context.Background(), "sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	c := serve(t, sleeper.Process.Pid)
	for want, k := range map[string]Kill{
		"use a name such as": {Component: "sleeper", Signal: "FORTYTWO"},
		"does not run":       {Component: "dockerd", Signal: "KILL"},
		"name a component":   {PID: 1, Signal: "KILL"},
		"ESRCH":              {PID: 1 << 22, Signal: "KILL"},
	} {
		if err := c.Kill(t.Context(), k); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", k, err, want)
		}
	}
	if err := c.Kill(t.Context(), Kill{Component: "sleeper", Signal: "kill"}); err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the component ended with %v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	if _, err := (Client{URL: s.URL}).BootID(t.Context()); err == nil || !strings.Contains(err.Error(), "ask the guest") {
		t.Errorf("error %v", err)
	}
}
