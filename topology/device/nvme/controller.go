package nvme

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/inuse"
)

// controller is a function with what its driver shows of it.
type controller struct {
	f topology.PCIFunction
	// dir is nvme/nvme0 below the function; empty if there is no such directory.
	dir        string
	namespaces []namespace
	// used says that the host uses the function or a virtual one of it, or may do so; err
	// is why that is not known.
	used bool
	err  error
}

// readController reads a function and, if it has its driver, what that shows.
func readController(h *device.Host, hardware *inuse.Hardware, f topology.PCIFunction) (controller, error) {
	c := controller{f: f}
	use, err := hardware.Function(f)
	c.used, c.err = use != "" || err != nil, err
	names := h.Child(device.Dir(f)+"nvme", "nvme")
	if f.Driver != native || len(names) == 0 {
		return c, nil
	}
	c.dir = device.Dir(f) + "nvme/" + names[0]
	if transport, ok := h.Read(c.dir + "/transport"); ok && transport != "pcie" {
		return c, fmt.Errorf("its transport is %q, not pcie", device.Shorten(transport))
	}
	c.namespaces = readNamespaces(h, hardware, c.dir)
	return c, nil
}

// problems are the reasons why the controller or its namespaces are not published,
// where it is not only that the host uses them.
func (c controller) problems() []error {
	var problems []error
	if c.err != nil {
		problems = append(problems, fmt.Errorf("controller %s is left out as a whole: %w", c.f.Address, c.err))
	}
	for _, n := range c.namespaces {
		switch {
		case n.err != nil && n.used:
			problems = append(problems, fmt.Errorf("namespace %s of %s and the controller as a whole are left out: %w", n.name, c.f.Address, n.err))
		case n.err != nil:
			problems = append(problems, fmt.Errorf("namespace %s of %s is left out: %w", n.name, c.f.Address, n.err))
		}
	}
	return problems
}

// whole returns the device of the controller with all namespaces.
func (c controller) whole(h *device.Host) device.Device {
	d := c.device(h)
	switch {
	case c.f.Driver != native:
		d.Taint(device.DriverLost, c.f.Driver)
		return d
	case c.dir == "":
		d.Taint(device.DriverLost, "no-controller")
		return d
	}
	if n, ok := h.Node(c.dir, false); ok {
		n.Role = Controller
		d.Nodes = append(d.Nodes, n)
	} else {
		d.Taint(device.DriverLost, "no-node")
	}
	size, sizeKnown := int64(0), true
	for _, n := range c.namespaces {
		d.Nodes = append(d.Nodes, n.nodes...)
		size += n.size
		sizeKnown = sizeKnown && n.size > 0
	}
	if sizeKnown && size > 0 {
		d.Capacities = []device.Capacity{{Name: "size", Amount: uint64(size), Bytes: true}}
	}
	return d
}

// part returns the device of one namespace.
func (c controller) part(h *device.Host, n namespace) device.Device {
	d := c.device(h)
	part := "ns" + strconv.FormatInt(n.id, 10)
	d.Name = device.NameOf(name, c.f.Address, part)
	d.Use.Part = part
	// That is said of the function: its namespaces are used like any others.
	d.Taints = slices.DeleteFunc(d.Taints, func(t device.Taint) bool { return t.Reason == device.ControlOnly })
	n.describe(&d)
	return d
}

// device returns what the whole and its parts have in common. The files are described in
// Documentation/ABI/testing/sysfs-nvme.
func (c controller) device(h *device.Host) device.Device {
	d := h.Of(name, c.f, device.Kernel)
	d.Driver = native
	setVMDRoot(h, &d, c.f)
	if c.dir == "" {
		return d
	}
	d.Set("model", device.Text("Unknown"))
	for _, file := range []struct{ name, attribute string }{
		{"model", "model"}, {"serial", "serial"}, {"firmware_rev", "firmware"},
	} {
		if text, _ := h.Read(c.dir + "/" + file.name); device.Shorten(text) != "" {
			d.Set(file.attribute, device.Text(device.Shorten(text)))
		}
	}
	state, err := h.ReadError(c.dir + "/state")
	switch {
	case device.Resetting(err):
		d.Taint(device.InReset, "")
	case err != nil:
		d.Taint(device.Unhealthy, "no-state")
	case state == "live":
	case state == "new", state == "resetting", state == "connecting":
		d.Taint(device.InReset, state)
	case strings.HasPrefix(state, "deleting"): // "deleting (no IO)"
		d.Taint(device.Gone, "deleting")
	case state == "dead":
		d.Taint(device.Unhealthy, "dead")
	default:
		d.Taint(device.Unhealthy, "unknown-state")
	}
	return d
}

var rootName = regexp.MustCompile(`^pci[0-9a-f]{4,8}:[0-9a-f]{2}$`)

// setVMDRoot adds the root that an Intel Volume Management Device makes of its own for
// the disks behind it: the second one on the way from the machine's root to the function.
//
//	../../../devices/pci0000:00/0000:00:0e.0/pci10000:00/10000:00:02.0/10000:01:00.0
func setVMDRoot(h *device.Host, d *device.Device, f topology.PCIFunction) {
	target, _ := h.Link(path.Clean(device.Dir(f)))
	roots := 0
	for part := range strings.SplitSeq(target, "/") {
		if !rootName.MatchString(part) {
			continue
		}
		if roots++; roots == 2 {
			d.Set("vmdRoot", device.Text(part))
		}
	}
}
