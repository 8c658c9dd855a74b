package render

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/topolet/topolet/topology"
)

// Tree writes the machine for a person at a terminal: a summary, the tree of
// what contains what, with the PCI devices at the CPUs they are near to, and a
// table of the NUMA nodes. Without names, devices go by their numbers.
//
// As in hwloc, a level that brings nothing is not shown: things with the same
// CPUs share a line, a cache or cluster of a single core is the core's own
// affair, and neighbours that look alike are told in one line. So is a PCI bridge
// with a single thing behind it not shown, and what belongs to the chipset is only
// counted.
func Tree(w io.Writer, m *topology.Machine, names PCINames) error {
	return tree(w, m, names, plain)
}

// ColourTree is [Tree] with the NUMA nodes, cores and devices told apart by the
// colours of a terminal.
func ColourTree(w io.Writer, m *topology.Machine, names PCINames) error {
	return tree(w, m, names, coloured)
}

func tree(w io.Writer, m *topology.Machine, names PCINames, p paint) error {
	var out strings.Builder
	writeSummary(&out, m)
	out.WriteByte('\n')
	top, crossing := nest(m)
	attachPCI(top, m, names)
	writeBranch(&out, m, top, p)
	writeCrossing(&out, crossing)
	writeNodes(&out, m)
	_, err := io.WriteString(w, out.String())
	return err
}

// rank orders things with the same CPUs from the outside in.
type rank int

const (
	machineRank rank = iota
	socketRank
	dieRank
	nodeRank
	l3Rank
	clusterRank
	l2Rank
)

// thing is a socket, a node, a cache …: something that holds CPUs.
type thing struct {
	rank rank
	name string
	id   int // the kernel's number, where that is shown
	cpus topology.CPUSet
	// own tells it apart from its neighbours: things with a number of their own
	// are never told in one line.
	own bool
}

// branch is a set of CPUs in the tree, and all the things that hold just these.
type branch struct {
	things   []thing
	cpus     topology.CPUSet
	children []*branch
	// devices are the PCI devices near to just these CPUs.
	devices []line
}

// nest puts each thing into the smallest one that contains it. What crosses
// another, such as an L3 across two NUMA nodes that are larger only in part, has
// no place in a tree and is returned as well.
func nest(m *topology.Machine) (top *branch, crossing []thing) {
	top = &branch{cpus: m.Online, things: []thing{{rank: machineRank, name: "machine", cpus: m.Online, own: true}}}
	for _, t := range things(m) {
		if !top.insert(t) {
			crossing = append(crossing, t)
		}
	}
	return top, crossing
}

// insert expects larger things first. It reports whether there was a place.
func (b *branch) insert(t thing) bool {
	if t.cpus.Equals(b.cpus) {
		b.things = append(b.things, t)
		return true
	}
	for _, child := range b.children {
		if t.cpus.IsSubsetOf(child.cpus) {
			return child.insert(t)
		}
		if t.cpus.Intersects(child.cpus) {
			return false
		}
	}
	b.children = append(b.children, &branch{things: []thing{t}, cpus: t.cpus})
	return true
}

// things lists what is worth a line, the larger first.
func things(m *topology.Machine) []thing {
	var all []thing
	add := func(r rank, groups []topology.Group, own bool, name func(topology.Group) string) {
		for _, g := range groups {
			all = append(all, thing{r, name(g), g.KernelID, g.CPUs, own && g.KernelID != topology.None})
		}
	}
	numbered := func(what string) func(topology.Group) string {
		return func(g topology.Group) string {
			if g.KernelID == topology.None {
				return what
			}
			return fmt.Sprintf("%s %d", what, g.KernelID)
		}
	}
	cache := func(what string) func(topology.Group) string {
		return func(g topology.Group) string {
			if g.CacheBytes == 0 {
				return what
			}
			return what + " " + size(g.CacheBytes)
		}
	}
	add(socketRank, m.Sockets, true, numbered("socket"))
	add(dieRank, m.Dies, true, numbered("die"))
	add(l3Rank, m.L3Groups, false, cache("L3"))
	add(clusterRank, severalCores(m, m.Clusters), false, func(topology.Group) string { return "cluster" })
	add(l2Rank, severalCores(m, m.L2Groups), false, cache("L2"))
	for _, n := range m.NUMANodes {
		if n.CPUs.IsEmpty() {
			continue
		}
		all = append(all, thing{nodeRank, fmt.Sprintf("NUMA node %d", n.ID), n.ID, n.CPUs, true})
	}
	slices.SortStableFunc(all, func(a, b thing) int {
		return cmp.Or(
			cmp.Compare(b.cpus.Size(), a.cpus.Size()),
			cmp.Compare(a.rank, b.rank),
			cmp.Compare(a.cpus.First(), b.cpus.First()),
		)
	})
	return all
}

// severalCores leaves out the groups that are no more than a core.
func severalCores(m *topology.Machine, groups []topology.Group) []topology.Group {
	return slices.DeleteFunc(slices.Clone(groups), func(g topology.Group) bool {
		cpu, ok := m.CPU(g.CPUs.First())
		return g.CPUs.Size() == 1 ||
			ok && cpu.Core != topology.None && g.CPUs.IsSubsetOf(m.Cores[cpu.Core].CPUs)
	})
}

// line is one line of the tree.
type line struct {
	text string
	// first is the lowest CPU: lines are in the order of these.
	first    int
	children []line
	// device is a line about PCI.
	device bool
}

func writeBranch(out *strings.Builder, m *topology.Machine, b *branch, p paint) {
	top := toLine(m, b)
	out.WriteString(p(top) + "\n")
	writeLines(out, top.children, "", p)
}

func writeLines(out *strings.Builder, lines []line, indent string, p paint) {
	for i, l := range lines {
		branch, below := "├─ ", "│  "
		if i == len(lines)-1 {
			branch, below = "└─ ", "   "
		}
		out.WriteString(indent + branch + p(l) + "\n")
		writeLines(out, l.children, indent+below, p)
	}
}

// toLine turns a branch, and all below it, into lines.
func toLine(m *topology.Machine, b *branch) line {
	slices.SortStableFunc(b.children, func(a, c *branch) int {
		return cmp.Compare(a.cpus.First(), c.cpus.First())
	})
	rest := b.cpus
	for _, child := range b.children {
		rest = rest.Difference(child.cpus)
	}
	kinds := coreKinds(m, rest)
	if len(b.children) == 0 && len(kinds) == 1 {
		return line{
			text:  b.names() + ", " + kinds[0].String() + ": " + kinds[0].list(),
			first: b.cpus.First(), children: b.devices,
		}
	}
	l := line{text: b.names() + ": " + cpuWord(b.cpus), first: b.cpus.First()}
	for i := 0; i < len(b.children); {
		n := alike(m, b.children[i:])
		if n > 1 {
			l.children = append(l.children, together(m, b.children[i:i+n]))
		} else {
			n = 1
			l.children = append(l.children, toLine(m, b.children[i]))
		}
		i += n
	}
	for _, kind := range kinds {
		l.children = append(l.children, line{text: kind.String() + ": " + kind.list(), first: kind.cpus.First()})
	}
	slices.SortStableFunc(l.children, func(a, c line) int { return cmp.Compare(a.first, c.first) })
	l.children = append(l.children, b.devices...)
	return l
}

// names names the things of the branch: "socket 0, NUMA nodes 0-1, L3 8 MiB".
// A die that is the whole socket, or a cluster that is something else as well,
// adds nothing.
func (b *branch) names() string {
	nodes := b.nodes()
	var names []string
	for i, t := range b.things {
		switch {
		case t.rank == dieRank && i > 0 && b.things[i-1].rank == socketRank:
		case t.rank == clusterRank && len(b.things) > 1:
		case t.rank == nodeRank && len(nodes) > 1:
			if t.id == nodes[0] {
				names = append(names, "NUMA nodes "+ranges(nodes))
			}
		default:
			names = append(names, t.name)
		}
	}
	return strings.Join(names, ", ")
}

// nodes are the numbers of the NUMA nodes that are this branch.
func (b *branch) nodes() []int {
	var nodes []int
	for _, t := range b.things {
		if t.rank == nodeRank {
			nodes = append(nodes, t.id)
		}
	}
	return nodes
}

// alike counts how many branches from the first on can be told in one line:
// those without a number of their own that hold the same cores and nothing else.
func alike(m *topology.Machine, branches []*branch) int {
	want := look(m, branches[0])
	n := 1
	for want != "" && n < len(branches) && look(m, branches[n]) == want {
		n++
	}
	return n
}

// look describes a branch that holds nothing but cores of one kind, without
// saying which. It is "" for all other branches.
func look(m *topology.Machine, b *branch) string {
	kinds := coreKinds(m, b.cpus)
	if len(b.children) > 0 || len(b.devices) > 0 || len(kinds) > 1 || slices.ContainsFunc(b.things, func(t thing) bool { return t.own }) {
		return ""
	}
	return b.names() + ", each " + kinds[0].String()
}

// mostLists is how many CPU lists, or addresses, go on one line.
const mostLists = 8

// shortList leaves out the middle of what is too long for a line.
func shortList(lists []string) []string {
	if len(lists) <= mostLists {
		return lists
	}
	return append(slices.Clone(lists[:mostLists-2]), "…", lists[len(lists)-1])
}

// together tells branches that look alike in one line.
func together(m *topology.Machine, branches []*branch) line {
	lists := make([]string, len(branches))
	for i, b := range branches {
		lists[i] = b.cpus.String()
	}
	return line{
		text:  fmt.Sprintf("%d × %s: CPUs %s", len(branches), look(m, branches[0]), strings.Join(shortList(lists), "  ")),
		first: branches[0].cpus.First(),
	}
}

// cores are the cores of one kind among some CPUs.
type cores struct {
	coreType topology.CoreType
	threads  int // 0: CPUs that are in no core
	count    int
	cpus     topology.CPUSet
	first    topology.CPUSet
}

func (c cores) String() string {
	kind := ""
	if c.coreType != topology.Standard {
		kind = string(c.coreType) + " "
	}
	switch c.threads {
	case 0:
		return plural(c.count, kind+"CPU") + " in no known core"
	case 1:
		return plural(c.count, kind+"core")
	}
	return fmt.Sprintf("%s of %d threads", plural(c.count, kind+"core"), c.threads)
}

// list names the CPUs, and which of them are siblings where that is a question.
func (c cores) list() string {
	text := cpuWord(c.cpus)
	if c.threads > 1 && c.count > 1 {
		text += " (siblings " + c.first.String() + " …)"
	}
	return text
}

// coreKinds counts the cores among the CPUs by their kind, in the order of the
// lowest CPUs.
func coreKinds(m *topology.Machine, cpus topology.CPUSet) []cores {
	var kinds []cores
	for id := range cpus.All() {
		cpu, ok := m.CPU(id)
		if !ok {
			continue
		}
		core, threads := topology.NewCPUSet(id), 0
		if cpu.Core != topology.None {
			core = m.Cores[cpu.Core].CPUs.Intersection(cpus)
			threads = core.Size()
		}
		if core.First() != id {
			continue
		}
		at := slices.IndexFunc(kinds, func(k cores) bool { return k.coreType == cpu.CoreType && k.threads == threads })
		if at < 0 {
			at = len(kinds)
			kinds = append(kinds, cores{coreType: cpu.CoreType, threads: threads, first: core})
		}
		kinds[at].count++
		kinds[at].cpus = kinds[at].cpus.Union(core)
	}
	return kinds
}

func writeCrossing(out *strings.Builder, crossing []thing) {
	if len(crossing) == 0 {
		return
	}
	out.WriteString("\nacross the above:\n")
	for _, t := range crossing {
		fmt.Fprintf(out, "  %s: %s\n", t.name, cpuWord(t.cpus))
	}
}
