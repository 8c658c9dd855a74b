package rootfs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLibrariesAreFoundThroughEachOther(t *testing.T) {
	// A program of the distribution, with shared libraries.
	program, err := exec.LookPath("mount")
	if err != nil {
		t.Skip("there is no mount program here")
	}
	linker, needed, err := requirements(program)
	if err != nil {
		t.Fatal(err)
	}
	if linker == "" {
		t.Skip("the mount program is static here")
	}
	entries, err := Libraries(LibraryFolders(), program)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Source != e.Path {
			t.Errorf("%s comes from %s", e.Path, e.Source)
		}
		names = append(names, filepath.Base(e.Path))
	}
	for _, want := range append(needed, filepath.Base(linker)) {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing in %v", want, names)
		}
	}
	for _, e := range entries {
		_, more, err := requirements(e.Path)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range more {
			if !slices.Contains(names, want) {
				t.Errorf("%s, which %s needs, is missing in %v", want, e.Path, names)
			}
		}
	}
	if _, err := Libraries([]string{t.TempDir()}, program); err == nil || !strings.Contains(err.Error(), needed[0]) {
		t.Errorf("a library that is not there: error %v, want one that names it", err)
	}
}

func TestStaticProgramsNeedNothing(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if linker, _, err := requirements(self); err != nil || linker != "" {
		t.Skip("this test is not static:", linker, err)
	}
	if entries, err := Libraries(nil, self); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestFoldersOfTheLinkersConfiguration(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"ld.so.conf":    "# a comment\ninclude conf.d/*.conf\n/opt/lib # mine\n",
		"conf.d/a":      "/not/included\n",
		"conf.d/b.conf": "/usr/lib/one\n/usr/lib/two\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := configured(filepath.Join(dir, "ld.so.conf")); !slices.Equal(got, []string{"/usr/lib/one", "/usr/lib/two", "/opt/lib"}) {
		t.Errorf("%v", got)
	}
}

func entries(t *testing.T, content string) []Entry {
	t.Helper()
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return []Entry{
		{Path: "/bin/program", Source: source},
		{Path: "/etc/secret", Source: source, Mode: 0o600},
		{Path: "/etc/text", Content: []byte("text\n")},
		{Path: "/etc/link", Link: "text"},
		{Path: "/proc", Dir: true},
	}
}

func TestKeyFollowsTheContent(t *testing.T) {
	key := func(e []Entry, more ...string) string {
		k, err := Key(e, more...)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key(entries(t, "x"))
	if key(entries(t, "x")) != first {
		t.Error("the same content from another file has another key")
	}
	renamed := entries(t, "x")
	renamed[2].Path = "/etc/other"
	for what, k := range map[string]string{
		"a source": key(entries(t, "y")),
		"a path":   key(renamed),
		"the rest": key(entries(t, "x"), "more"),
	} {
		if k == first {
			t.Errorf("a change of %s does not change the key", what)
		}
	}
	if _, err := Key([]Entry{{Path: "/x", Source: "/no/such/file"}}); err == nil {
		t.Error("a source that is not there has a key")
	}
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	if err := Tree(dir, entries(t, "x")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{"bin/program": 0o755, "etc/secret": 0o600, "etc/text": 0o644, "proc": os.ModeDir | 0o755} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
	if target, err := os.Readlink(filepath.Join(dir, "etc/link")); err != nil || target != "text" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
}

func TestInitrd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "initrd")
	if err := Initrd(file, entries(t, "some content")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for rest := data; ; {
		if len(rest) < 110 || string(rest[:6]) != "070701" {
			t.Fatalf("no header %d bytes before the end", len(rest))
		}
		size, nameSize := field(t, rest, 6), field(t, rest, 11)
		name := string(rest[110 : 110+nameSize-1])
		body := round(110 + nameSize)
		names = append(names, name)
		if name == "TRAILER!!!" {
			break
		}
		if name == "bin/program" && !bytes.Equal(rest[body:body+size], []byte("some content")) {
			t.Errorf("the program is %q", rest[body:body+size])
		}
		rest = rest[body+round(size):]
	}
	want := []string{"bin", "etc", "bin/program", "etc/secret", "etc/text", "etc/link", "proc", "TRAILER!!!"}
	if !slices.Equal(names, want) {
		t.Errorf("names %v, want %v", names, want)
	}
}

// field reads the number of one of a header's fields.
func field(t *testing.T, header []byte, i int) int {
	t.Helper()
	n := 0
	for _, c := range header[6+8*i : 6+8*i+8] {
		n = n*16 + strings.IndexByte("0123456789ABCDEF", c)
	}
	return n
}

func round(n int) int { return (n + 3) / 4 * 4 }
