// Package apt runs Debian's package tools: on the package sources of this host, or on
// those and the backports of its release, which leaves the host's own sources and package
// lists as they are.
package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Tools are the package tools with package sources. The zero value has the host's own.
type Tools struct{ options []string }

// Run runs one of the tools in a folder, or in the current one, and returns what it printed.
func (t Tools) Run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, slices.Concat(t.options, args)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is not there: this works on Debian only: %w", name, err)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// ownSources are the folder and the file with the host's sources.
const (
	ownSources     = "/etc/apt/sources.list.d"
	ownSourcesFile = "/etc/apt/sources.list"
)

// keyring signs Debian's archive.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Backports are the tools that prefer the backports of the host's release. Their lists and
// what they download are in the folder work. The mirror is the one that this host uses
// already.
func Backports(ctx context.Context, work string) (Tools, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return Tools{}, fmt.Errorf("read which release this host has: %w", err)
	}
	targets, err := Tools{}.Run(ctx, "", "apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return Tools{}, err
	}
	sources, suite, err := backportsSources(string(release), targets)
	if err != nil {
		return Tools{}, err
	}
	for _, dir := range []string{"sources", "lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			return Tools{}, fmt.Errorf("make a folder for package lists: %w", err)
		}
	}
	parts := filepath.Join(work, "sources")
	own, err := filepath.Glob(ownSources + "/*")
	if err != nil {
		return Tools{}, fmt.Errorf("list the host's package sources: %w", err)
	}
	for _, file := range own {
		if err := os.Symlink(file, filepath.Join(parts, filepath.Base(file))); err != nil {
			return Tools{}, fmt.Errorf("take over the host's package sources: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(parts, "topolet-backports.sources"), []byte(sources), 0o644); err != nil {
		return Tools{}, fmt.Errorf("write the package sources: %w", err)
	}
	t := Tools{options: []string{
		"-o", "Dir::Etc::sourcelist=" + ownSourcesFile,
		"-o", "Dir::Etc::sourceparts=" + parts,
		"-o", "Dir::State::lists=" + filepath.Join(work, "lists"),
		"-o", "Dir::Cache=" + filepath.Join(work, "cache"),
		"-o", "APT::Default-Release=" + suite,
	}}
	// The release is not known before there are lists.
	_, err = Tools{options: t.options[:len(t.options)-2]}.Run(ctx, work, "apt-get", "update", "-qq")
	return t, err
}

// backportsSources is a source of the release's backports, and their name, at the mirror
// that apt's list of index files names for the release itself.
func backportsSources(osRelease, targets string) (sources, suite string, err error) {
	fields := map[string]string{}
	for line := range strings.Lines(osRelease) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[k] = strings.Trim(v, `"`)
	}
	codename := fields["VERSION_CODENAME"]
	if fields["ID"] != "debian" || codename == "" {
		return "", "", fmt.Errorf("this host is %q: its own package sources have nothing that is new enough, and only Debian's backports are known as another source", fields["PRETTY_NAME"])
	}
	for line := range strings.Lines(targets) {
		if t := strings.Fields(line); len(t) == 3 && t[1] == codename && t[2] == "main" {
			suite = codename + "-backports"
			return fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n", t[0], suite, keyring), suite, nil
		}
	}
	return "", "", fmt.Errorf("this host's package sources do not have the main part of Debian %s: add it, then try again", codename)
}
