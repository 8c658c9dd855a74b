package topology

import (
	"math"
	"strconv"
	"strings"
)

// sharedFiles name the CPUs that share a cache. Old kernels have the mask only.
var sharedFiles = []setFile{{"shared_cpu_list", list}, {"shared_cpu_map", mask}}

// readCaches fills in the L2 and L3 groups from cpuN/cache/indexM. Which level
// has which index differs from CPU to CPU, so each index is asked for its level.
func (s *sysfs) readCaches(m *Machine) {
	l2, l3 := newCacheLevel(m), newCacheLevel(m)
	for i := range m.CPUs {
		id := m.CPUs[i].ID
		if !s.populated.Contains(id) {
			continue
		}
		names, _ := s.entries(cpuPath(id, "cache"))
		for _, index := range numbered(names, "index") {
			dir := cpuPath(id, "cache/index"+strconv.Itoa(index)+"/")
			switch level, _ := s.integer(dir + "level"); level {
			case 2:
				s.readCache(l2, i, dir)
			case 3:
				s.readCache(l3, i, dir)
			}
		}
	}
	m.L2Groups = s.cacheGroups(l2, func(c *CPU) *int { return &c.L2 })
	m.L3Groups = s.cacheGroups(l3, func(c *CPU) *int { return &c.L3 })
}

// cacheLevel is the L2 or the L3 of all CPUs, while they are read.
type cacheLevel struct {
	*partition
	// dirs are the directories of the caches, for each CPU of the machine.
	dirs []string
}

func newCacheLevel(m *Machine) *cacheLevel {
	return &cacheLevel{partition: newPartition(m), dirs: make([]string, len(m.CPUs))}
}

// readCache reads one cache of the CPU at index i. Where a CPU has two of a
// level, the first that says who shares it counts.
func (s *sysfs) readCache(l *cacheLevel, i int, dir string) {
	if l.of[i] >= 0 {
		return
	}
	// Instruction caches are beside the point. Hypervisors and s390 have Data
	// where others have Unified.
	if kind, ok := s.read(dir + "type"); ok && string(kind) == "Instruction" {
		return
	}
	l.dirs[i] = dir
	if !s.stated(l.partition, i, dir, sharedFiles) {
		l.silent(i)
	}
}

func (s *sysfs) cacheGroups(l *cacheLevel, label func(*CPU) *int) []Group {
	return l.groups(label, func(g *Group, first int) {
		dir := l.dirs[first]
		if id, ok := s.integer(dir + "id"); ok && id >= 0 {
			g.KernelID = id
		}
		if size, ok := s.read(dir + "size"); ok {
			g.CacheBytes = cacheSize(string(size))
		}
	})
}

// cacheSize reads the kernel's form of a cache size, "32768K"; 0 is unknown.
func cacheSize(text string) uint64 {
	number, ok := strings.CutSuffix(text, "K")
	kib, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || kib > math.MaxUint64>>10 {
		return 0
	}
	return kib << 10
}
