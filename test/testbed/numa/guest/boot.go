package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/test/testbed/internal/layout"
)

// disk is the root file system's.
const disk = "/dev/vda"

// newRoot is where the disk is mounted before it becomes the root.
const newRoot = "/disk"

// ConfigFile is where Init finds the configuration.
func ConfigFile(l layout.Layout) string { return l.Config("guest.json") }

// Boot is the first process in the initrd. It returns only with an error.
func Boot() error {
	c, err := Load(InitrdConfig)
	if err != nil {
		return err
	}
	if err := mountKernelFiles(); err != nil {
		return err
	}
	modules, err := filepath.Glob(InitrdModules + "/*.ko")
	if err != nil {
		return err
	}
	for _, m := range modules {
		if err := load(m); err != nil {
			return err
		}
	}
	if err := waitFor("the disk "+disk, 30*time.Second, func() error { _, err := os.Stat(disk); return err }); err != nil {
		return err
	}
	if err := os.Mkdir(newRoot, 0o755); err != nil {
		return fmt.Errorf("make a mount point for the disk: %w", err)
	}
	if err := syscall.Mount(disk, newRoot, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount the disk %s: %w", disk, err)
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := syscall.Mount(dir, newRoot+dir, "", syscall.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s to the disk: %w", dir, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return fmt.Errorf("enter the disk: %w", err)
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("make the disk the root: %w", err)
	}
	if err := syscall.Chroot("."); err != nil {
		return fmt.Errorf("make the disk the root: %w", err)
	}
	l := layout.Layout{State: c.State}
	program := l.Program(Name)
	if err := syscall.Exec(program, []string{program, "init", ConfigFile(l)}, os.Environ()); err != nil {
		return fmt.Errorf("become %s on the disk: %w", program, err)
	}
	return nil
}

func mountKernelFiles() error {
	for _, m := range []mount{
		{"devtmpfs", "/dev", ""},
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

type mount struct{ kind, dir, options string }

func (m mount) do() error {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return fmt.Errorf("make the mount point %s: %w", m.dir, err)
	}
	if err := syscall.Mount(m.kind, m.dir, m.kind, 0, m.options); err != nil {
		return fmt.Errorf("mount %s: %w", m.dir, err)
	}
	return nil
}

func load(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return fmt.Errorf("load a kernel module: %w", err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("load the kernel module %s: %w", filepath.Base(module), err)
	}
	return nil
}

// waitFor waits until ready returns nil; its error says what was waited for,
// and why not.
func waitFor(what string, limit time.Duration, ready func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s: %w", limit, what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
