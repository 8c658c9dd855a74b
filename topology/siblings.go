package topology

// A siblingLevel is a level of the CPU tree that cpuN/topology tells: the CPUs
// that belong together are those which name each other.
type siblingLevel struct {
	// id is the file with the kernel's number. It serves people only, except
	// where tells is set: then the machine has the level only on CPUs whose
	// number tells so.
	id    string
	tells func(id int) bool
	// sets are the files that name the siblings, the first usable one counts.
	// Old kernels have the masks only, older ones other names.
	sets []setFile
}

var (
	socketLevel = siblingLevel{
		id: "topology/physical_package_id",
		sets: []setFile{
			{"topology/package_cpus_list", list}, {"topology/package_cpus", mask},
			{"topology/core_siblings_list", list}, {"topology/core_siblings", mask},
		},
	}
	dieLevel = siblingLevel{
		id: "topology/die_id",
		// -1: the architecture has no dies; die_cpus is then each CPU alone.
		tells: func(id int) bool { return id >= 0 },
		sets:  []setFile{{"topology/die_cpus_list", list}, {"topology/die_cpus", mask}},
	}
	clusterLevel = siblingLevel{
		id: "topology/cluster_id",
		// 65535: what x86 prints for "none" (an unsigned 16-bit -1).
		tells: func(id int) bool { return id >= 0 && id != 0xffff },
		sets:  []setFile{{"topology/cluster_cpus_list", list}, {"topology/cluster_cpus", mask}},
	}
	coreLevel = siblingLevel{
		id: "topology/core_id",
		sets: []setFile{
			{"topology/core_cpus_list", list}, {"topology/core_cpus", mask},
			{"topology/thread_siblings_list", list}, {"topology/thread_siblings", mask},
		},
	}
)

// readSiblings fills in the levels of cpuN/topology.
func (s *sysfs) readSiblings(m *Machine) {
	m.Sockets = s.readSiblingLevel(m, socketLevel, func(c *CPU) *int { return &c.Socket })
	m.Dies = s.readSiblingLevel(m, dieLevel, func(c *CPU) *int { return &c.Die })
	m.Clusters = s.readSiblingLevel(m, clusterLevel, func(c *CPU) *int { return &c.Cluster })
	m.Cores = s.readSiblingLevel(m, coreLevel, func(c *CPU) *int { return &c.Core })
}

// readSiblingLevel reads one level of every CPU; label is the CPU's field for it.
func (s *sysfs) readSiblingLevel(m *Machine, level siblingLevel, label func(*CPU) *int) []Group {
	p := newPartition(m)
	for i := range m.CPUs {
		id := m.CPUs[i].ID
		if !s.populated.Contains(id) {
			p.silent(i)
			continue
		}
		if level.tells != nil {
			if n, ok := s.integer(cpuPath(id, level.id)); !ok || !level.tells(n) {
				continue
			}
		}
		if !s.stated(p, i, cpuPath(id, ""), level.sets) {
			p.silent(i)
		}
	}
	return p.groups(label, func(g *Group, first int) {
		if n, ok := s.integer(cpuPath(m.CPUs[first].ID, level.id)); ok && n >= 0 {
			g.KernelID = n
		}
	})
}

// stated hands the first usable one of the files to the partition as what the
// CPU says of itself.
func (s *sysfs) stated(p *partition, i int, dir string, files []setFile) bool {
	for _, f := range files {
		if text, ok := s.read(dir + f.name); ok && p.state(i, text, f.parse) {
			return true
		}
	}
	return false
}
