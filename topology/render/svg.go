package render

import (
	"io"
	"strings"

	"github.com/topolet/topolet/topology"
)

// SVG draws the machine: boxes within boxes, down to the CPUs, with the memory in
// its NUMA node and the PCI devices at what they are near to. Holdings colour
// CPUs, and get a legend; nil is a machine of which nothing of that kind is
// known, and an empty list one where nobody holds anything.
//
// The picture is one self-contained file, the same bytes for the same machine, and
// readable on light and dark screens. It comes about in three steps:
//
//	Machine ─ picture ─→ boxes ─ measure, place ─→ boxes with coordinates ─ draw ─→ XML
//
// The first step (svgpicture.go, svgpci.go) follows the same nesting as [Tree] and
// knows nothing of coordinates; the second (svglayout.go) knows nothing of machines.
func SVG(w io.Writer, m *topology.Machine, names PCINames, holdings []Holding) error {
	p := picture{m: m, pci: pciTree{m, names}, holders: newHolders(holdings), keyed: holdings != nil}
	page := p.page()
	page.measure()
	page.place(0, 0, page.w, page.h)
	var out strings.Builder
	draw(&out, page)
	_, err := io.WriteString(w, out.String())
	return err
}
