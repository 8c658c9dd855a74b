package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/topolet/topolet/test/testbed/internal/mountpoint"
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
}

// Note writes the kernel settings that the kubelet is going to change to file.
// A record that is there already is kept: it speaks of the time before.
func Note(file string) error {
	_, err := read(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r := Record{Settings: map[string]string{}}
	for _, name := range settings {
		value, err := os.ReadFile("/proc/sys/" + name)
		if err == nil {
			r.Settings[name] = strings.TrimSpace(string(value))
		}
	}
	return r.write(file)
}

// Restore puts the kernel settings back as the record in file says. Without a
// record there is nothing to put back.
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
	return errors.Join(errs...)
}

// RemoveMountPoints removes those of the folders that testbeds made and none
// uses any more.
func RemoveMountPoints(dirs []string) error {
	release, err := mountpoint.Lock(true)
	if err != nil {
		return err
	}
	defer release()
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, mountpoint.Remove(dir))
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
