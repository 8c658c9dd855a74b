package binaries

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/topolet/topolet/test/testbed/internal/progress"
)

func source(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestKeyFollowsWhatIsBuilt(t *testing.T) {
	files := map[string]string{"go.mod": "module x\n", "go.sum": "", "cmd/a/main.go": "package main\nfunc main() {}\n"}
	p := Program{Name: "a", Package: "./cmd/a", Sources: []string{"cmd/a"}}
	key := func(change func()) string {
		change()
		k, err := Builder{Source: source(t, files)}.key(p, "go1.26")
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key(func() {})
	if key(func() {}) != first {
		t.Error("another folder with the same content has another key")
	}
	if key(func() { files["cmd/a/main_test.go"] = "package main\n" }) != first {
		t.Error("a test changes the key")
	}
	seen := []string{first}
	for what, change := range map[string]func(){
		"source": func() { files["cmd/a/main.go"] += "//\n" },
		"go.mod": func() { files["go.mod"] += "//\n" },
		"tags":   func() { p.Tags = []string{"x"} },
	} {
		k := key(change)
		if slices.Contains(seen, k) {
			t.Errorf("a change of the %s does not change the key", what)
		}
		seen = append(seen, k)
	}
}

func TestBuildIsKept(t *testing.T) {
	cache := t.TempDir()
	b := Builder{
		Source: source(t, map[string]string{"go.mod": "module x\n\ngo 1.26\n", "go.sum": "", "cmd/a/main.go": "package main\n\nfunc main() {}\n"}),
		Cache:  cache,
		Log:    progress.New(io.Discard),
	}
	p := []Program{{Name: "a", Package: "./cmd/a", Sources: []string{"cmd/a"}, Aliases: []string{"b"}}}
	paths, err := b.Ensure(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(paths["a"])
	if err != nil {
		t.Fatal(err)
	}
	if paths, err = b.Ensure(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(paths["a"])
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("built again although nothing changed")
	}
	if partial, _ := filepath.Glob(filepath.Join(cache, "*", ".*")); len(partial) > 0 {
		t.Errorf("left in the cache: %v", partial)
	}

	bin := t.TempDir()
	for range 2 {
		if err := Link(bin, p, paths); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b"} {
		if target, err := os.Readlink(filepath.Join(bin, name)); err != nil || target != paths["a"] {
			t.Errorf("%s leads to %q, %v", name, target, err)
		}
	}
}

func TestBuildErrorShowsTheCompiler(t *testing.T) {
	b := Builder{
		Source: source(t, map[string]string{"go.mod": "module x\n\ngo 1.26\n", "go.sum": "", "cmd/a/main.go": "package main\n\nfunc main() { undefinedName() }\n"}),
		Cache:  t.TempDir(),
		Log:    progress.New(io.Discard),
	}
	_, err := b.Ensure(t.Context(), []Program{{Name: "a", Package: "./cmd/a", Sources: []string{"cmd/a"}}})
	if err == nil || !strings.Contains(err.Error(), "undefinedName") {
		t.Errorf("error %v, want the compiler's message", err)
	}
}

func TestFindSource(t *testing.T) {
	root := source(t, map[string]string{"test/testbed/go.mod": "module " + ModulePath + "\n", "deploy/x/y": ""})
	want, err := filepath.EvalSymlinks(filepath.Join(root, "test/testbed"))
	if err != nil {
		t.Fatal(err)
	}
	for _, wd := range []string{"", "deploy/x", "test/testbed", "test"} {
		t.Chdir(filepath.Join(root, wd))
		if got, err := FindSource(); err != nil || got != want {
			t.Errorf("from %q: %q, %v", wd, got, err)
		}
	}
	t.Chdir(t.TempDir())
	if _, err := FindSource(); err == nil || !strings.Contains(err.Error(), "--source") {
		t.Errorf("elsewhere: error %v, want one that names the flag", err)
	}
}

func TestNamesAreUnique(t *testing.T) {
	names := Names()
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("a name occurs twice: %v", names)
	}
}

func TestVersionOfQEMU(t *testing.T) {
	for text, want := range map[string]int{
		"QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright\n": 10,
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n":                    7,
		"QEMU emulator version 11\n": 0,
		"something else":             0,
		"":                           0,
	} {
		if got := qemuVersion(text); got != want {
			t.Errorf("%q is version %d, want %d", text, got, want)
		}
	}
}
