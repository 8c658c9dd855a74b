package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Check fails, naming the remedy, on a host that cannot run a testbed.
func Check() error {
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("not root: run as root"))
	}
	kinds, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		errs = append(errs, fmt.Errorf("list the kernel's file systems: %w", err))
	} else if !strings.Contains(string(kinds), "\toverlay\n") {
		// A module that is not loaded yet is loaded by the first mount.
		if _, err := os.Stat("/lib/modules"); err != nil {
			errs = append(errs, errors.New("the kernel has no overlay file system: use one with CONFIG_OVERLAY_FS"))
		}
	}
	return errors.Join(errs...)
}

// CanRaiseOOMPriority tells whether a process may lower an oom_score_adj here:
// containers take that away even from root.
func CanRaiseOOMPriority() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err == nil && caps&(1<<unix.CAP_SYS_RESOURCE) != 0
		}
	}
	return false
}
