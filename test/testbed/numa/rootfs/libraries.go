package rootfs

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// LibraryFolders are where this host's dynamic linker looks: what its
// configuration names, then what it knows by itself.
func LibraryFolders() []string {
	return append(configured("/etc/ld.so.conf"), "/lib64", "/usr/lib64", "/lib", "/usr/lib")
}

// configured reads a configuration of the dynamic linker. What cannot be read
// names no folders.
func configured(file string) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var dirs []string
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[0] == "include":
			included, _ := filepath.Glob(filepath.Join(filepath.Dir(file), fields[1]))
			if filepath.IsAbs(fields[1]) {
				included, _ = filepath.Glob(fields[1])
			}
			for _, i := range included {
				dirs = append(dirs, configured(i)...)
			}
		case len(fields) == 1 && filepath.IsAbs(fields[0]):
			dirs = append(dirs, fields[0])
		}
	}
	return dirs
}

// Libraries are the dynamic linker and the shared libraries that the programs
// need, and those that these need, at the paths where this host has them.
func Libraries(folders []string, programs ...string) ([]Entry, error) {
	var entries []Entry
	add := func(path string) bool {
		if slices.ContainsFunc(entries, func(e Entry) bool { return e.Path == path }) {
			return false
		}
		entries = append(entries, Entry{Path: path, Source: path})
		return true
	}
	queue := slices.Clone(programs)
	for len(queue) > 0 {
		file := queue[0]
		queue = queue[1:]
		linker, needed, err := requirements(file)
		if err != nil {
			return nil, fmt.Errorf("read which libraries %s needs: %w", file, err)
		}
		if linker != "" {
			add(linker)
		}
		for _, name := range needed {
			path, ok := locate(folders, name)
			if !ok {
				return nil, fmt.Errorf("%s needs the library %s, which is in none of %s", file, name, strings.Join(folders, ", "))
			}
			if add(path) {
				queue = append(queue, path)
			}
		}
	}
	return entries, nil
}

func locate(folders []string, name string) (string, bool) {
	for _, dir := range folders {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, true
		}
	}
	return "", false
}

// requirements reads the dynamic linker and the libraries that a program names.
func requirements(file string) (linker string, needed []string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			data, err := io.ReadAll(p.Open())
			if err != nil {
				return "", nil, err
			}
			linker = strings.TrimRight(string(data), "\x00")
		}
	}
	needed, err = f.ImportedLibraries()
	// A static program imports nothing.
	if errors.Is(err, elf.ErrNoSymbols) {
		err = nil
	}
	return linker, needed, err
}
