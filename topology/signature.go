package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Signature returns a text that is another one after CPUs went offline or came
// back, or NUMA nodes, memory, huge pages or PCI functions appeared or vanished. It
// reads a few files, where [Discover] reads thousands: who keeps a machine's picture up to
// date asks for it often, and discovers anew when it has changed.
func Signature(fsys fs.FS) (string, error) {
	var b strings.Builder
	for _, name := range []string{
		"sys/devices/system/cpu/online",
		"sys/devices/system/node/online",
		"sys/devices/system/node/has_memory",
	} {
		data, err := fs.ReadFile(fsys, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("signature of the machine: %w", err)
		}
		b.Write(data)
		b.WriteByte('\n')
	}
	hugepages, err := fs.Glob(fsys, "sys/devices/system/node/node*/hugepages/hugepages-*/nr_hugepages")
	if err != nil {
		return "", fmt.Errorf("signature of the machine: %w", err)
	}
	for _, name := range hugepages {
		data, err := fs.ReadFile(fsys, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("signature of the machine: %w", err)
		}
		fmt.Fprintf(&b, "%s %s", name, data)
	}
	functions, err := fs.ReadDir(fsys, "sys/bus/pci/devices")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("signature of the machine: %w", err)
	}
	for _, f := range functions {
		b.WriteString(f.Name())
		b.WriteByte('\n')
	}
	return b.String(), nil
}
