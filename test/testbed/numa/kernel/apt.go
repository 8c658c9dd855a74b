package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// metaPackage depends on the newest kernel for virtual machines.
const metaPackage = "linux-image-cloud-amd64"

// download fetches the kernel's package and returns the folder that it is
// unpacked in. The host's own sources come first, then its release's backports
// from the same mirror.
func download(ctx context.Context, work string) (string, error) {
	pkg, err := apt{}.kernelPackage(ctx)
	a := apt{}
	if err != nil {
		if a, err = backports(ctx, work); err != nil {
			return "", err
		}
		if pkg, err = a.kernelPackage(ctx); err != nil {
			return "", fmt.Errorf("a kernel of %d.%d or newer is neither in this host's package sources nor in its backports: %w", oldest[0], oldest[1], err)
		}
	}
	fetched := filepath.Join(work, "package")
	tree := filepath.Join(work, "tree")
	if err := os.Mkdir(fetched, 0o755); err != nil {
		return "", fmt.Errorf("download the kernel: %w", err)
	}
	if _, err := a.run(ctx, fetched, "apt-get", "download", "-qq", pkg); err != nil {
		return "", fmt.Errorf("download the kernel: %w", err)
	}
	debs, err := filepath.Glob(filepath.Join(fetched, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("download the kernel: apt-get left %d packages, not one: %w", len(debs), err)
	}
	_, err = apt{}.run(ctx, work, "dpkg-deb", "-x", debs[0], tree)
	return tree, err
}

// apt runs the package tools with options of its own.
type apt struct{ options []string }

func (a apt) run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, append(a.options, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is not there: the machine's kernel is a Debian package: %w", name, err)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// kernelPackage is the package that metaPackage depends on, if it is new
// enough.
func (a apt) kernelPackage(ctx context.Context) (string, error) {
	out, err := a.run(ctx, "", "apt-cache", "show", "--no-all-versions", metaPackage)
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

// keyring signs Debian's archive.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// backports reads the package lists of this release's backports into work. The
// mirror is the one that this host uses already.
func backports(ctx context.Context, work string) (apt, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return apt{}, fmt.Errorf("read which release this host has: %w", err)
	}
	targets, err := apt{}.run(ctx, "", "apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return apt{}, err
	}
	sources, err := backportsSources(string(release), targets)
	if err != nil {
		return apt{}, err
	}
	file := filepath.Join(work, "backports.sources")
	if err := os.WriteFile(file, []byte(sources), 0o644); err != nil {
		return apt{}, fmt.Errorf("write the package sources: %w", err)
	}
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			return apt{}, fmt.Errorf("make a folder for package lists: %w", err)
		}
	}
	a := apt{options: []string{
		"-o", "Dir::Etc::sourcelist=" + file,
		"-o", "Dir::Etc::sourceparts=-",
		"-o", "Dir::State::lists=" + filepath.Join(work, "lists"),
		"-o", "Dir::Cache=" + filepath.Join(work, "cache"),
	}}
	_, err = a.run(ctx, work, "apt-get", "update", "-qq")
	return a, err
}

// backportsSources is a source of the release's backports at the mirror that
// apt's list of index files names for the release itself.
func backportsSources(osRelease, targets string) (string, error) {
	fields := map[string]string{}
	for line := range strings.Lines(osRelease) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[k] = strings.Trim(v, `"`)
	}
	codename := fields["VERSION_CODENAME"]
	if fields["ID"] != "debian" || codename == "" {
		return "", fmt.Errorf("this host is %q: its own package sources have no kernel that is new enough, and only Debian's backports are known as another source", fields["PRETTY_NAME"])
	}
	for line := range strings.Lines(targets) {
		if t := strings.Fields(line); len(t) == 3 && t[1] == codename && t[2] == "main" {
			return fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s-backports\nComponents: main\nSigned-By: %s\n", t[0], codename, keyring), nil
		}
	}
	return "", fmt.Errorf("this host's package sources do not have the main part of Debian %s: add it, then try again", codename)
}
