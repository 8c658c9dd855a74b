package render

import (
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

// deviceWidth is how wide the text of a device may be.
const deviceWidth = 230

// placePCI puts the roots, with what is behind them, to the branches that they
// are near to.
func (p *picture) placePCI(top *branch) {
	for _, g := range p.pci.groups() {
		b := top.holding(g.near.CPUs)
		name, onBus := p.pci.root(g.root, g.shown)
		devices, others := p.pci.collect(onBus, g.shown)
		root := &box{class: "root", title: name + p.pci.where(g.near, b)}
		root.tip = root.title
		root.sections = deviceSections(p.deviceBoxes(devices), others)
		p.devices[b] = append(p.devices[b], root)
	}
}

func deviceSections(devices []*box, others []string) []section {
	var sections []section
	if len(devices) > 0 {
		sections = append(sections, section{boxes: devices})
	}
	if len(others) > 0 {
		text := counted(others)
		if len(devices) > 0 {
			text = "also " + text
		}
		sections = append(sections, section{boxes: []*box{textBox("note", text, wrap(text, deviceWidth)...)}})
	}
	return sections
}

func (p *picture) deviceBoxes(devices []device) []*box {
	var boxes []*box
	for _, d := range devices {
		if d.behind != nil {
			title := d.text + d.address.String()
			boxes = append(boxes, &box{class: "bridge", title: title, tip: title, sections: []section{{boxes: p.deviceBoxes(d.behind)}}})
			continue
		}
		boxes = append(boxes, p.deviceBox(d))
	}
	return boxes
}

// deviceBox says what is what and where: its class and address, its name, and its
// connection.
func (p *picture) deviceBox(d device) *box {
	f, _ := p.m.PCI.Function(d.address)
	class, _ := classOf(f)
	lines := []string{class + " " + d.address.String()}
	if name := p.pci.nameOf(f); name != "" {
		lines = append(lines, wrap(name, deviceWidth)...)
	}
	var more []string
	if f.Driver != "" {
		more = append(more, printable(f.Driver))
	}
	if f.MaxLink.Speed > 0 && f.MaxLink.Width > 0 {
		more = append(more, strconv.FormatFloat(f.MaxLink.Speed, 'g', -1, 64)+"\u00a0GT/s\u00a0×\u00a0"+strconv.Itoa(f.MaxLink.Width))
	}
	if f.SRIOV != nil {
		more = append(more, strconv.Itoa(f.SRIOV.NumVFs)+" of "+plural(f.SRIOV.TotalVFs, "VF"))
	}
	if f.IOMMUGroup != topology.None {
		more = append(more, "IOMMU\u00a0group\u00a0"+strconv.Itoa(f.IOMMUGroup))
	}
	lines = append(lines, wrap(strings.Join(more, ", "), deviceWidth)...)
	b := textBox("device", d.address.String()+" "+d.text, lines...)
	b.id = "pci-" + d.address.String()
	return b
}
