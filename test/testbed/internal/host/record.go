package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// settings are the kernel settings that the kubelet changes at its start,
// among them the one that makes a kernel oops restart the machine.
var settings = []string{
	"vm/overcommit_memory", "vm/panic_on_oom",
	"kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// Record remembers what has to be put back on the host.
type Record struct {
	// Settings are kernel settings and their values before.
	Settings map[string]string `json:"settings"`
	// Created are folders outside of the state folder that were made for
	// mounts, parents first.
	Created []string `json:"created"`
}

// Prepare notes the kernel settings and makes the mount points in dirs. The
// record is in file before the host is changed, and is never replaced: it
// speaks of the time before the first call.
func Prepare(file string, dirs []string) error {
	r, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		r = Record{Settings: map[string]string{}}
		for _, name := range settings {
			value, err := os.ReadFile("/proc/sys/" + name)
			if err == nil {
				r.Settings[name] = strings.TrimSpace(string(value))
			}
		}
	} else if err != nil {
		return err
	}
	var create []string
	for _, dir := range dirs {
		var parents []string
		for d := dir; ; d = filepath.Dir(d) {
			if _, err := os.Stat(d); err == nil {
				break
			}
			parents = append([]string{d}, parents...)
		}
		for _, d := range parents {
			if !slices.Contains(create, d) {
				create = append(create, d)
			}
		}
	}
	for _, d := range create {
		if !slices.Contains(r.Created, d) {
			r.Created = append(r.Created, d)
		}
	}
	if err := r.write(file); err != nil {
		return err
	}
	for _, d := range create {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the mount point %s: %w", d, err)
		}
	}
	return nil
}

// Restore puts the host back as the record in file says. Without a record
// there is nothing to put back. A folder that somebody else has begun to use
// stays.
func Restore(file string) error {
	r, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		path := "/proc/sys/" + name
		if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == r.Settings[name] {
			continue
		}
		if err := os.WriteFile(path, []byte(r.Settings[name]), 0); err != nil {
			errs = append(errs, fmt.Errorf("put the kernel setting %s back to %s: %w", name, r.Settings[name], err))
		}
	}
	for i := len(r.Created) - 1; i >= 0; i-- {
		// os.Remove refuses a folder with something in it.
		_ = os.Remove(r.Created[i])
	}
	return errors.Join(errs...)
}

func read(file string) (Record, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		return Record{}, fmt.Errorf("read %s, which says what to put back on the host: %w", file, err)
	}
	return r, nil
}

func (r Record) write(file string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("note the host's settings: %w", err)
	}
	return WriteFile(file, data)
}

// WriteFile writes a file so that it is there completely or not at all.
func WriteFile(file string, data []byte) error {
	temp := file + ".partial"
	if err := os.WriteFile(temp, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.Rename(temp, file); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
