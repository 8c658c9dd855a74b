package devlinks

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/topolet/topolet/topology/device"
)

// bundle makes a container's bundle and returns the state that hooks get and the root.
func bundle(t *testing.T, rootPath string) (state, root string) {
	t.Helper()
	dir := t.TempDir()
	root = filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(filepath.Join(root, "dev"), 0o750); err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(specs.Spec{Root: &specs.Root{Path: rootPath}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(specs.State{Bundle: dir})
	if err != nil {
		t.Fatal(err)
	}
	return string(text), root
}

func TestTheHookMakesTheLinksOfItsArguments(t *testing.T) {
	state, root := bundle(t, "rootfs")
	hook := Hook("/var/lib/topolet/hook", []device.Link{{Path: "/dev/dri/by-path/pci-0000:3a:00.0-card", Target: "../card1"}, {Path: "/dev/char/226:1", Target: "../dri/card1"}})
	if diff := cmp.Diff([]string{"hook", Command, "/dev/dri/by-path/pci-0000:3a:00.0-card=../card1", "/dev/char/226:1=../dri/card1"}, hook.Args); diff != "" {
		t.Fatalf("arguments -want +got:\n%s", diff)
	}
	for range 2 { // what is there already is no mistake
		if err := Make(strings.NewReader(state), hook.Args[2:]); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"dev/dri/by-path/pci-0000:3a:00.0-card": "../card1", "dev/char/226:1": "../dri/card1"} {
		if got, err := os.Readlink(filepath.Join(root, name)); err != nil || got != want {
			t.Errorf("%s leads to %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestTheHookRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		link, said string
		prepare    func(t *testing.T, root string)
	}{
		"what is not in /dev":     {"/etc/passwd=x", "want /dev/<path>=<target>", nil},
		"what leads out of /dev":  {"/dev/../etc/passwd=x", "want /dev/<path>=<target>", nil},
		"no target":               {"/dev/x=", "want /dev/<path>=<target>", nil},
		"another file's place":    {"/dev/x=y", "file exists", func(t *testing.T, root string) { write(t, filepath.Join(root, "dev/x")) }},
		"a folder that leads out": {"/dev/out/x=y", "escapes", func(t *testing.T, root string) { link(t, t.TempDir(), filepath.Join(root, "dev/out")) }},
	} {
		t.Run(name, func(t *testing.T) {
			state, root := bundle(t, "rootfs")
			if test.prepare != nil {
				test.prepare(t, root)
			}
			if err := Make(strings.NewReader(state), []string{test.link}); err == nil || !strings.Contains(err.Error(), test.said) {
				t.Errorf("the hook answers %v, want %q", err, test.said)
			}
		})
	}
}

func TestTheHookNeedsAContainer(t *testing.T) {
	noRoot, _ := bundle(t, "")
	for _, state := range []string{"", "{}", `{"bundle":"/does/not/exist"}`, noRoot} {
		if err := Make(strings.NewReader(state), nil); err == nil {
			t.Errorf("state %q is taken", state)
		}
	}
}

func write(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}
