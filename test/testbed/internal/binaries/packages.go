package binaries

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/topolet/topolet/test/testbed/internal/apt"
	"github.com/topolet/topolet/test/testbed/internal/progress"
	"github.com/topolet/topolet/test/testbed/numa/machine"
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
	{"qemu-system-x86", fmt.Sprintf("QEMU %d or newer, which emulates the NUMA machine", oldestQEMU), hasQEMU},
	{"e2fsprogs", "makes its file system", inPath("mke2fs")},
	{"xz-utils", "unpacks its kernel's modules", inPath("xz")},
}

// oldestQEMU has a network card with VFs, and emulates all that its CPUs say they have.
const oldestQEMU = 10

func hasQEMU() bool {
	out, err := exec.Command(machine.Program, "--version").Output() //nolint:noctx // it ends at once
	return err == nil && qemuVersion(string(out)) >= oldestQEMU
}

// qemuVersion is the first number of what QEMU says of itself, or 0:
//
//	QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)
func qemuVersion(text string) int {
	_, version, _ := strings.Cut(text, "QEMU emulator version ")
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		return 0
	}
	return n
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

// install takes what this host's package sources do not have, or have too old, from its
// release's backports.
func install(ctx context.Context, log *progress.Log, needs []need, check func() error) error {
	if len(missing(needs)) == 0 {
		log.Printf("packages: everything needed is there")
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.Join(check(), errors.New("apt-get is not there: install the same with this distribution's own tool"))
	}
	if err := installMissing(ctx, log, needs, apt.Tools{}, true); err != nil {
		return err
	}
	if len(missing(needs)) == 0 {
		return nil
	}
	work, err := os.MkdirTemp("", "testbed-packages-")
	if err != nil {
		return fmt.Errorf("make a folder for package lists: %w", err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // a temporary folder
	log.Printf("packages: too old here: taken from the release's backports")
	tools, err := apt.Backports(ctx, work)
	if err != nil {
		return errors.Join(check(), err)
	}
	if err := installMissing(ctx, log, needs, tools, false); err != nil {
		return err
	}
	return check()
}

func installMissing(ctx context.Context, log *progress.Log, needs []need, tools apt.Tools, update bool) error {
	args := []string{"install", "-y", "--no-install-recommends"}
	for _, n := range missing(needs) {
		log.Printf("packages: %s is missing: %s", n.pkg, n.what)
		args = append(args, n.pkg)
	}
	commands := [][]string{args}
	if update {
		commands = [][]string{{"update", "-qq"}, args}
	}
	for i, a := range commands {
		step := log.Start(i+1, len(commands), "apt-get "+strings.Join(a, " "))
		if _, err := tools.Run(ctx, "", "apt-get", a...); err != nil {
			step.Failed()
			return err
		}
		step.Done("")
	}
	return nil
}
