// Package gpu finds graphics processors, and the accelerators that are made of them.
//
// Those of Intel (drivers i915 and xe, drivers/gpu/drm) are given away. Each PCI function,
// be it physical, virtual or a part of the processor, is a kernel device while its driver
// is bound or ought to be, a vfio device while it is bound to vfio, and always a device to
// monitor it by. What a function is follows from its IDs (models.go), how it is used from
// the directories drm and mei of its driver (nodes.go), and how much memory it has from a
// file or from the driver itself (memory.go).
//
// All others are given away by their vendors' drivers. They are listed, tainted, for their
// place on the machine (others.go).
package gpu

import (
	"fmt"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

const name = "gpu"

// The drivers of Intel's GPUs.
const (
	i915 = "i915"
	xe   = "xe"
)

// Family is the family of GPUs.
type Family struct {
	// Memory is asked how much memory a GPU has if no file tells; nil asks nobody.
	Memory MemoryQuery
	// Shares is how many claims can have a GPU of Intel's at the same time through its
	// kernel driver. Below 2, one claim has it alone.
	Shares uint64
}

// Name implements [device.Family].
func (Family) Name() string { return name }

// Discover implements [device.Family].
func (g Family) Discover(h *device.Host, problem func(error)) []device.Device {
	var devices []device.Device
	for _, f := range h.Functions(func(topology.PCIFunction) bool { return true }) {
		_, known := models[f.Device]
		switch native := intelDriver(h, f); {
		case native != "":
			devices = append(devices, g.intel(h, f, native, problem)...)
		case f.Vendor == vendorIntel && known && f.Class == topology.None:
			problem(fmt.Errorf("%s is left out: its class cannot be read", f.Address))
		default:
			if d, ok := other(h, f); ok {
				devices = append(devices, d)
			}
		}
	}
	return devices
}

// intelDriver returns the driver that serves a function of an Intel GPU: the bound one,
// that of its physical function, whose IDs it has, or that of the model. It is empty for
// what is no such function.
func intelDriver(h *device.Host, f topology.PCIFunction) string {
	if f.Vendor != vendorIntel || f.Class>>8 != classVGA && f.Class>>8 != classDisplay {
		return ""
	}
	bound := []string{f.Driver}
	if f.PhysicalFunction != topology.None {
		bound = append(bound, h.Machine.PCI.Functions[f.PhysicalFunction].Driver)
	}
	for _, driver := range bound {
		if driver == i915 || driver == xe {
			return driver
		}
	}
	return models[f.Device].driver
}

// intel returns the device that a function can be used as now, and the one to monitor it by.
func (g Family) intel(h *device.Host, f topology.PCIFunction, native string, problem func(error)) []device.Device {
	monitor := h.Of(name, f, device.Monitor)
	monitor.Driver = native
	if d, ok := h.VFIO(name, f); ok {
		describe(&d, f, 0)
		describe(&monitor, f, 0)
		return []device.Device{d, monitor}
	}
	d := h.Of(name, f, device.Kernel)
	d.Driver = native
	switch f.Driver {
	case native:
		g.readDriver(h, f, &d, &monitor, problem)
	case "":
		d.Taint(device.DriverLost, "")
	default:
		d.Taint(device.DriverLost, "other-driver")
	}
	tiles := tilesOf(h, f)
	describe(&d, f, tiles)
	describe(&monitor, f, tiles)
	if g.Shares > 1 {
		share(&d, g.Shares)
	}
	return []device.Device{d, monitor}
}

// readDriver adds what the bound driver tells of a function.
func (g Family) readDriver(h *device.Host, f topology.PCIFunction, d, monitor *device.Device, problem func(error)) {
	nodes, err := drmNodes(h, f)
	if err != nil {
		problem(err)
	}
	if err != nil || len(nodes) == 0 {
		d.Taint(device.DriverLost, "no-node")
	}
	for _, n := range nodes {
		link := byPath(f, n)
		d.Nodes, d.Links = append(d.Nodes, n), append(d.Links, link)
		// All claims to monitor get all that there is.
		n.Role, link.Role = "", ""
		monitor.Nodes, monitor.Links = append(monitor.Nodes, n), append(monitor.Links, link)
	}
	monitor.Nodes = append(monitor.Nodes, meiNodes(h, f)...)
	// The file is there while the firmware waits to be repaired
	// (drivers/gpu/drm/xe/xe_survivability_mode.c), whatever it contains.
	if f.Driver == xe && h.Exists(device.Dir(f)+"survivability_mode") {
		d.Taint(device.Unhealthy, "survivability-mode")
	}
	bytes, err := g.memory(h, f, nodes)
	switch {
	case device.Resetting(err):
		d.Taint(device.InReset, "")
	case err != nil:
		problem(fmt.Errorf("the memory of %s: %w", f.Address, err))
	default:
		d.Capacities = memoryCapacity(bytes)
	}
}

// describe sets the attributes that all devices of an Intel GPU have.
func describe(d *device.Device, f topology.PCIFunction, tiles int) {
	m := models[f.Device]
	setCommon(d, f, m.name, m.series, tiles)
	d.Set("integrated", device.Flag(integrated(f)))
}

// setCommon sets the attributes that all GPUs have, so that selectors can rely on them.
// Tiles are 0 where no driver tells how many there are.
func setCommon(d *device.Device, f topology.PCIFunction, model, series string, tiles int) {
	vendor, known := vendors[f.Vendor]
	if !known {
		vendor = "other"
	}
	if model == "" {
		model = unknown
	}
	if series == "" {
		series = unknown
	}
	d.Set("vendor", device.Text(vendor))
	d.Set("model", device.Text(model))
	d.Set("series", device.Text(series))
	d.Set("tiles", device.Number(int64(tiles)))
}

// tilesOf counts the tiles that a driver shows of a function, of which a virtual one may
// have fewer than its physical one: the directories gtN below the card of i915, the
// directories tileN of xe.
func tilesOf(h *device.Host, f topology.PCIFunction) int {
	n := 0
	switch f.Driver {
	case xe:
		n = len(h.Child(device.Dir(f), "tile"))
	case i915:
		for _, card := range cards(h, f) {
			n += len(h.Child(cardDir(f, card)+"/gt", "gt"))
		}
	}
	// The media engines of some processors have a gt of their own, but are no tile.
	if integrated(f) {
		n = min(n, 1)
	}
	return n
}

// share lets several claims have a device. Of its memory, each takes its part unless it
// says otherwise; that is bookkeeping, which no driver enforces.
func share(d *device.Device, shares uint64) {
	d.Shared = true
	for i, c := range d.Capacities {
		if part := c.Amount / shares / memoryStep * memoryStep; part > 0 {
			d.Capacities[i].Default, d.Capacities[i].Min, d.Capacities[i].Step = part, memoryStep, memoryStep
		}
	}
	d.Capacities = append(d.Capacities, device.Shares(shares))
}

// memoryStep is the unit in which claims take memory of a shared GPU: 1 MiB.
const memoryStep = 1 << 20
