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
	const description = "Package: linux-image-amd64\nVersion: 6.12.95-1\nDepends: linux-image-%s (= 6.12.95-1)\nSize: 1\n"
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
