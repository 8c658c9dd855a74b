// Package dlb finds Intel's Dynamic Load Balancers, which pass events between cores by
// queues in hardware (driver dlb2, which is not part of the kernel).
//
// A function has one device node, through which programs get scheduling domains of
// their own. Virtual functions have the queues, ports and credits that were assigned to
// them; how many that are is told by the physical function's files. Functions that are
// bound to another driver are listed, and not given away.
package dlb

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

const (
	name   = "dlb"
	native = "dlb2"
)

type model struct {
	name    string
	virtual bool
}

// models are by vendor and device.
var models = map[int]model{
	0x8086270b: {"DLB 1.0", false},
	0x80862710: {"DLB 2.0", false},
	0x80862711: {"DLB 2.0", true},
	0x80862714: {"DLB 2.5", false},
	0x80862715: {"DLB 2.5", true},
}

// Family is the family of load balancers.
type Family struct{}

// Name implements [device.Family].
func (Family) Name() string { return name }

// Discover implements [device.Family].
func (Family) Discover(h *device.Host, _ func(error)) []device.Device {
	var devices []device.Device
	for _, f := range h.Functions(func(f topology.PCIFunction) bool { return models[device.ID(f)] != model{} }) {
		m := models[device.ID(f)]
		d := h.Of(name, f, device.Kernel)
		d.Driver = native
		d.Set("model", device.Text(m.name))
		// In a virtual machine only the ID tells a virtual function.
		if m.virtual {
			d.Function = device.Virtual
		}
		d.Capacities = capacities(h, f)
		addNode(h, f, &d)
		switch {
		case f.Driver == "":
			d.Taint(device.DriverLost, "")
		case f.Driver != native:
			d.Taint(device.DriverLost, "other-driver")
		case len(d.Nodes) == 0:
			d.Taint(device.DriverLost, "no-node")
		}
		devices = append(devices, d)
	}
	return devices
}

// addNode adds the node and its number. The directory below the function has both; the
// file dev_id, which has the number only, decides if there are several.
func addNode(h *device.Host, f topology.PCIFunction, d *device.Device) {
	id, ok := h.Int(device.Dir(f) + "dev_id")
	ok = ok && id >= 0
	children := h.Child(device.Dir(f)+native, name)
	for _, child := range children {
		// Child lists no other names.
		n, _ := strconv.ParseInt(strings.TrimPrefix(child, name), 10, 64)
		if len(children) > 1 && (!ok || n != id) {
			continue
		}
		id, ok = n, true
		if node, isNode := h.Node(device.Dir(f)+native+"/"+child, false); isNode {
			d.Nodes = append(d.Nodes, node)
		}
	}
	if ok {
		d.Set("devID", device.Number(id))
	}
}

// resources are what capacities are called, and the files that have them.
var resources = []struct{ capacity, file string }{
	{"domains", "num_sched_domains"},
	{"ldbQueues", "num_ldb_queues"},
	{"ldbPorts", "num_ldb_ports"},
	{"dirPorts", "num_dir_ports"},
	{"ldbCredits", "num_ldb_credits"},
	{"dirCredits", "num_dir_credits"},
}

// capacities tells what a function has. Claims get all of it.
func capacities(h *device.Host, f topology.PCIFunction) []device.Capacity {
	dir := device.Dir(f) + "total_resources/"
	if pf, index, ok := h.PhysicalOf(f); ok && index != topology.None {
		dir = fmt.Sprintf("%svf%d_resources/", device.Dir(pf), index)
	}
	var list []device.Capacity
	for _, r := range resources {
		if n, ok := h.Uint(dir + r.file); ok && n <= math.MaxInt32 {
			list = append(list, device.Capacity{Name: r.capacity, Amount: n})
		}
	}
	return list
}
