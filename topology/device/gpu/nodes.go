package gpu

import (
	"fmt"
	"path"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// Roles of the nodes of a GPU, and of the links to them. Devices for monitoring have none:
// their claims get all that there is.
const (
	// Card is the node for everything, display and administration too: /dev/dri/card1.
	// Claims get it by default, and do without when they ask to render only.
	Card = "card"
	// Render is the node for rendering and computing: /dev/dri/renderD129. Claims always
	// get it.
	Render = "render"
	// ByPathCard is the link by which some libraries find the card's node of a PCI function:
	// /dev/dri/by-path/pci-0000:3a:00.0-card. Claims with that node get it by default, and do
	// without when they ask for no links.
	ByPathCard = "by-path-card"
	// ByPathRender is the same for the render node.
	ByPathRender = "by-path-render"
)

// The directory of nodes and, in it, that of links which udev makes.
const (
	dri       = "/dev/dri/"
	byPathDir = dri + "by-path/"
)

// prefixes are those of the names in a function's directory drm, by role.
var prefixes = []struct{ role, name string }{{Card, "card"}, {Render, "renderD"}}

// drmNodes returns the nodes of a function, those of cards first. The error is of a node
// that the driver has and does not tell the numbers of.
func drmNodes(h *device.Host, f topology.PCIFunction) ([]device.Node, error) {
	var nodes []device.Node
	for _, p := range prefixes {
		for _, child := range h.Child(device.Dir(f)+"drm", p.name) {
			n, ok := h.Node(cardDir(f, child), false)
			if !ok || n.Path != dri+child {
				return nil, fmt.Errorf("%s: drm/%s does not tell its node", f.Address, child)
			}
			n.Role = p.role
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// cards returns the names of the cards in a function's directory drm.
func cards(h *device.Host, f topology.PCIFunction) []string {
	return h.Child(device.Dir(f)+"drm", "card")
}

func cardDir(f topology.PCIFunction, card string) string { return device.Dir(f) + "drm/" + card }

// byPath is the link that udev makes to a node (60-drm.rules). A container gets it whether
// the host has one or not.
func byPath(f topology.PCIFunction, n device.Node) device.Link {
	link := device.Link{Target: "../" + path.Base(n.Path), Role: ByPathCard}
	suffix := "-card"
	if n.Role == Render {
		link.Role, suffix = ByPathRender, "-render"
	}
	link.Path = byPathDir + "pci-" + f.Address.String() + suffix
	return link
}

// meiNodes returns the nodes by which the firmware of a function is asked for its state: those
// of class mei that are of its auxiliary device mei-gscfi (drivers/misc/mei/gsc-me.c). Only
// where their links lead tells whose they are: the chipset has one, too.
func meiNodes(h *device.Host, f topology.PCIFunction) []device.Node {
	var nodes []device.Node
	for _, mei := range h.Child("sys/class/mei", "mei") {
		target, _ := h.Link("sys/class/mei/" + mei)
		if !strings.Contains(target, "/"+f.Address.String()+"/"+f.Driver+".mei-gscfi.") {
			continue
		}
		if n, ok := h.Node("sys/class/mei/"+mei, false); ok && n.Path == "/dev/"+mei {
			nodes = append(nodes, n)
		}
	}
	return nodes
}
