package binaries

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/topolet/topolet/test/testbed/internal/progress"
)

// need is something from the distribution that a build cannot do without.
type need struct {
	pkg  string
	what string
	have func() bool
}

func inPath(names ...string) func() bool {
	return func() bool {
		for _, n := range names {
			if _, err := exec.LookPath(n); err == nil {
				return true
			}
		}
		return false
	}
}

var needs = []need{
	{"gcc", "a C compiler, for runc", inPath("gcc", "cc", "clang")},
	{"libc6-dev", "the C library's headers, for runc", file("/usr/include/stdio.h")},
	{"pkg-config", "finds libseccomp", inPath("pkg-config")},
	{"libseccomp-dev", "libseccomp's headers, for runc", func() bool {
		return exec.Command("pkg-config", "--exists", "libseccomp").Run() == nil
	}},
}

// machineNeeds are what a virtual machine needs beyond them.
var machineNeeds = []need{
	{"qemu-system-x86", "emulates the NUMA machine", inPath("qemu-system-x86_64")},
	{"e2fsprogs", "makes its file system", inPath("mke2fs")},
	{"xz-utils", "unpacks its kernel's modules", inPath("xz")},
}

func file(path string) func() bool {
	return func() bool { _, err := os.Stat(path); return err == nil }
}

// missing lists the needs that this host does not meet.
func missing(needs []need) []need {
	var list []need
	for _, n := range needs {
		if !n.have() {
			list = append(list, n)
		}
	}
	return list
}

// CheckHeaders fails, naming the remedy, when runc could not be built here.
func CheckHeaders() error { return check(needs, "testbed packages") }

// CheckMachine fails, naming the remedy, when no virtual machine could run here.
func CheckMachine() error { return check(machineNeeds, "testbed numa packages") }

func check(needs []need, command string) error {
	list := missing(needs)
	if len(list) == 0 {
		return nil
	}
	var names []string
	for _, n := range list {
		names = append(names, n.pkg+" ("+n.what+")")
	}
	return fmt.Errorf("missing on this host: %s; run `%s` or install them", strings.Join(names, ", "), command)
}

// InstallPackages installs what is missing with apt-get. When nothing is
// missing it does nothing, on any distribution.
func InstallPackages(ctx context.Context, log *progress.Log) error {
	return install(ctx, log, needs, CheckHeaders)
}

// InstallMachinePackages does the same for what a virtual machine needs.
func InstallMachinePackages(ctx context.Context, log *progress.Log) error {
	return install(ctx, log, machineNeeds, CheckMachine)
}

func install(ctx context.Context, log *progress.Log, needs []need, check func() error) error {
	list := missing(needs)
	if len(list) == 0 {
		log.Printf("packages: everything needed is there")
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.Join(check(), errors.New("apt-get is not there: install the same with this distribution's own tool"))
	}
	args := []string{"install", "-y", "--no-install-recommends"}
	for _, n := range list {
		log.Printf("packages: %s is missing: %s", n.pkg, n.what)
		args = append(args, n.pkg)
	}
	for i, a := range [][]string{{"update", "-qq"}, args} {
		step := log.Start(i+1, 2, "apt-get "+strings.Join(a, " "))
		cmd := exec.CommandContext(ctx, "apt-get", a...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if err := run(cmd); err != nil {
			step.Failed()
			return fmt.Errorf("apt-get %s: %w", a[0], err)
		}
		step.Done("")
	}
	return check()
}
