package device

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/topolet/topolet/topology"
)

// Host is a machine with the files of its drivers, as families read it. It is not safe
// for concurrent use.
type Host struct {
	topology.Files
	Machine *topology.Machine

	// indexes are those of the virtual functions, by physical one and name. A card has up
	// to hundreds, and each of them asks.
	indexes map[topology.PCIAddress]map[string]int
}

// NewHost returns the host of a machine that was discovered from the same root. Which
// drivers are bound is read again: functions change them, where they stay what they are.
func NewHost(root fs.FS, m *topology.Machine) *Host {
	h := &Host{Files: topology.NewFiles(root), indexes: map[topology.PCIAddress]map[string]int{}}
	machine := *m
	machine.PCI.Functions = slices.Clone(m.PCI.Functions)
	for i := range machine.PCI.Functions {
		f := &machine.PCI.Functions[i]
		f.Driver = ""
		if target, ok := h.Link(Dir(*f) + "driver"); ok {
			f.Driver = path.Base(target)
		}
	}
	h.Machine = &machine
	return h
}

// Functions returns the PCI functions that match, in ascending order of addresses.
func (h *Host) Functions(match func(topology.PCIFunction) bool) []topology.PCIFunction {
	var found []topology.PCIFunction
	for _, f := range h.Machine.PCI.Functions {
		if f.Vendor != topology.None && f.Device != topology.None && match(f) {
			found = append(found, f)
		}
	}
	return found
}

// Dir is the directory of a PCI function, with a slash at the end.
func Dir(f topology.PCIFunction) string { return "sys/bus/pci/devices/" + f.Address.String() + "/" }

// ID is vendor and device in one number: 0x808656c0.
func ID(f topology.PCIFunction) int { return f.Vendor<<16 | f.Device }

// Of returns a device of a PCI function with all that families have in common: what a
// family adds is the model, the attributes of its own, nodes and taints. The use is the
// function as a whole; for a virtual function its part of the physical one.
func (h *Host) Of(family string, f topology.PCIFunction, personality Personality) Device {
	d := Device{
		Name:        NameOf(family, f.Address, suffixes[personality]...),
		Family:      family,
		Personality: personality,
		Function:    Single,
		Address:     f.Address.String(),
		NUMANode:    f.Locality.NUMANode,
		Driver:      f.Driver,
		Use:         Use{Owner: f.Address.String()},
	}
	if personality == Monitor {
		d.Use = Use{}
		d.Taint(MonitorOnly, "")
	}
	if root, ok := h.Machine.PCI.RootOf(f); ok {
		d.Root = root.String()
	}
	d.Set("vendorID", hexText(f.Vendor, 4))
	d.Set("deviceID", hexText(f.Device, 4))
	if f.Class != topology.None {
		d.Set("pciClass", hexText(f.Class, 6))
	}
	if f.Link.Speed > 0 && f.Link.Width > 0 {
		d.Set("linkGTs", Text(strconv.FormatFloat(f.Link.Speed, 'f', -1, 64)))
		d.Set("linkWidth", Number(int64(f.Link.Width)))
	}
	if f.SRIOV != nil && f.SRIOV.TotalVFs > 0 {
		d.Function = Physical
	}
	if pf, index, ok := h.PhysicalOf(f); ok {
		d.Function = Virtual
		d.Set("pfBusID", Text(pf.Address.String()))
		if personality != Monitor {
			d.Use = Use{Owner: pf.Address.String()}
		}
		if index != topology.None {
			d.Set("vfIndex", Number(int64(index)))
			if personality != Monitor {
				d.Use.Part = "vf" + strconv.Itoa(index)
			}
		}
	}
	if personality == Kernel && f.SRIOV != nil && len(f.SRIOV.VFs) > 0 {
		d.Taint(ControlOnly, "")
	}
	return d
}

var suffixes = map[Personality][]string{VFIO: {"vfio"}, Monitor: {"monitor"}}

func hexText(v, digits int) Value {
	s := strconv.FormatInt(int64(v), 16)
	return Text("0x" + strings.Repeat("0", max(0, digits-len(s))) + s)
}

// PhysicalOf returns the physical function that a virtual one belongs to, and its index
// there (the link virtfn<index>), or topology.None where the machine does not tell.
func (h *Host) PhysicalOf(f topology.PCIFunction) (pf topology.PCIFunction, index int, ok bool) {
	if f.PhysicalFunction == topology.None {
		return pf, topology.None, false
	}
	pf = h.Machine.PCI.Functions[f.PhysicalFunction]
	known, ok := h.indexes[pf.Address]
	if !ok {
		known = map[string]int{}
		for _, name := range h.Child(Dir(pf), virtfn) {
			target, _ := h.Link(Dir(pf) + name)
			known[path.Base(target)], _ = strconv.Atoi(strings.TrimPrefix(name, virtfn))
		}
		h.indexes[pf.Address] = known
	}
	if index, ok = known[f.Address.String()]; !ok {
		index = topology.None
	}
	return pf, index, true
}

// virtfn begins the names of a physical function's links to its virtual ones.
const virtfn = "virtfn"

// Node returns the device node whose numbers and name are in a directory of a class
// (the files dev and uevent, Documentation/ABI/testing/sysfs-dev). Block tells in which
// of the two number spaces they are, the kernel's path does not.
func (h *Host) Node(dir string, block bool) (Node, bool) {
	dir = strings.TrimSuffix(dir, "/")
	numbers, ok := h.Read(dir + "/dev")
	major, minor, isPair := strings.Cut(numbers, ":")
	n := Node{Block: block}
	var errMajor, errMinor error
	n.Major, errMajor = strconv.ParseInt(major, 10, 32)
	n.Minor, errMinor = strconv.ParseInt(minor, 10, 32)
	if !ok || !isPair || errMajor != nil || errMinor != nil || n.Major < 0 || n.Minor < 0 {
		return Node{}, false
	}
	uevent, _ := h.Read(dir + "/uevent")
	for line := range strings.Lines(uevent) {
		if name, isName := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); isName {
			n.Path = "/dev/" + name
		}
	}
	// A name that leads out of /dev is none.
	if !inDev(n.Path) {
		return Node{}, false
	}
	return n, true
}

// Resetting reports whether an error of reading a driver's file says that the device is
// being reset: drivers answer so until it is back.
func Resetting(err error) bool { return errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EIO) }

// Child returns the names in a directory below a function's that begin with a prefix and
// end in a number, "drm/card1", by number.
func (h *Host) Child(dir, prefix string) []string {
	return numbered(h.Entries(strings.TrimSuffix(dir, "/")), prefix)
}
