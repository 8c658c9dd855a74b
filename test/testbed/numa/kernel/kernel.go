// Package kernel provides the machine's kernel: the distribution's own, fetched with apt without touching the host's
// configuration, unpacked into the cache and kept there.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kernel is a kernel in the cache.
type Kernel struct {
	Version string
	// Image is the bootable file.
	Image string
	// Modules are the module files, in the order in which they can be loaded.
	Modules []string
}

// wanted are the modules that the guest needs; what they depend on comes with them. The
// file system asks for crc32c by another name than the module's, and runc for all of
// netlink when it moves a network interface.
var wanted = []string{"crc32c_generic", "ext4", "virtio_blk", "virtio_net", "overlay", "bridge", "veth", "nfnetlink", "xfrm_user", "nvme", "igb", "igbvf", "vfio_iommu_type1", "vfio_pci"}

// oldest is the first version with what the machine needs of cgroup v2.
var oldest = [2]int{6, 12}

const prefix = "kernel-"

// Cached finds the newest kernel in the cache. ok is false when there is none.
func Cached(cache string) (k Kernel, ok bool) {
	dirs, _ := filepath.Glob(filepath.Join(cache, prefix+"*"))
	slices.SortFunc(dirs, func(a, b string) int { return compare(version(a), version(b)) })
	for _, dir := range slices.Backward(dirs) {
		if k, err := open(dir); err == nil {
			// What is in use is not pruned.
			now := time.Now()
			_ = os.Chtimes(dir, now, now)
			return k, true
		}
	}
	return Kernel{}, false
}

func version(dir string) string { return strings.TrimPrefix(filepath.Base(dir), prefix) }

func open(dir string) (Kernel, error) {
	k := Kernel{Version: version(dir), Image: filepath.Join(dir, "vmlinuz")}
	if !newEnough(k.Version) {
		return Kernel{}, errors.New("too old")
	}
	if _, err := os.Stat(k.Image); err != nil {
		return Kernel{}, err
	}
	var err error
	if k.Modules, err = filepath.Glob(filepath.Join(dir, "*.ko")); err != nil {
		return k, err
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(k.Modules, func(file string) bool { return strings.HasSuffix(file, "-"+name+".ko") }) {
			return k, fmt.Errorf("unpacked without the module %s", name)
		}
	}
	return k, nil
}

// Ensure returns the kernel in the cache, after fetching it if there is none.
func Ensure(ctx context.Context, cache string) (k Kernel, fetched bool, err error) {
	if k, ok := Cached(cache); ok {
		return k, false, nil
	}
	work, err := os.MkdirTemp(cache, ".fetch-")
	if err != nil {
		return Kernel{}, false, fmt.Errorf("make a folder for the kernel: %w", err)
	}
	k, err = fetch(ctx, cache, work)
	return k, true, errors.Join(err, os.RemoveAll(work))
}

// fetch downloads a package and moves what is needed of it into the cache.
func fetch(ctx context.Context, cache, work string) (Kernel, error) {
	tree, err := download(ctx, work)
	if err != nil {
		return Kernel{}, err
	}
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return Kernel{}, fmt.Errorf("the kernel's package has %d kernels, not one: %v %w", len(images), images, err)
	}
	v := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	ready := filepath.Join(work, "ready")
	if err := os.Mkdir(ready, 0o755); err != nil {
		return Kernel{}, fmt.Errorf("unpack the kernel: %w", err)
	}
	if err := os.Rename(images[0], filepath.Join(ready, "vmlinuz")); err != nil {
		return Kernel{}, fmt.Errorf("unpack the kernel: %w", err)
	}
	if err := unpackModules(ctx, tree, ready); err != nil {
		return Kernel{}, err
	}
	dir := filepath.Join(cache, prefix+v)
	if err := os.RemoveAll(dir); err != nil {
		return Kernel{}, fmt.Errorf("replace the kernel: %w", err)
	}
	if err := os.Rename(ready, dir); err != nil {
		return Kernel{}, fmt.Errorf("keep the kernel: %w", err)
	}
	return open(dir)
}

func newEnough(version string) bool {
	n := numbers(version)
	return compareNumbers(n, oldest[:]) >= 0
}

// compare orders versions by their numbers.
func compare(a, b string) int { return compareNumbers(numbers(a), numbers(b)) }

func compareNumbers(a, b []int) int { return slices.Compare(a, b) }

// numbers are the numbers of a version, such as 6, 12, 95 of 6.12.95+deb12.
func numbers(version string) []int {
	version, _, _ = strings.Cut(version, "+")
	version, _, _ = strings.Cut(version, "-")
	var list []int
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			break
		}
		list = append(list, n)
	}
	return list
}
