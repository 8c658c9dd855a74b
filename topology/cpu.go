package topology

import (
	"errors"
	"strconv"
)

const cpuDir = "sys/devices/system/cpu"

// cpuPath returns the path of an entry in a CPU's directory.
func cpuPath(id int, entry string) string {
	return cpuDir + "/cpu" + strconv.Itoa(id) + "/" + entry
}

// readCPUs finds the CPUs. It fails if none is online.
func (s *sysfs) readCPUs(m *Machine) error {
	names, cause := s.entries(cpuDir)
	var present []int
	for _, id := range numbered(names, "cpu") {
		if id < MaxCPUs {
			present = append(present, id)
		}
	}
	s.populated = NewCPUSet(present...)

	online, ok := s.cpus(cpuDir + "/online")
	if !ok || online.IsEmpty() {
		online = s.onlineByDirectory()
	}
	if online.IsEmpty() {
		if cause == nil {
			cause = errors.New("neither an online file nor a cpuN/topology directory")
		}
		return cause
	}
	m.Online = online

	// Not cpu/offline: it also names CPUs that are possible but do not exist.
	all, ok := s.cpus(cpuDir + "/present")
	if !ok {
		all = s.populated
	}
	m.Offline = all.Difference(online)

	if isolated, ok := s.cpus(cpuDir + "/isolated"); ok {
		m.Isolated = isolated.Intersection(online)
	}
	if nohz, ok := s.cpus(cpuDir + "/nohz_full"); ok {
		m.NohzFull = nohz.Intersection(online)
	}

	m.CPUs = make([]CPU, 0, online.Size())
	for id := range online.All() {
		m.CPUs = append(m.CPUs, CPU{
			ID: id, Socket: None, Die: None, Cluster: None, L3: None, L2: None, Core: None,
			NUMANode: None, CoreType: Standard,
		})
	}
	return nil
}

// onlineByDirectory finds the online CPUs where the kernel is too old for
// cpu/online: the kernel removes the topology directory of an offline CPU, and
// cpuN/online is missing for CPUs that cannot be taken offline.
func (s *sysfs) onlineByDirectory() CPUSet {
	var ids []int
	for id := range s.populated.All() {
		if v, ok := s.integer(cpuPath(id, "online")); ok && v != 1 {
			continue
		}
		if s.isDir(cpuPath(id, "topology")) {
			ids = append(ids, id)
		}
	}
	return NewCPUSet(ids...)
}
