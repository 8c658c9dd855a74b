package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestASnapshotShowsTheSameMachine(t *testing.T) {
	root, file := machine(t), filepath.Join(t.TempDir(), "m.tar.gz")
	if out, err := execute("snapshot", "--root", root, "--output", file); err != nil || out != "" {
		t.Fatalf("got %v, %s", err, out)
	}
	want, err := execute("topology", "--root", root)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := execute("topology", "--root", file); err != nil || got != want {
		t.Errorf("got %v:\n%s\nwant:\n%s", err, got, want)
	}
	archive, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := execute("snapshot", "--root", root, "--output", "-"); err != nil || got != string(archive) {
		t.Errorf("standard output has other bytes than the file (%v)", err)
	}
}

func TestSnapshotErrorsSayWhatToMend(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"no output":                    {[]string{"--root", machine(t), "--output", ""}, []string{"--output", "file", "-"}},
		"a folder that does not exist": {[]string{"--root", machine(t), "--output", dir + "/none/m"}, []string{"--output", dir + "/none/m"}},
		"a root without a machine":     {[]string{"--root", dir, "--output", dir + "/m"}, []string{"--root", dir, "sys/devices/system/cpu"}},
		"a root that is no archive":    {[]string{"--root", text, "--output", dir + "/m"}, []string{"--root", text, "gzipped tar", "topolet snapshot"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := execute(append([]string{"snapshot"}, tc.args...)...)
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
			if _, err := os.Stat(dir + "/m"); err == nil {
				t.Error("a file was written")
			}
		})
	}
}
