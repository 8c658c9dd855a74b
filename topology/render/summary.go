package render

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

// writeSummary writes what one wants to know first: how much there is, and which
// CPUs are out of the ordinary.
func writeSummary(out *strings.Builder, m *topology.Machine) {
	parts := []string{plural(m.Online.Size(), "CPU")}
	for _, level := range []struct {
		groups []topology.Group
		name   string
	}{{m.Cores, "core"}, {m.Sockets, "socket"}} {
		if len(level.groups) > 0 {
			parts = append(parts, plural(len(level.groups), level.name))
		}
	}
	if len(m.NUMANodes) > 0 {
		parts = append(parts, plural(len(m.NUMANodes), "NUMA node"))
	}
	if memory, known := totalMemory(m); known {
		parts = append(parts, size(memory)+" of memory")
	}
	if n := countDevices(m); n > 0 {
		parts = append(parts, plural(n, "PCI device"))
	}
	out.WriteString(strings.Join(parts, ", ") + "\n")
	for _, special := range []struct {
		name string
		cpus topology.CPUSet
	}{
		{"offline", m.Offline},
		{"isolated", m.Isolated},
		{"without tick (nohz_full)", m.NohzFull},
	} {
		if !special.cpus.IsEmpty() {
			fmt.Fprintf(out, "%s: %s\n", special.name, cpuWord(special.cpus))
		}
	}
}

func totalMemory(m *topology.Machine) (total uint64, known bool) {
	for _, n := range m.NUMANodes {
		if n.MemoryBytes != nil {
			total += *n.MemoryBytes
			known = true
		}
	}
	return total, known
}

// cpuWord names CPUs: "CPU 3", "CPUs 0-3,8".
func cpuWord(cpus topology.CPUSet) string {
	if cpus.Size() == 1 {
		return "CPU " + cpus.String()
	}
	return "CPUs " + cpus.String()
}

// ranges prints ascending numbers as the kernel prints lists: "0-3,8".
func ranges(ids []int) string {
	var parts []string
	for i := 0; i < len(ids); {
		last := i
		for last+1 < len(ids) && ids[last+1] == ids[last]+1 {
			last++
		}
		part := strconv.Itoa(ids[i])
		if last > i {
			part += "-" + strconv.Itoa(ids[last])
		}
		parts = append(parts, part)
		i = last + 1
	}
	return strings.Join(parts, ",")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// size prints bytes in the largest binary unit, with one decimal where the
// number is not whole: "512 KiB", "31.3 GiB".
func size(bytes uint64) string {
	const units = " KMGTPE"
	// The position of the highest bit tells the unit: each takes ten bits.
	unit := max(bits.Len64(bytes)-1, 0) / 10
	if unit == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	shift := uint(unit) * 10
	text := fmt.Sprintf("%.1f", float64(bytes)/float64(uint64(1)<<shift))
	return fmt.Sprintf("%s %ciB", strings.TrimSuffix(text, ".0"), units[unit])
}
