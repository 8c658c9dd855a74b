package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheNewestKernelOfTheCacheIsTaken(t *testing.T) {
	cache := t.TempDir()
	if _, ok := Cached(cache); ok {
		t.Error("an empty cache has a kernel")
	}
	for _, dir := range []string{"kernel-6.1.0-25-cloud-amd64", "kernel-6.12.9+deb13-cloud-amd64", "kernel-6.12.95+deb12-cloud-amd64", "kernel-6.12.96+deb12-cloud-amd64", "kernel-6.13.1"} {
		files := []string{"vmlinuz"}
		for i, name := range wanted {
			files = append(files, fmt.Sprintf("%02d-%s.ko", i, name))
		}
		switch dir {
		case "kernel-6.12.96+deb12-cloud-amd64": // from before a module was wanted
			files = files[:len(files)-1]
		case "kernel-6.13.1": // not complete
			files = nil
		}
		if err := os.MkdirAll(filepath.Join(cache, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if err := os.WriteFile(filepath.Join(cache, dir, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	k, ok := Cached(cache)
	if !ok || k.Version != "6.12.95+deb12-cloud-amd64" {
		t.Fatalf("%+v, %v", k, ok)
	}
	if len(k.Modules) != len(wanted) || filepath.Base(k.Modules[0]) != "00-"+wanted[0]+".ko" {
		t.Errorf("modules %v", k.Modules)
	}
}

func TestKernelPackage(t *testing.T) {
	const description = "Package: linux-image-cloud-amd64\nVersion: 6.12.95-1\nDepends: linux-image-%s (= 6.12.95-1)\nSize: 1\n"
	name, err := kernelPackage(strings.Replace(description, "%s", "6.12.95+deb12-cloud-amd64", 1))
	if err != nil || name != "linux-image-6.12.95+deb12-cloud-amd64" {
		t.Errorf("%q, %v", name, err)
	}
	if _, err := kernelPackage(strings.Replace(description, "%s", "6.1.0-25-cloud-amd64", 1)); err == nil || !strings.Contains(err.Error(), "older than 6.12") {
		t.Errorf("an old kernel: error %v", err)
	}
	if _, err := kernelPackage(""); err == nil {
		t.Error("a package that is not there was found")
	}
}

func TestBackportsAreAtTheMirrorOfTheRelease(t *testing.T) {
	const release = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n"
	const targets = "http://security.mirror.example/debian-security bookworm-security main\nhttp://mirror.example/debian bookworm contrib\nhttp://mirror.example/debian bookworm main\n"
	got, err := backportsSources(release, targets)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"URIs: http://mirror.example/debian\n", "Suites: bookworm-backports\n", "Signed-By: /"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	if _, err := backportsSources(release, "http://mirror.example/debian trixie main\n"); err == nil || !strings.Contains(err.Error(), "bookworm") {
		t.Errorf("no source of the release: error %v", err)
	}
	if _, err := backportsSources("ID=fedora\nPRETTY_NAME=\"Fedora 44\"\n", targets); err == nil || !strings.Contains(err.Error(), "Fedora 44") {
		t.Errorf("another distribution: error %v, want one that names it", err)
	}
}
