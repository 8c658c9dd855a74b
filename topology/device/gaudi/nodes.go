package gaudi

import (
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// Roles of the nodes of an accelerator. Its accel node has none: every claim gets it. The
// node of a device for monitoring has none either.
const (
	// Control is the node for looking at the accelerator's state, /dev/accel/accel_controlD0.
	// Claims get it by default.
	Control = "control"
	// ScaleOut is the RDMA node of the accelerator's own network ports,
	// /dev/infiniband/uverbs4, and what sets these ports up. Claims get it when they ask for it.
	ScaleOut = "scale-out"
)

// The directories of nodes, and that of the devices of class accel which have no parent.
const (
	accelDir   = "/dev/accel/"
	verbsDir   = "/dev/infiniband/"
	virtualDir = "sys/devices/virtual/accel/"
)

// Index returns the number by which the driver's software knows an accelerator, that of
// its accel node: 3 for /dev/accel/accel3. It is ok only for such a node.
func Index(path string) (index int, ok bool) {
	digits, ok := strings.CutPrefix(path, accelDir+"accel")
	n, err := strconv.ParseUint(digits, 10, 31)
	return int(n), ok && err == nil
}

// variables are those by which the driver's software finds the accelerators of a container.
// Its newer parts go by numbers and slots, older ones by nodes.
func variables(node string, moduleID int64) []device.Variable {
	list := []device.Variable{{Name: "HL_VISIBLE_DEVICES", Value: node, Role: device.LegacyEnv}}
	if index, ok := Index(node); ok {
		list = append(list, device.Variable{Name: "HABANA_VISIBLE_DEVICES", Value: strconv.Itoa(index)})
	}
	if moduleID != NoModule {
		list = append(list, device.Variable{Name: "HABANA_VISIBLE_MODULES", Value: strconv.FormatInt(moduleID, 10)})
	}
	return list
}

// accelNodes returns the node of an accelerator and, if there is one, that for its state,
// which has the same number. All drivers of accelerators share names and major numbers, so
// the node is known by its directory: accel in the function's or, with older drivers, one
// without a parent that contains the function's address.
func accelNodes(h *device.Host, f topology.PCIFunction) (nodes []device.Node, found bool) {
	dir := device.Dir(f) + "accel/"
	children := h.Child(dir, "accel")
	if len(children) == 0 {
		dir = virtualDir
		for _, child := range h.Child(dir, "accel") {
			if address, _ := h.Read(dir + child + "/device/pci_addr"); strings.EqualFold(address, f.Address.String()) {
				children = append(children, child)
			}
		}
	}
	if len(children) != 1 {
		return nil, false
	}
	n, ok := h.Node(dir+children[0], false)
	if !ok || n.Path != accelDir+children[0] {
		return nil, false
	}
	nodes = []device.Node{n}
	name := strings.Replace(children[0], "accel", "accel_controlD", 1)
	if n, ok := h.Node(virtualDir+name, false); ok && n.Path == accelDir+name {
		n.Role = Control
		nodes = append(nodes, n)
	}
	return nodes, true
}

// uverbsNodes returns the RDMA nodes of an accelerator.
func uverbsNodes(h *device.Host, f topology.PCIFunction) []device.Node {
	var nodes []device.Node
	dir := device.Dir(f) + "infiniband_verbs/"
	for _, child := range h.Child(dir, "uverbs") {
		if n, ok := h.Node(dir+child, false); ok && n.Path == verbsDir+child {
			n.Role = ScaleOut
			nodes = append(nodes, n)
		}
	}
	return nodes
}
