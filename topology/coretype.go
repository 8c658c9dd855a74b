package topology

import (
	"slices"
)

// readCoreTypes tells apart the kinds of cores of a hybrid machine. Only the
// kernel's own statements count: clock frequencies differ between cores of one
// kind too (favoured cores), so they decide nothing.
func (s *sysfs) readCoreTypes(m *Machine) {
	if !s.coreTypesByPMU(m) {
		s.coreTypesByCapacity(m)
	}
}

// coreTypesByPMU reads the CPUs of the performance-monitoring units that an
// Intel hybrid has one of for each kind of core:
//
//	sys/devices/cpu_core/cpus      performance
//	sys/devices/cpu_atom/cpus      efficiency
//	sys/devices/cpu_lowpower/cpus  efficiency, on the SoC tile
func (s *sysfs) coreTypesByPMU(m *Machine) bool {
	performance, ok := s.cpus("sys/devices/cpu_core/cpus")
	if !ok {
		return false
	}
	efficiency, ok := s.cpus("sys/devices/cpu_atom/cpus")
	if !ok {
		return false
	}
	if lowPower, ok := s.cpus("sys/devices/cpu_lowpower/cpus"); ok {
		efficiency = efficiency.Union(lowPower)
	}
	if !performance.Union(efficiency).Intersects(m.Online) {
		return false
	}
	for i := range m.CPUs {
		switch id := m.CPUs[i].ID; {
		case performance.Contains(id):
			m.CPUs[i].CoreType = Performance
		case efficiency.Contains(id):
			m.CPUs[i].CoreType = Efficiency
		}
	}
	return true
}

// capacityStep is the step in cpu_capacity, in percent of the higher value,
// from which on two CPUs are of different kinds. Cores of one design differ by
// up to a few percent with the clock they are allowed.
const capacityStep = 8

// coreTypesByCapacity reads cpuN/cpu_capacity, the scheduler's measure of a
// CPU relative to the fastest one, which is 1024. Where there are more than two
// kinds, those in between stay standard.
func (s *sysfs) coreTypesByCapacity(m *Machine) {
	capacity := make([]int, len(m.CPUs))
	var values []int
	for i, cpu := range m.CPUs {
		if !s.populated.Contains(cpu.ID) {
			continue
		}
		// The bound keeps the percentage below from overflowing.
		if c, ok := s.integer(cpuPath(cpu.ID, "cpu_capacity")); ok && c > 0 && c <= 1<<20 {
			capacity[i] = c
			values = append(values, c)
		}
	}
	slices.Sort(values)
	// lowest is the top of the lowest kind, highest the bottom of the highest.
	lowest, highest := None, None
	for i := 1; i < len(values); i++ {
		if (values[i]-values[i-1])*100 > values[i]*capacityStep {
			if lowest == None {
				lowest = values[i-1]
			}
			highest = values[i]
		}
	}
	if lowest == None {
		return
	}
	for i, c := range capacity {
		switch {
		case c == 0:
		case c <= lowest:
			m.CPUs[i].CoreType = Efficiency
		case c >= highest:
			m.CPUs[i].CoreType = Performance
		}
	}
}
