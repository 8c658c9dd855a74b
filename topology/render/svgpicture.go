package render

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

// The shapes that are aimed for, width to height.
const (
	groupRatio = 1.6
	coreRatio  = 3.2
)

// picture is a machine on its way to become boxes.
type picture struct {
	m       *topology.Machine
	pci     pciTree
	holders holders
	keyed   bool
	// devices are the boxes that go to a branch.
	devices map[*branch][]*box
	// cellWidth is that of a CPU, wide enough for all of them.
	cellWidth int
}

// page is the whole picture.
func (p *picture) page() *box {
	widest := ""
	for _, c := range p.m.CPUs {
		if id := strconv.Itoa(c.ID); len(id) > len(widest) {
			widest = id
		}
	}
	p.cellWidth = textWidth(widest) + 6
	if p.keyed {
		p.cellWidth = max(p.cellWidth, textWidth(key(len(p.holders.list)))+6)
	}
	top, crossing := nest(p.m)
	p.devices = map[*branch][]*box{}
	p.placePCI(top)
	machine := p.branch(top)
	p.addMemory(machine, top)
	machine.measure()

	width := max(machine.w, wideEnough)
	page := &box{class: "page"}
	add := func(ratio float64, boxes ...*box) {
		if len(boxes) > 0 {
			page.sections = append(page.sections, section{boxes: boxes, ratio: ratio})
		}
	}
	add(groupRatio, p.summary(width))
	add(groupRatio, machine)
	if len(crossing) > 0 {
		lines := []string{"across the above:"}
		for _, t := range crossing {
			lines = append(lines, wrap(t.name+": "+cpuWord(t.cpus), width-2*padding)...)
		}
		add(groupRatio, textBox("note", "", lines...))
	}
	add(0, p.legend(width)...)
	return page
}

// summary is what the tree has at its top, too.
func (p *picture) summary(width int) *box {
	var text strings.Builder
	writeSummary(&text, p.m)
	var lines []string
	for line := range strings.Lines(text.String()) {
		lines = append(lines, wrap(line, width-2*padding)...)
	}
	return textBox("note", "", lines...)
}

// branch is a socket, a node, a cache …, with all that is in it.
func (p *picture) branch(b *branch) *box {
	slices.SortStableFunc(b.children, func(a, c *branch) int { return cmp.Compare(a.cpus.First(), c.cpus.First()) })
	out := &box{class: b.class(), title: b.names(), tip: b.names() + ": " + cpuWord(b.cpus)}
	if memory := p.memoryIn(b); len(memory) > 0 {
		out.sections = append(out.sections, section{boxes: memory, ratio: groupRatio})
	}
	rest := b.cpus
	var children []*box
	for _, child := range b.children {
		rest = rest.Difference(child.cpus)
		children = append(children, p.branch(child))
	}
	groups := section{boxes: children, ratio: groupRatio}
	cores := section{boxes: p.cores(rest), ratio: coreRatio, close: true}
	sections := []section{groups, cores}
	if len(b.children) > 0 && !rest.IsEmpty() && rest.First() < b.children[0].cpus.First() {
		slices.Reverse(sections)
	}
	sections = append(sections, section{boxes: p.devices[b]})
	for _, s := range sections {
		if len(s.boxes) > 0 {
			out.sections = append(out.sections, s)
		}
	}
	return out
}

// class is that of the thing that matters most.
func (b *branch) class() string {
	has := func(r rank) bool { return slices.ContainsFunc(b.things, func(t thing) bool { return t.rank == r }) }
	switch {
	case has(nodeRank):
		return "node"
	case has(machineRank):
		return "machine"
	case has(socketRank), has(dieRank):
		return "socket"
	}
	return "cache"
}

// memoryIn is the memory of the nodes that are this branch.
func (p *picture) memoryIn(b *branch) []*box {
	var boxes []*box
	for _, t := range b.things {
		if t.rank != nodeRank {
			continue
		}
		if n, ok := p.m.NUMANode(t.id); ok {
			boxes = append(boxes, memoryBox(n, len(b.nodes()) > 1, ""))
		}
	}
	return boxes
}

// addMemory adds the nodes that are no branch, most of them without CPUs.
func (p *picture) addMemory(machine *box, top *branch) {
	placed := map[int]bool{}
	var walk func(*branch)
	walk = func(b *branch) {
		for _, t := range b.things {
			if t.rank == nodeRank {
				placed[t.id] = true
			}
		}
		for _, child := range b.children {
			walk(child)
		}
	}
	walk(top)
	var boxes []*box
	for _, n := range p.m.NUMANodes {
		if placed[n.ID] {
			continue
		}
		cpus := nodeCPUs(n)
		switch {
		case cpus == "-":
			cpus = "no CPUs"
		case n.CPUs.IsEmpty():
			cpus = strings.Replace(cpus, "none", "no CPUs", 1)
		default:
			cpus = cpuWord(n.CPUs)
		}
		boxes = append(boxes, memoryBox(n, true, cpus))
	}
	if len(boxes) > 0 {
		machine.sections = append(machine.sections, section{boxes: boxes})
	}
}

// memoryBox shows the memory of a node; named is for a node that is no box itself.
func memoryBox(n topology.NUMANode, named bool, where string) *box {
	memory := "memory unknown"
	if n.MemoryBytes != nil {
		memory = "memory " + size(*n.MemoryBytes)
	}
	lines := []string{memory}
	if named {
		lines[0] = fmt.Sprintf("NUMA node %d: %s", n.ID, memory)
	}
	if pages := hugepages(n); pages != "-" {
		lines = append(lines, pages)
	}
	if where != "" {
		lines = append(lines, where)
	}
	b := textBox("memory", fmt.Sprintf("NUMA node %d: %s, distances %s", n.ID, memory, distances(n, 0)), lines...)
	b.id = fmt.Sprintf("node-%d", n.ID)
	return b
}

// cores draws CPUs, those of a core together.
func (p *picture) cores(cpus topology.CPUSet) []*box {
	var boxes []*box
	for id := range cpus.All() {
		cpu, _ := p.m.CPU(id)
		core := topology.NewCPUSet(id)
		if cpu.Core != topology.None {
			core = p.m.Cores[cpu.Core].CPUs.Intersection(cpus)
		}
		if core.First() == id {
			boxes = append(boxes, p.core(cpu, core))
		}
	}
	return boxes
}

// core is one core. On a machine of several kinds, it says which it is.
func (p *picture) core(first topology.CPU, cpus topology.CPUSet) *box {
	b := &box{class: "core " + string(first.CoreType), tip: "core: " + cpuWord(cpus)}
	var cells []*box
	for id := range cpus.All() {
		cells = append(cells, p.cpu(id))
	}
	threads := section{boxes: cells, close: true, ratio: 4}
	if first.CoreType != topology.Standard {
		b.tip = string(first.CoreType) + " " + b.tip
		// A letter before the threads, as wide as needed.
		letter := &box{class: "kind", lines: []string{strings.ToUpper(string(first.CoreType[:1]))}, w: 12, h: cells[0].h}
		pair := &box{sections: []section{{boxes: cells, close: true, ratio: 4}}}
		threads = section{boxes: []*box{letter, pair}, close: true, ratio: 1000}
	}
	b.sections = []section{threads}
	return b
}

// cpu is one CPU, and whose it is.
func (p *picture) cpu(id int) *box {
	b := &box{class: "cpu", id: fmt.Sprintf("cpu-%d", id), tip: fmt.Sprintf("CPU %d", id), lines: []string{strconv.Itoa(id)}}
	b.w, b.h = p.cellWidth, lineHeight+6
	if b.hatched = p.m.Isolated.Contains(id); b.hatched {
		b.tip += ", isolated"
	}
	if !p.keyed {
		return b
	}
	b.h += lineHeight - 2
	if holder, held := p.holders.of[id]; held {
		b.class += " held " + fill(holder)
		b.tip += ", held by " + p.holders.list[holder].Name
		b.lines = append(b.lines, key(holder))
	} else {
		b.tip += ", not claimed"
		b.lines = append(b.lines, "")
	}
	return b
}

// legend explains what needs it.
func (p *picture) legend(width int) []*box {
	var boxes []*box
	add := func(key, keyClass string, hatched bool, name string, cpus topology.CPUSet) {
		const room = 4*padding + 24
		lines := wrap(name, min(width, wideEnough)-room)
		lines = append(lines, cut(cpuWord(cpus), min(width, wideEnough)-room))
		b := textBox("legend", name+": "+cpuWord(cpus), lines...)
		b.key, b.keyClass, b.hatched = key, keyClass, hatched
		b.w += room - 2*padding
		b.h = max(b.h, 2*lineHeight+padding)
		boxes = append(boxes, b)
	}
	held := topology.CPUSet{}
	for i, h := range p.holders.list {
		name := h.Name
		if gone := h.CPUs.Difference(p.m.Online); !gone.IsEmpty() {
			name += " (not online here: " + gone.String() + ")"
		}
		add(key(i), "held "+fill(i), false, name, h.CPUs)
		held = held.Union(h.CPUs)
	}
	if !p.m.Isolated.IsEmpty() {
		add("", "cpu", true, "isolated (isolcpus)", p.m.Isolated)
	}
	if pool := p.m.Online.Difference(held).Difference(p.m.Isolated); p.keyed && !pool.IsEmpty() {
		add("", "cpu", false, "shared pool", pool)
	}
	return boxes
}
