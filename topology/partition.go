package topology

// A partition sorts the CPUs of a machine into disjoint groups by what each of
// them says about itself.
//
// CPUs are together when they name the same set of online CPUs. On a sound
// machine that is all there is to it. On a damaged one it means that every CPU
// ends up in at most one group, whatever the files say and in whatever order,
// and that one wrong file moves only the CPU that it belongs to.
type partition struct {
	m *Machine
	// byText spares parsing: the kernel prints the same text for every CPU of a
	// group. One map for each format, as "1" is CPU 1 in a list, CPU 0 in a mask.
	byText [setFormats]map[string]int
	byList map[string]int
	sets   []CPUSet
	// of is for each CPU of the machine the index of its set, or one of the below.
	of []int
}

const (
	without = -1 // the machine says that this CPU is in no group
	unsaid  = -2 // it is in some group, but does not say which
)

func newPartition(m *Machine) *partition {
	p := &partition{m: m, byList: map[string]int{}, of: make([]int, len(m.CPUs))}
	for f := range p.byText {
		p.byText[f] = map[string]int{}
	}
	for i := range p.of {
		p.of[i] = without
	}
	return p
}

// silent records that the CPU at index i has this level, but no usable statement
// about it. It goes with those that name it.
func (p *partition) silent(i int) { p.of[i] = unsaid }

// state records the set that the CPU at index i names. It reports whether that
// is usable: a set that does not hold the CPU itself is another CPU's.
func (p *partition) state(i int, text []byte, format setFormat) bool {
	set, known := p.byText[format][string(text)]
	if !known {
		set = p.parse(string(text), format)
		p.byText[format][string(text)] = set
	}
	if set < 0 || !p.sets[set].Contains(p.m.CPUs[i].ID) {
		return false
	}
	p.of[i] = set
	return true
}

// parse returns the index of the set, without for what is no set.
func (p *partition) parse(text string, format setFormat) int {
	cpus, err := format.of(text)
	if err != nil {
		return without
	}
	cpus = cpus.Intersection(p.m.Online)
	name := cpus.String()
	set, known := p.byList[name]
	if !known {
		set = len(p.sets)
		p.byList[name] = set
		p.sets = append(p.sets, cpus)
	}
	return set
}

// groups returns the groups in the order of their lowest CPUs, and sets the
// label of every CPU to the index of its group. describe is called for each
// group with the index of its lowest CPU.
func (p *partition) groups(label func(*CPU) *int, describe func(g *Group, first int)) []Group {
	p.settle()
	members := make([][]int, len(p.sets))
	for i, set := range p.of {
		if set >= 0 {
			members[set] = append(members[set], p.m.CPUs[i].ID)
		}
	}
	index := make([]int, len(p.sets))
	var groups []Group
	for i, set := range p.of {
		if set < 0 {
			continue
		}
		if p.m.CPUs[i].ID == members[set][0] {
			index[set] = len(groups)
			cpus := p.sets[set]
			if cpus.Size() != len(members[set]) {
				cpus = NewCPUSet(members[set]...)
			}
			g := Group{KernelID: None, CPUs: cpus}
			describe(&g, i)
			groups = append(groups, g)
		}
		*label(&p.m.CPUs[i]) = index[set]
	}
	return groups
}

// settle sends each CPU that did not say to the first set that names it and that
// belongs to somebody.
func (p *partition) settle() {
	owner := map[int]int{}
	seen := make([]bool, len(p.sets))
	unsettled := 0
	for _, set := range p.of {
		if set == unsaid {
			unsettled++
		}
	}
	if unsettled == 0 {
		return
	}
	for _, set := range p.of {
		if set < 0 || seen[set] {
			continue
		}
		seen[set] = true
		for id := range p.sets[set].All() {
			if _, taken := owner[id]; !taken {
				owner[id] = set
			}
		}
	}
	for i, set := range p.of {
		if set != unsaid {
			continue
		}
		if named, ok := owner[p.m.CPUs[i].ID]; ok {
			p.of[i] = named
		} else {
			p.of[i] = without
		}
	}
}
