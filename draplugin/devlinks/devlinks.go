// Package devlinks makes symbolic links in a container's /dev while the container is
// created. Neither CDI nor NRI has an edit for links; what they have is a hook, a program
// that the container runtime runs:
//
//	driver: CDI spec with Hook(program, links) ─→ runtime runs program, its state on stdin
//	program: Make(stdin, links) ─→ links below the container's root
package devlinks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	cdi "tags.cncf.io/container-device-interface/specs-go"

	"github.com/topolet/topolet/topology/device"
)

// Command is the first argument of a program that is run as the hook; the links follow,
// each as path=target.
const Command = "make-dev-links"

// timeout is how many seconds the runtime waits for the hook.
const timeout = 10

// Hook has the program, by its path on the host, make links. It runs in the container's
// mount namespace before the root is changed (OCI runtime specification, config,
// createContainer hooks).
func Hook(program string, links []device.Link) *cdi.Hook {
	seconds := timeout
	h := &cdi.Hook{HookName: "createContainer", Path: program, Args: []string{path.Base(program), Command}, Timeout: &seconds}
	for _, l := range links {
		h.Args = append(h.Args, l.Path+"="+l.Target)
	}
	return h
}

// Make makes links in the container whose state is read, as the runtime gives it to hooks.
func Make(state io.Reader, links []string) error {
	const limit = 1 << 20
	var s specs.State
	if err := json.NewDecoder(io.LimitReader(state, limit)).Decode(&s); err != nil {
		return fmt.Errorf("the container's state: %w", err)
	}
	data, err := os.ReadFile(filepath.Join(s.Bundle, "config.json"))
	if err != nil {
		return fmt.Errorf("the container's configuration: %w", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return fmt.Errorf("the container's configuration: %w", err)
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return errors.New("the container's configuration names no root")
	}
	rootPath := spec.Root.Path
	if !filepath.IsAbs(rootPath) {
		rootPath = filepath.Join(s.Bundle, rootPath)
	}
	// The image's files are not trusted: no link of theirs leads out of the root.
	root, err := os.OpenRoot(rootPath)
	if err != nil {
		return fmt.Errorf("the container's root: %w", err)
	}
	defer root.Close() //nolint:errcheck // nothing is written through it later
	for _, l := range links {
		if err := makeLink(root, l); err != nil {
			return fmt.Errorf("link %q: %w", l, err)
		}
	}
	return nil
}

// makeLink makes one link, unless it is there.
func makeLink(root *os.Root, link string) error {
	name, target, ok := strings.Cut(link, "=")
	if !ok || !strings.HasPrefix(name, "/dev/") || path.Clean(name) != name || target == "" {
		return errors.New("want /dev/<path>=<target>")
	}
	name = strings.TrimPrefix(name, "/")
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	err := root.Symlink(target, name)
	if errors.Is(err, fs.ErrExist) {
		if there, readErr := root.Readlink(name); readErr == nil && there == target {
			return nil
		}
	}
	return err
}
