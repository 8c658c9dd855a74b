package nic

import (
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

const (
	// RDMA is the role of the nodes for remote memory access: verbs, management datagrams,
	// and the connection manager, which all cards share. Claims get them by default.
	RDMA = "rdma"
	// SubnetManager is the role of the node with which one becomes the manager of an
	// InfiniBand subnet. Claims do not get it by default: it is for administrators.
	SubnetManager = "subnet-manager"
)

// nodes are by the directory below the function and the beginning of their names
// (Documentation/ABI/stable/sysfs-class-infiniband).
var nodes = []struct{ dir, prefix, role string }{
	{"infiniband_verbs", "uverbs", RDMA},
	{"infiniband_mad", "umad", RDMA},
	{"infiniband_mad", "issm", SubnetManager},
}

// describeRDMA adds a function's RDMA devices and their nodes; ok is false if it has none.
func describeRDMA(h *device.Host, d *device.Device, f topology.PCIFunction) (ok bool) {
	devices := h.Entries(device.Dir(f) + "infiniband")
	d.Set("rdma", device.Flag(len(devices) > 0))
	if len(devices) == 0 {
		return false
	}
	d.Set("rdmaDevice", device.Text(device.Shorten(devices[0])))
	for _, n := range nodes {
		dir := device.Dir(f) + n.dir
		for _, child := range h.Child(dir, n.prefix) {
			addNode(h, d, dir+"/"+child, n.role)
		}
	}
	if len(d.Nodes) > 0 {
		addNode(h, d, "sys/class/misc/rdma_cm", RDMA)
	}
	return true
}

func addNode(h *device.Host, d *device.Device, dir, role string) {
	if n, ok := h.Node(dir, false); ok {
		n.Role = role
		d.Nodes = append(d.Nodes, n)
	}
}
