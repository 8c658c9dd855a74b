package topologytest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

const cpuDir = "sys/devices/system/cpu/"

// FS returns the machine's sysfs, as a current kernel shows it. It may be
// changed before use: a file removed, garbled or added.
func FS(s Spec) *Tree {
	s = s.withDefaults()
	b := builder{Spec: s, tree: NewTree(), cpus: s.cpus()}
	b.offline = parse(s.Offline)
	b.writeCPUs()
	b.writeTopology()
	b.writeCaches()
	b.writeCoreTypes()
	if !s.NoNUMA {
		b.writeNodes()
	}
	b.writePCI()
	return b.tree
}

func parse(list string) topology.CPUSet {
	set, err := topology.ParseCPUSet(list)
	if err != nil {
		panic(fmt.Sprintf("topologytest: %v", err))
	}
	return set
}

type builder struct {
	Spec
	tree    *Tree
	cpus    []cpu
	offline topology.CPUSet
	group   int // the last IOMMU group
}

func cpuPath(id int, file string) string { return cpuDir + "cpu" + strconv.Itoa(id) + "/" + file }

// online are the CPUs that have files about what they share.
func (b *builder) online() []cpu {
	var online []cpu
	for _, c := range b.cpus {
		if !b.offline.Contains(c.id) {
			online = append(online, c)
		}
	}
	return online
}

// sharing returns, for each value of the key, the online CPUs that have it: the
// kernel's files about siblings and caches leave out offline CPUs.
func (b *builder) sharing(key func(cpu) int) map[int]topology.CPUSet {
	ids := map[int][]int{}
	for _, c := range b.online() {
		ids[key(c)] = append(ids[key(c)], c.id)
	}
	sets := map[int]topology.CPUSet{}
	for k, v := range ids {
		sets[k] = topology.NewCPUSet(v...)
	}
	return sets
}

// file writes one line, as the kernel does.
func (b *builder) file(name, line string) { b.tree.File(name, line+"\n") }

func (b *builder) writeCPUs() {
	var all []int
	for _, c := range b.cpus {
		all = append(all, c.id)
		b.tree.Dir(cpuPath(c.id, ""))
		if c.id > 0 {
			b.file(cpuPath(c.id, "online"), strconv.Itoa(boolToInt(!b.offline.Contains(c.id))))
		}
	}
	present := topology.NewCPUSet(all...)
	b.file(cpuDir+"present", present.String())
	b.file(cpuDir+"possible", present.String())
	b.file(cpuDir+"online", present.Difference(b.offline).String())
	b.file(cpuDir+"offline", b.offline.String())
	b.file(cpuDir+"isolated", parse(b.Isolated).String())
	nohz := "(null)" // what the kernel prints without the boot parameter
	if b.NohzFull != "" {
		nohz = b.NohzFull
	}
	b.file(cpuDir+"nohz_full", nohz)
}

func (b *builder) writeTopology() {
	coresPerSocket := b.NUMAPerSocket * b.L3PerNUMA * (b.CoresPerL3 + b.EfficiencyCoresPerL3)
	levels := []struct {
		id    string
		files []string
		key   func(cpu) int
		told  func(cpu) int
	}{
		{"physical_package_id", []string{"package_cpus", "core_siblings"},
			func(c cpu) int { return c.socket }, func(c cpu) int { return c.socket }},
		{"core_id", []string{"core_cpus", "thread_siblings"},
			func(c cpu) int { return c.socket*coresPerSocket + c.core }, func(c cpu) int { return c.core }},
		{"die_id", []string{"die_cpus"},
			func(c cpu) int { return c.die }, func(c cpu) int { return c.die % max(b.DiesPerSocket, 1) }},
		{"cluster_id", []string{"cluster_cpus"},
			func(c cpu) int { return c.cluster }, func(c cpu) int { return c.cluster }},
	}
	for _, level := range levels {
		if level.id == "die_id" && b.DiesPerSocket == 0 || level.id == "cluster_id" && b.CoresPerCluster == 0 {
			// The kernel's default where the architecture has no such thing.
			level.key = func(c cpu) int { return c.id }
			level.told = func(cpu) int { return -1 }
		}
		sets := b.sharing(level.key)
		for _, c := range b.online() {
			b.file(cpuPath(c.id, "topology/"+level.id), strconv.Itoa(level.told(c)))
			for _, file := range level.files {
				b.set(cpuPath(c.id, "topology/"+file), "_list", sets[level.key(c)])
			}
		}
	}
}

// set writes the mask to the file, and the list to the one with the suffix.
func (b *builder) set(name, listSuffix string, set topology.CPUSet) {
	b.file(name, b.mask(set))
	b.file(name+listSuffix, set.String())
}

// mask prints the set in the kernel's mask format, as wide as the machine.
func (b *builder) mask(set topology.CPUSet) string {
	words := make([]uint32, (len(b.cpus)+31)/32)
	for id := range set.All() {
		words[id/32] |= 1 << (id % 32)
	}
	var out strings.Builder
	for _, word := range slices.Backward(words) {
		if out.Len() > 0 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "%08x", word)
	}
	return out.String()
}

func (b *builder) writeCaches() {
	core := func(c cpu) int { return c.coreOfMachine }
	caches := []struct {
		level      int
		kind, size string
		key        func(cpu) int
	}{
		{1, "Data", "32K", core},
		{1, "Instruction", "32K", core},
		{2, "Unified", "1024K", func(c cpu) int { return c.l2 }},
		{3, "Unified", "32768K", func(c cpu) int { return c.l3 }},
	}
	if b.NoL3 {
		caches = caches[:3]
	}
	for index, cache := range caches {
		sets := b.sharing(cache.key)
		for _, c := range b.online() {
			dir := cpuPath(c.id, "cache/index"+strconv.Itoa(index)+"/")
			b.file(dir+"level", strconv.Itoa(cache.level))
			b.file(dir+"type", cache.kind)
			b.file(dir+"size", cache.size)
			b.file(dir+"id", strconv.Itoa(cache.key(c)))
			b.tree.File(dir+"shared_cpu_map", b.mask(sets[cache.key(c)])+"\n")
			b.tree.File(dir+"shared_cpu_list", sets[cache.key(c)].String()+"\n")
		}
	}
}

func (b *builder) writeCoreTypes() {
	hybrid := b.EfficiencyCoresPerL3 > 0
	kinds := b.sharing(func(c cpu) int { return boolToInt(c.efficiency) })
	switch {
	case hybrid && b.Capacity:
		for _, c := range b.online() {
			capacity := 1024
			if c.efficiency {
				capacity = 480
			}
			b.file(cpuPath(c.id, "cpu_capacity"), strconv.Itoa(capacity))
		}
	case hybrid:
		b.file("sys/devices/cpu_core/cpus", kinds[0].String())
		b.file("sys/devices/cpu_atom/cpus", kinds[1].String())
	}
}

func boolToInt(v bool) int {
	if v {
		return 1
	}
	return 0
}
