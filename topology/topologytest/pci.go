package topologytest

import (
	"fmt"
	"strconv"

	"github.com/topolet/topolet/topology"
)

// PCIRoot is a PCIe root complex with what is plugged into it.
//
//	topologytest.Spec{Sockets: 2, PCI: []topologytest.PCIRoot{
//		{NUMANode: 0, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.NVMe())}},
//		{NUMANode: 1, Bus: 0x80, Functions: []topologytest.PCIFunction{
//			topologytest.Port(topologytest.Switch(topologytest.GPU(), topologytest.NIC(8, 2))),
//		}},
//	}}
//
// Addresses follow from the order: the functions of a bus are its devices 00, 01
// and so on, and buses are numbered from the root's on, in the order in which
// firmware finds them.
type PCIRoot struct {
	// NUMANode is the kernel's number of the node that the root is at.
	NUMANode int
	// NoNUMANode has everything below the root say -1, and all CPUs to be local,
	// as where the firmware does not tell.
	NoNUMANode bool
	// NodeOnBusOnly has the functions say nothing, but the root's bus its CPUs.
	NodeOnBusOnly bool
	// Domain and Bus are in the root's name. Roots of one domain need buses with
	// enough room between them.
	Domain uint32
	Bus    uint8
	// Functions are on the root's own bus.
	Functions []PCIFunction
}

// PCIFunction is one function, with its virtual functions if it has any, or a
// bridge with what is behind it. The functions below, from [NVMe] to [Switch],
// return common ones; their fields may be changed.
type PCIFunction struct {
	Class          uint32
	Vendor, Device uint16
	Driver         string // "": none is bound

	// TotalVFs is how many virtual functions it offers, NumVFs how many there are.
	TotalVFs, NumVFs int
	// VFDriver is bound to the virtual functions; their device number is the next
	// after Device.
	VFDriver string

	// Bridge is a function with a bus behind it, and Behind is what is on that.
	Bridge bool
	Behind []PCIFunction
	// SameDevice makes this function 1, 2 … of the device before it on the bus.
	SameDevice bool

	// NUMANode overrides what the root's place says: -1 for nothing.
	NUMANode *int
	// Speed (GT/s) and Width are the link's; Width 0 is a function without one.
	Speed, Width int
}

// NVMe is a solid-state disk.
func NVMe() PCIFunction {
	return PCIFunction{Class: 0x010802, Vendor: 0x1b36, Device: 0x0010, Driver: "nvme", Speed: 16, Width: 4}
}

// NIC is an Ethernet port of which so many of its virtual functions are switched
// on; total 0 is one without the ability.
func NIC(total, vfs int) PCIFunction {
	return PCIFunction{
		Class: 0x020000, Vendor: 0x8086, Device: 0x10c9, Driver: "igb", Speed: 5, Width: 4,
		TotalVFs: total, NumVFs: vfs, VFDriver: "igbvf",
	}
}

// GPU is an accelerator without a display.
func GPU() PCIFunction {
	return PCIFunction{Class: 0x030200, Vendor: 0x10de, Device: 0x2330, Driver: "nvidia", Speed: 32, Width: 16}
}

// HostBridge is the root's own entry among the functions. It is the first of a
// bus on most machines, and many have no other trace of it.
func HostBridge() PCIFunction {
	return PCIFunction{Class: 0x060000, Vendor: 0x8086, Device: 0x29c0}
}

// Port is a bridge with a bus behind it: a root port on a root's bus.
func Port(behind ...PCIFunction) PCIFunction {
	return PCIFunction{
		Class: 0x060400, Vendor: 0x1b36, Device: 0x000c, Driver: "pcieport",
		Bridge: true, Behind: behind, Speed: 16, Width: 16,
	}
}

// Switch is a switch that has each of the functions behind a port of its own. It
// belongs behind a root port.
func Switch(behind ...PCIFunction) PCIFunction {
	up := Port()
	up.Vendor, up.Device = 0x104c, 0x8232
	for _, f := range behind {
		down := Port(f)
		down.Vendor, down.Device = 0x104c, 0x8233
		up.Behind = append(up.Behind, down)
	}
	return up
}

const pciDir = "sys/bus/pci/devices/"

// pciWriter writes one root.
type pciWriter struct {
	*builder
	root  PCIRoot
	local topology.CPUSet
	// last is the highest bus number in use.
	last int
}

func (b *builder) writePCI() {
	nodes := b.sharing(func(c cpu) int { return b.NUMAIDs[c.node] })
	var all []int
	for _, c := range b.online() {
		all = append(all, c.id)
	}
	for _, root := range b.PCI {
		w := &pciWriter{builder: b, root: root, local: nodes[root.NUMANode], last: int(root.Bus)}
		onBus := w.local
		if root.NoNUMANode || root.NodeOnBusOnly {
			w.local = topology.NewCPUSet(all...)
		}
		if root.NoNUMANode {
			onBus = w.local
		}
		bus := fmt.Sprintf("%04x:%02x", root.Domain, root.Bus)
		dir := "sys/devices/pci" + bus
		w.file(dir+"/pci_bus/"+bus+"/cpuaffinity", w.mask(onBus))
		w.file(dir+"/pci_bus/"+bus+"/cpulistaffinity", onBus.String())
		w.writeBus(dir, int(root.Bus), root.Functions)
	}
}

// writeBus writes the functions of one bus below the bridge's directory.
func (w *pciWriter) writeBus(dir string, bus int, functions []PCIFunction) {
	device, function := -1, 0
	for _, f := range functions {
		if f.SameDevice && device >= 0 {
			function++
		} else {
			device, function = device+1, 0
		}
		at := w.address(bus, device*8+function)
		w.writeFunction(dir, at, f)
		if f.Bridge {
			w.last++
			w.writeBus(dir+"/"+at.String(), w.last, f.Behind)
		}
		w.writeVirtual(dir, bus, device*8+function, f)
	}
}

// writeVirtual writes the virtual functions, from device 16 of the bus on.
func (w *pciWriter) writeVirtual(dir string, bus, physical int, f PCIFunction) {
	if f.TotalVFs == 0 {
		return
	}
	pf := w.address(bus, physical)
	w.file(dir+"/"+pf.String()+"/sriov_totalvfs", strconv.Itoa(f.TotalVFs))
	w.file(dir+"/"+pf.String()+"/sriov_numvfs", strconv.Itoa(f.NumVFs))
	for n := range f.NumVFs {
		vf := f
		vf.Device, vf.Driver, vf.Speed, vf.Width = f.Device+1, f.VFDriver, 0, 0
		at := w.address(bus, 16*8+physical*16+n)
		w.writeFunction(dir, at, vf)
		w.tree.Link(dir+"/"+at.String()+"/physfn", "../"+pf.String())
		w.tree.Link(dir+"/"+pf.String()+"/virtfn"+strconv.Itoa(n), "../"+at.String())
	}
}

// address takes the device and the function in one number. Many virtual functions
// go on into the next buses.
func (w *pciWriter) address(bus, deviceAndFunction int) topology.PCIAddress {
	bus += deviceAndFunction / 256
	if bus > 0xff {
		panic(fmt.Sprintf("topologytest: no bus number left below %v", w.root))
	}
	w.last = max(w.last, bus)
	return topology.PCIAddress{
		Domain: w.root.Domain, Bus: uint8(bus & 0xff),
		Device: uint8(deviceAndFunction / 8 & 0x1f), Function: uint8(deviceAndFunction & 7),
	}
}

func (w *pciWriter) writeFunction(parent string, at topology.PCIAddress, f PCIFunction) {
	dir := parent + "/" + at.String() + "/"
	if _, err := w.tree.Lstat(pciDir + at.String()); err == nil {
		panic(fmt.Sprintf("topologytest: two PCI functions at %s", at))
	}
	w.file(dir+"class", fmt.Sprintf("0x%06x", f.Class))
	w.file(dir+"vendor", fmt.Sprintf("0x%04x", f.Vendor))
	w.file(dir+"device", fmt.Sprintf("0x%04x", f.Device))
	w.file(dir+"subsystem_vendor", fmt.Sprintf("0x%04x", f.Vendor))
	w.file(dir+"subsystem_device", "0x0001")
	node := w.root.NUMANode
	if w.root.NoNUMANode || w.root.NodeOnBusOnly {
		node = none
	}
	if f.NUMANode != nil {
		node = *f.NUMANode
	}
	w.file(dir+"numa_node", strconv.Itoa(node))
	w.file(dir+"local_cpus", w.mask(w.local))
	w.file(dir+"local_cpulist", w.local.String())
	if f.Width > 0 {
		speed := fmt.Sprintf("%d.0 GT/s PCIe", f.Speed)
		for _, which := range []string{"current", "max"} {
			w.file(dir+which+"_link_speed", speed)
			w.file(dir+which+"_link_width", strconv.Itoa(f.Width))
		}
	}
	// As in snapshots, the links for their names' sake alone lead nowhere.
	if f.Driver != "" {
		w.tree.Link(dir+"driver", "../../../bus/pci/drivers/"+f.Driver)
	}
	if !f.Bridge {
		w.group++
		w.tree.Link(dir+"iommu_group", "../../../kernel/iommu_groups/"+strconv.Itoa(w.group))
	}
	w.tree.Link(pciDir+at.String(), "../../../"+dir[len("sys/"):len(dir)-1])
}
