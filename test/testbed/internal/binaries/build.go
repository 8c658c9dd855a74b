// Package binaries builds the programs of a cluster from the versions pinned
// in this module and keeps them in the user's cache folder, where the next
// checkout of the same versions finds them.
package binaries

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/progress"
)

// ModulePath is the module that pins the versions.
const ModulePath = "github.com/topolet/topolet/test/testbed"

// Builder builds programs, or takes them from the cache.
type Builder struct {
	// Source is the folder of this module.
	Source string
	// Cache is the folder that receives one folder per program and version.
	Cache string
	// Env is added to the environment of the Go command.
	Env []string
	Log *progress.Log
}

// DefaultCache is a folder in the user's cache folder.
func DefaultCache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		// Without HOME, which services may lack, root's folder is still known.
		if os.Geteuid() != 0 {
			return "", fmt.Errorf("find the user's cache folder (set HOME or XDG_CACHE_HOME): %w", err)
		}
		dir = "/root/.cache"
	}
	return filepath.Join(dir, "topolet-testbed"), nil
}

// FindSource finds this module's folder from the working directory: in it,
// above it, or as test/testbed of a folder above it.
func FindSource() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the testbed's source: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		for _, candidate := range []string{dir, filepath.Join(dir, "test", "testbed")} {
			data, err := os.ReadFile(filepath.Join(candidate, "go.mod"))
			if err == nil && strings.Contains("\n"+string(data), "\nmodule "+ModulePath+"\n") {
				return candidate, nil
			}
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("the testbed's source is neither here (%s) nor above: run inside the repository or name it with --source", wd)
		}
	}
}

// Ensure returns the path of every program by name, after building those that
// the cache does not have.
func (b Builder) Ensure(ctx context.Context, programs []Program) (map[string]string, error) {
	goVersion, err := b.goOutput(ctx, "env", "GOVERSION", "GOOS", "GOARCH", "GOAMD64")
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	var missing []Program
	for _, p := range programs {
		key, err := b.key(p, goVersion)
		if err != nil {
			return nil, err
		}
		paths[p.Name] = filepath.Join(b.Cache, key, p.Name)
		if _, err := os.Stat(paths[p.Name]); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		b.prune(paths)
		return paths, nil
	}
	if slices.ContainsFunc(missing, func(p Program) bool { return p.Cgo }) {
		if err := CheckHeaders(); err != nil {
			return nil, err
		}
	}
	unlock, err := b.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for i, p := range missing {
		if _, err := os.Stat(paths[p.Name]); err == nil {
			continue // built meanwhile by who held the lock
		}
		step := b.Log.Start(i+1, len(missing), "build "+p.Name)
		if err := b.build(ctx, p, paths[p.Name]); err != nil {
			step.Failed()
			return nil, err
		}
		step.Done(sizeOf(paths[p.Name]))
	}
	b.prune(paths)
	return paths, nil
}

// key is the name of the folder that holds p: everything that could change
// the program goes into it.
func (b Builder) key(p Program, goVersion string) (string, error) {
	h := sha256.New()
	spec, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("hash the build of %s: %w", p.Name, err)
	}
	fmt.Fprintf(h, "%s\n%s\n", goVersion, spec)
	files := []string{"go.mod", "go.sum"}
	if len(p.Sources) > 0 && p.Module == "" {
		files = []string{"go.mod"} // programs without dependencies
	}
	for _, dir := range p.Sources {
		more, err := filepath.Glob(filepath.Join(b.Source, dir, "*.go"))
		if err != nil {
			return "", fmt.Errorf("hash the build of %s: %w", p.Name, err)
		}
		for _, f := range more {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			rel, _ := filepath.Rel(b.Source, f)
			files = append(files, rel)
		}
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(b.Source, f))
		if err != nil {
			return "", fmt.Errorf("hash the build of %s: %w", p.Name, err)
		}
		fmt.Fprintf(h, "%s %d\n%s", f, len(data), data)
	}
	return p.Name + "-" + hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// build makes one program under a temporary name and renames it: a program
// that is in the cache is complete.
func (b Builder) build(ctx context.Context, p Program, target string) error {
	var ldflags []string
	if len(p.Stamp) > 0 {
		version, err := b.goOutput(ctx, "list", "-m", "-f", "{{.Version}}", p.Module)
		if err != nil {
			return err
		}
		for _, name := range p.Stamp {
			ldflags = append(ldflags, "-X "+name+"="+version)
		}
	}
	for _, kv := range p.Fixed {
		ldflags = append(ldflags, "-X "+kv)
	}
	dir := filepath.Dir(target)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("build %s: %w", p.Name, err)
	}
	temp := filepath.Join(dir, "."+p.Name+".partial")
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", strings.Join(append([]string{"-s", "-w"}, ldflags...), " "), "-o", temp}
	if len(p.Tags) > 0 {
		args = append(args, "-tags", strings.Join(p.Tags, ","))
	}
	cmd := b.goCommand(ctx, append(args, p.Package)...)
	cmd.Env = append(cmd.Env, "CGO_ENABLED="+map[bool]string{true: "1", false: "0"}[p.Cgo])
	if err := run(cmd); err != nil {
		return errors.Join(fmt.Errorf("build %s: %w", p.Name, err), removeIfThere(temp))
	}
	if err := os.Rename(temp, target); err != nil {
		return fmt.Errorf("build %s: %w", p.Name, err)
	}
	return nil
}

// BuildStatic builds a static program of another module with build tags, without the cache:
// the Go command's own cache makes a repeated build short.
func (b Builder) BuildStatic(ctx context.Context, moduleDir, pkg, target string, tags ...string) error {
	cmd := b.goCommand(ctx, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-tags", strings.Join(tags, ","), "-o", target, pkg)
	cmd.Dir = moduleDir
	cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	if err := run(cmd); err != nil {
		return fmt.Errorf("build %s: %w", filepath.Base(target), err)
	}
	return nil
}

func (b Builder) goCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.Source
	cmd.Env = append(os.Environ(), b.Env...)
	cmd.Env = append(cmd.Env, "GOWORK=off")
	// The compilers are ended with the Go command: as a group on
	// cancellation, by the kernel when this process is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func run(cmd *exec.Cmd) error {
	// Pdeathsig follows the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("the go command is not on the PATH: install Go: %w", err)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, tail(string(out), 30))
	}
	return nil
}

func (b Builder) goOutput(ctx context.Context, args ...string) (string, error) {
	cmd := b.goCommand(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// lock keeps two builds from doing the same work at the same time.
func (b Builder) lock(ctx context.Context) (func(), error) {
	if err := os.MkdirAll(b.Cache, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(b.Cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the cache folder: %w", err)
	}
	said := false
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock the cache folder: %w", err), f.Close())
		}
		if !said {
			b.Log.Printf("another build is running; waiting for it")
			said = true
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// prune forgets versions that nobody has used for a month. Failing to is no
// reason to stop.
func (b Builder) prune(used map[string]string) {
	now := time.Now()
	for _, p := range used {
		_ = os.Chtimes(filepath.Dir(p), now, now)
	}
	entries, _ := os.ReadDir(b.Cache)
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && e.IsDir() && now.Sub(info.ModTime()) > 30*24*time.Hour {
			_ = os.RemoveAll(filepath.Join(b.Cache, e.Name()))
		}
	}
}

func sizeOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d MB", (info.Size()+500_000)/1_000_000)
}

// Link makes dir show the programs under all their names. Links that are
// right are left alone, so that a running cluster is not disturbed.
func Link(dir string, programs []Program, paths map[string]string) error {
	for _, p := range programs {
		for _, name := range append([]string{p.Name}, p.Aliases...) {
			link := filepath.Join(dir, name)
			if have, err := os.Readlink(link); err == nil && have == paths[p.Name] {
				continue
			}
			temp := link + ".new"
			if err := removeIfThere(temp); err != nil {
				return fmt.Errorf("link %s: %w", name, err)
			}
			if err := os.Symlink(paths[p.Name], temp); err != nil {
				return fmt.Errorf("link %s: %w", name, err)
			}
			if err := os.Rename(temp, link); err != nil {
				return fmt.Errorf("link %s: %w", name, err)
			}
		}
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
