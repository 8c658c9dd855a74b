package render

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

// PCINames returns what the vendor and the device with these numbers are called;
// "" is for what has no name.
type PCINames func(vendor, device int) (vendorName, deviceName string)

// pciTree turns the PCIe tree into lines.
type pciTree struct {
	m     *topology.Machine
	names PCINames
}

// attachPCI hangs each root, with its functions, at the CPUs that they are near
// to. The functions of a root are seldom near to different things; where they
// are, the root is shown at each.
func attachPCI(top *branch, m *topology.Machine, names PCINames) {
	p := pciTree{m, names}
	for _, g := range p.groups() {
		b := top.holding(g.near.CPUs)
		b.devices = append(b.devices, p.rootLine(g.root, g.shown, p.where(g.near, b)))
	}
}

// pciGroup is the part of a root that is near to one thing.
type pciGroup struct {
	root int // topology.None: the functions of which the machine tells no root
	near topology.Locality
	// shown are the functions that go here.
	shown map[int]bool
}

// groups shares out the functions.
func (p pciTree) groups() []pciGroup {
	var groups []pciGroup
	for i, f := range p.m.PCI.Functions {
		if f.Kind != topology.PCIEndpoint || p.isFolded(f) {
			continue
		}
		at := slices.IndexFunc(groups, func(g pciGroup) bool {
			return g.root == f.Root && g.near.NUMANode == f.Locality.NUMANode && g.near.CPUs.Equals(f.Locality.CPUs)
		})
		if at < 0 {
			at = len(groups)
			groups = append(groups, pciGroup{f.Root, f.Locality, map[int]bool{}})
		}
		groups[at].shown[i] = true
	}
	return groups
}

// holding returns the smallest branch that has all these CPUs; without CPUs that
// is the machine.
func (b *branch) holding(cpus topology.CPUSet) *branch {
	if cpus.IsEmpty() {
		return b
	}
	for _, child := range b.children {
		if cpus.IsSubsetOf(child.cpus) {
			return child.holding(cpus)
		}
	}
	return b
}

// isFolded reports whether the function is told with another one: a virtual
// function goes with the physical one.
func (p pciTree) isFolded(f topology.PCIFunction) bool { return f.PhysicalFunction != topology.None }

// where says what the place in the tree does not.
func (p pciTree) where(near topology.Locality, at *branch) string {
	node, _ := p.m.NUMANode(near.NUMANode)
	switch {
	case near.NUMANode != topology.None && node.CPUs.IsEmpty():
		return fmt.Sprintf(" (NUMA node %d)", near.NUMANode)
	case !near.Known() && len(p.m.NUMANodes) > 1:
		return " (near no CPUs in particular)"
	case near.Known() && !near.CPUs.Equals(at.cpus):
		return fmt.Sprintf(" (near %s)", cpuWord(near.CPUs))
	}
	return ""
}

// rootLine tells one root, and those of its functions that are shown.
func (p pciTree) rootLine(root int, shown map[int]bool, where string) line {
	name, top := p.root(root, shown)
	l := line{text: name + where, device: true}
	devices, others := p.collect(top, shown)
	l.children = p.lines(devices)
	switch {
	case len(others) == 0:
	case len(l.children) == 0:
		l.text += ": " + counted(others)
	default:
		l.children = append(l.children, line{text: "also " + counted(others), device: true})
	}
	return l
}

// root returns what a root is called, and what is on its bus; of functions
// without a root, those that are shown.
func (p pciTree) root(root int, shown map[int]bool) (name string, top []int) {
	if root != topology.None {
		return p.m.PCI.Roots[root].String(), p.m.PCI.Roots[root].Children
	}
	return "PCI", slices.Sorted(maps.Keys(shown))
}

// device is a line in the making: a function, or a bridge with at least two.
type device struct {
	text    string
	address topology.PCIAddress
	behind  []device // of a bridge
}

// collect goes down the tree. others are the classes of what is not worth a line.
func (p pciTree) collect(functions []int, shown map[int]bool) (devices []device, others []string) {
	for _, i := range functions {
		f := p.m.PCI.Functions[i]
		if shown[i] {
			if name, worthLine := classOf(f); worthLine {
				devices = append(devices, device{text: p.describe(f, name), address: f.Address})
			} else {
				others = append(others, name)
			}
		}
		behind, more := p.collect(f.Children, shown)
		others = append(others, more...)
		switch {
		case f.Kind.IsBridge() && !sameCard(behind):
			what := "switch "
			if f.Kind == topology.PCIRootPort {
				what = "bridge "
			}
			devices = append(devices, device{text: what, address: f.Address, behind: behind})
		default:
			// A bridge to a single thing brings nothing.
			devices = append(devices, behind...)
		}
	}
	return devices, others
}

// sameCard reports whether the devices are the functions of one, or a single
// switch, or nothing.
func sameCard(devices []device) bool {
	for _, d := range devices {
		first := devices[0]
		if d.address.Bus != first.address.Bus || d.address.Device != first.address.Device || d.address.Domain != first.address.Domain {
			return false
		}
	}
	return true
}

// lines tells devices, those that look alike in one line.
func (p pciTree) lines(devices []device) []line {
	var lines []line
	told := make([]bool, len(devices))
	for i, d := range devices {
		if told[i] {
			continue
		}
		if d.behind != nil {
			lines = append(lines, line{text: d.text + d.address.String(), children: p.lines(d.behind), device: true})
			continue
		}
		var addresses []string
		for j := i; j < len(devices); j++ {
			if devices[j].behind == nil && devices[j].text == d.text {
				told[j] = true
				addresses = append(addresses, devices[j].address.String())
			}
		}
		if len(addresses) == 1 {
			lines = append(lines, line{text: addresses[0] + " " + d.text, device: true})
			continue
		}
		lines = append(lines, line{text: fmt.Sprintf("%d × %s: %s", len(addresses), d.text, strings.Join(shortList(addresses), "  ")), device: true})
	}
	return lines
}

// describe says what a function is: "Ethernet, Intel Corporation I350 Gigabit
// Network Connection (igb), 5 GT/s × 4, 2 of 8 VFs".
func (p pciTree) describe(f topology.PCIFunction, class string) string {
	text := class
	if name := p.nameOf(f); name != "" {
		text += ", " + name
	}
	if f.Driver != "" {
		text += " (" + printable(f.Driver) + ")"
	}
	// The best link, not the one of the moment, which saves power.
	if f.MaxLink.Speed > 0 && f.MaxLink.Width > 0 {
		text += fmt.Sprintf(", %s GT/s × %d", strconv.FormatFloat(f.MaxLink.Speed, 'g', -1, 64), f.MaxLink.Width)
	}
	if f.SRIOV != nil {
		text += fmt.Sprintf(", %d of %d VFs", f.SRIOV.NumVFs, f.SRIOV.TotalVFs)
	}
	return text
}

// nameOf returns the names of vendor and device, or their numbers as lspci has
// them.
func (p pciTree) nameOf(f topology.PCIFunction) string {
	if f.Vendor == topology.None {
		return ""
	}
	var vendor, device string
	if p.names != nil {
		vendor, device = p.names(f.Vendor, f.Device)
	}
	switch {
	case vendor != "" && device != "":
		return vendor + " " + device
	case f.Device == topology.None && vendor != "":
		return vendor
	case f.Device == topology.None:
		return fmt.Sprintf("%04x", f.Vendor)
	case vendor != "":
		return fmt.Sprintf("%s %04x", vendor, f.Device)
	}
	return fmt.Sprintf("%04x:%04x", f.Vendor, f.Device)
}

// printable keeps a garbled link from garbling the terminal.
func printable(name string) string {
	quoted := strconv.Quote(name)
	if quoted == `"`+name+`"` && len(name) <= 64 {
		return name
	}
	return "?"
}

// counted tells how many there are of each: "3 × USB, ISA bridge".
func counted(names []string) string {
	var order []string
	count := map[string]int{}
	for _, name := range names {
		if count[name]++; count[name] == 1 {
			order = append(order, name)
		}
	}
	for i, name := range order {
		if count[name] > 1 {
			order[i] = fmt.Sprintf("%d × %s", count[name], name)
		}
	}
	return strings.Join(order, ", ")
}

// countDevices counts the functions that are worth a line.
func countDevices(m *topology.Machine) int {
	n := 0
	for _, f := range m.PCI.Functions {
		if _, worthLine := classOf(f); worthLine && f.Kind == topology.PCIEndpoint && f.PhysicalFunction == topology.None {
			n++
		}
	}
	return n
}
