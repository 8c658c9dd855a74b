package topology

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

const nodeDir = "sys/devices/system/node"

// maxNodes is the most nodes that a kernel can be built for (CONFIG_NODES_SHIFT
// is at most 10).
const maxNodes = 1 << 10

// readNodes fills in the NUMA nodes, and the node of each CPU.
func (s *sysfs) readNodes(m *Machine) {
	names, _ := s.entries(nodeDir)
	for _, id := range numbered(names, "node") {
		if id >= maxNodes {
			break
		}
		dir := nodeDir + "/node" + strconv.Itoa(id)
		m.NUMANodes = append(m.NUMANodes, NUMANode{
			ID:          id,
			CPUs:        s.nodeCPUs(dir).Intersection(m.Online),
			MemoryBytes: s.nodeMemory(dir),
			Distances:   s.nodeDistances(dir),
			Hugepages:   s.nodeHugepages(dir),
		})
	}
	m.findNearestCPUNodes()
	index := make(map[int]int, len(m.CPUs))
	for i := range m.CPUs {
		index[m.CPUs[i].ID] = i
	}
	for _, node := range m.NUMANodes {
		for id := range node.CPUs.All() {
			cpu := &m.CPUs[index[id]]
			// Where nodes overlap, the link in the CPU's own directory decides.
			if cpu.NUMANode == None || s.linked(id, node.ID) && !s.linked(id, cpu.NUMANode) {
				cpu.NUMANode = node.ID
			}
		}
	}
}

// findNearestCPUNodes maps the nodes without CPUs to those with.
func (m *Machine) findNearestCPUNodes() {
	for i := range m.NUMANodes {
		node := &m.NUMANodes[i]
		if !node.CPUs.IsEmpty() {
			continue
		}
		least := math.MaxInt
		for j, other := range m.NUMANodes {
			d, ok := m.nodeDistance(i, j)
			if !ok || other.CPUs.IsEmpty() || d > least {
				continue
			}
			if d < least {
				least, node.NearestCPUNodes = d, nil
			}
			node.NearestCPUNodes = append(node.NearestCPUNodes, other.ID)
		}
	}
}

// linked reports whether the CPU's directory has a link to the node, cpuN/nodeM.
func (s *sysfs) linked(cpu, node int) bool {
	return s.exists(cpuPath(cpu, "node"+strconv.Itoa(node)))
}

// nodeCPUs reads nodeN/cpulist, or nodeN/cpumap of older kernels. A node whose
// memory hangs off another device has an empty list.
func (s *sysfs) nodeCPUs(dir string) CPUSet {
	cpus, ok := s.cpus(dir + "/cpulist")
	if !ok {
		cpus, _ = s.cpuSet(setFile{dir + "/cpumap", mask})
	}
	return cpus
}

// nodeMemory reads MemTotal of nodeN/meminfo: "Node 0 MemTotal:  32489480 kB".
func (s *sysfs) nodeMemory(dir string) *uint64 {
	text, ok := s.read(dir + "/meminfo")
	if !ok {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		_, value, found := strings.Cut(line, "MemTotal:")
		if !found {
			continue
		}
		number, isKiB := strings.CutSuffix(strings.TrimSpace(value), "kB")
		kib, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64)
		if !isKiB || err != nil || kib > math.MaxUint64>>10 {
			return nil
		}
		bytes := kib << 10
		return &bytes
	}
	return nil
}

// nodeDistances reads nodeN/distance: "10 21 21 28".
func (s *sysfs) nodeDistances(dir string) []int {
	text, ok := s.read(dir + "/distance")
	if !ok {
		return nil
	}
	var distances []int
	for field := range strings.FieldsSeq(string(text)) {
		d, err := strconv.ParseUint(field, 10, 31)
		if err != nil {
			return nil
		}
		distances = append(distances, int(d))
	}
	return distances
}

// nodeHugepages reads nodeN/hugepages/hugepages-2048kB/nr_hugepages.
func (s *sysfs) nodeHugepages(dir string) []Hugepages {
	var pages []Hugepages
	names, _ := s.entries(dir + "/hugepages")
	for _, name := range names {
		size, ok := strings.CutPrefix(name, "hugepages-")
		if !ok {
			continue
		}
		size, ok = strings.CutSuffix(size, "kB")
		kib, err := strconv.ParseUint(size, 10, 64)
		if !ok || err != nil || kib == 0 || kib > math.MaxUint64>>10 {
			continue
		}
		if total, ok := s.unsigned(dir + "/hugepages/" + name + "/nr_hugepages"); ok {
			pages = append(pages, Hugepages{SizeBytes: kib << 10, Total: total})
		}
	}
	slices.SortFunc(pages, func(a, b Hugepages) int { return cmp.Compare(a.SizeBytes, b.SizeBytes) })
	return pages
}
