package kernel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/topolet/topolet/test/testbed/internal/apt"
)

// metaPackage depends on the newest kernel. The one for virtual machines has no driver for
// the network card with VFs.
const metaPackage = "linux-image-amd64"

// download fetches the kernel's package and returns the folder that it is
// unpacked in. The host's own sources come first, then its release's backports
// from the same mirror.
func download(ctx context.Context, work string) (string, error) {
	tools := apt.Tools{}
	pkg, err := findPackage(ctx, tools)
	if err != nil {
		if tools, err = apt.Backports(ctx, work); err != nil {
			return "", err
		}
		if pkg, err = findPackage(ctx, tools); err != nil {
			return "", fmt.Errorf("a kernel of %d.%d or newer is neither in this host's package sources nor in its backports: %w", oldest[0], oldest[1], err)
		}
	}
	fetched := filepath.Join(work, "package")
	tree := filepath.Join(work, "tree")
	if err := os.Mkdir(fetched, 0o755); err != nil {
		return "", fmt.Errorf("download the kernel: %w", err)
	}
	if _, err := tools.Run(ctx, fetched, "apt-get", "download", "-qq", pkg); err != nil {
		return "", fmt.Errorf("download the kernel: %w", err)
	}
	debs, err := filepath.Glob(filepath.Join(fetched, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("download the kernel: apt-get left %d packages, not one: %w", len(debs), err)
	}
	_, err = apt.Tools{}.Run(ctx, work, "dpkg-deb", "-x", debs[0], tree)
	return tree, err
}

// findPackage is the package that metaPackage depends on, if it is new enough.
func findPackage(ctx context.Context, tools apt.Tools) (string, error) {
	out, err := tools.Run(ctx, "", "apt-cache", "show", "--no-all-versions", metaPackage)
	if err != nil {
		return "", err
	}
	return kernelPackage(out)
}

func kernelPackage(description string) (string, error) {
	for line := range strings.Lines(description) {
		list, ok := strings.CutPrefix(line, "Depends: ")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSpace(list), " ")
		v, ok := strings.CutPrefix(name, "linux-image-")
		if ok && newEnough(v) {
			return name, nil
		}
		return "", fmt.Errorf("%s is %s, older than %d.%d", metaPackage, name, oldest[0], oldest[1])
	}
	return "", fmt.Errorf("%s is not there, or depends on no kernel", metaPackage)
}
