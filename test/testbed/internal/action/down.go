package action

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/cgroup"
	"github.com/topolet/topolet/test/testbed/internal/host"
)

func killProcesses(ctx context.Context, c *Context) (string, error) {
	killed, err := c.Finder().KillAll(ctx, 20*time.Second)
	return count(killed, "process", "es"), err
}

func removeMounts(_ context.Context, c *Context) (string, error) {
	n, err := host.UnmountAll(c.Layout.State)
	return count(n, "mount", "s"), err
}

func removeNetwork(_ context.Context, c *Context) (string, error) {
	removed, err := host.RemoveBridge(c.Layout.Bridge())
	return strings.Join(removed, " "), err
}

func removeCgroups(_ context.Context, c *Context) (string, error) {
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return "", err
	}
	n := len(cgroup.Remaining(hs, c.Layout.Cgroup()))
	return count(n, "folder", "s"), cgroup.Remove(hs, c.Layout.Cgroup(), 10*time.Second)
}

func restoreHost(_ context.Context, c *Context) (string, error) {
	var targets []string
	for _, p := range append(c.Layout.KubeletPrivate(), c.Layout.ContainerdPrivate()...) {
		targets = append(targets, p.Target)
	}
	return "", errors.Join(host.Restore(c.Layout.Host()), host.RemoveMountPoints(targets))
}

// removeFiles deletes the state folder, last of all: what is in it is needed
// to repeat a removal that failed half way.
func removeFiles(_ context.Context, c *Context) (string, error) {
	state := c.Layout.State
	if err := Ours(state, c.Layout.Record()); err != nil {
		return "", err
	}
	points, err := host.Mounts(state)
	if err != nil {
		return "", err
	}
	if len(points) > 0 {
		return "", fmt.Errorf("%s is kept because mounts are left below it, and deleting would reach into them: %v", state, points)
	}
	left, err := c.Finder().All()
	if err != nil {
		return "", err
	}
	if len(left) > 0 {
		return "", fmt.Errorf("%s is kept because processes still use it: %v", state, left)
	}
	if err := os.RemoveAll(state); err != nil {
		return "", fmt.Errorf("delete the state folder: %w", err)
	}
	return state, nil
}

// Ours tells whether a state folder may be used and deleted: it has a
// testbed's record, or nothing but what is there before the record is written.
func Ours(state, record string) error {
	if _, err := os.Lstat(record); err == nil {
		return nil
	}
	entries, err := os.ReadDir(state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the state folder: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name != "lock" && name != filepath.Base(record)+".partial" {
			return fmt.Errorf("%s is not a testbed's: it has no %s but has %s; name another folder with --state, or delete it yourself", state, filepath.Base(record), name)
		}
	}
	return nil
}

func count(n int, noun, plural string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %s%s", n, noun, plural)
}
