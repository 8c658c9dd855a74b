package topology

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// PCI is the machine's PCIe tree. It stands beside the CPU tree: its parts refer
// to each other by index, and to CPUs and NUMA nodes by what they are near to.
//
//	root (pci0000:17) ─ root port ─ switch, upstream ─ switch, downstream ─ endpoint
//
// A bridge is a function like any other, so every level but the root is in
// Functions.
type PCI struct {
	// Functions are the entries of sys/bus/pci/devices, bridges too, in ascending
	// order of their addresses.
	Functions []PCIFunction
	// Roots are the host bridges through which the CPUs reach the functions, in
	// ascending order of domain and bus.
	Roots []PCIRoot
}

// PCIRoot is a PCIe root complex, or a host bridge of older machines.
type PCIRoot struct {
	// Domain and Bus are in the root's name, "pci0000:17".
	Domain uint32
	Bus    uint8
	// LocalCPUs are the CPUs near the root's bus
	// (pciDDDD:BB/pci_bus/DDDD:BB/cpulistaffinity, or cpuaffinity); nil where
	// there is no such file.
	LocalCPUs *CPUSet
	// Children are the functions on the root's own bus: indices in
	// [PCI.Functions].
	Children []int
}

// String returns the root's name as the kernel writes it, which is also the
// value of the Kubernetes attribute resource.kubernetes.io/pcieRoot.
func (r PCIRoot) String() string { return fmt.Sprintf("pci%04x:%02x", r.Domain, r.Bus) }

// PCIFunction is one PCI function: what has an address of its own, such as a
// port of a network card, an SR-IOV virtual function, or a bridge.
//
// The files named below are in the function's entry in sys/bus/pci/devices.
type PCIFunction struct {
	// Address is the entry's name.
	Address PCIAddress

	// Vendor and Device say what the function is (vendor, device), and
	// SubsystemVendor and SubsystemDevice which board it is on
	// (subsystem_vendor, subsystem_device): 16 bits each, or None.
	Vendor, Device                   int
	SubsystemVendor, SubsystemDevice int
	// Class is base class, subclass and programming interface (class): 24 bits,
	// 0x010802 for NVMe, or None.
	Class int
	// Kind follows from the class and from the place in the tree.
	Kind PCIKind

	// Driver is the name of the driver that is bound (the link driver), or "".
	Driver string
	// IOMMUGroup is the number of the functions that can only be handed to a
	// virtual machine together (the link iommu_group), or None.
	IOMMUGroup int

	// NUMANode is what the kernel says (numa_node): the kernel's number of the
	// node, or None where it says -1 or nothing. [PCIFunction.Locality] has what
	// follows from all that is known.
	NUMANode int
	// LocalCPUs is what the kernel says (local_cpulist, or local_cpus), which is
	// all CPUs where it does not know; nil where there is no such file.
	LocalCPUs *CPUSet
	// Locality is derived: see [Locality].
	Locality Locality

	// Root is the index in [PCI.Roots]; None where the entry is not a link, or
	// one that leads through no root.
	Root int
	// Parent is the bridge that the function is behind, Children are the
	// functions behind a bridge: indices in [PCI.Functions]. None is for a
	// function on the root's own bus.
	Parent   int
	Children []int

	// SRIOV is there for a physical function that can have virtual ones.
	SRIOV *SRIOV
	// PhysicalFunction is the index in [PCI.Functions] of the function that this
	// one is a virtual function of (the link physfn), or None.
	PhysicalFunction int

	// Link is how the function is connected now (current_link_speed,
	// current_link_width), MaxLink is the best it can do (max_link_speed,
	// max_link_width). A device that saves power may run a slower link.
	Link, MaxLink PCILink
}

// PCIAddress is where software finds a function. Two functions of one card often
// differ in Function only.
type PCIAddress struct {
	// Domain has 16 bits on most machines; the functions behind an Intel VMD, and
	// those of some virtual machines, have domains of up to 32 bits.
	Domain uint32
	Bus    uint8
	// Device has 5 bits, Function has 3. With ARI the kernel still prints the two
	// apart.
	Device, Function uint8
}

// SRIOV is a physical function's ability to appear as several.
type SRIOV struct {
	// TotalVFs is how many virtual functions the device offers (sriov_totalvfs),
	// NumVFs how many are switched on (sriov_numvfs).
	TotalVFs, NumVFs int
	// VFs are the virtual functions the machine shows: indices in
	// [PCI.Functions]. They can be fewer than NumVFs.
	VFs []int
}

// PCILink is the connection of a function to the port above it.
type PCILink struct {
	// Speed is that of one lane in GT/s: 2.5, 5, 8, 16, 32 or 64; 0 is unknown.
	Speed float64
	// Width is the number of lanes: 1 to 32; 0 is unknown.
	Width int
}

// PCIKind is the part that a function plays in the tree.
type PCIKind string

// The kinds of functions. The kernel shows no kinds of ports in sysfs, so they
// follow from the order in which bridges must come: a root port, then the
// upstream port of a switch, then its downstream ports, and so on. A bridge to a
// conventional PCI bus is counted with them.
const (
	PCIEndpoint   PCIKind = "endpoint"
	PCIHostBridge PCIKind = "host bridge" // the root's own entry among the functions
	PCIRootPort   PCIKind = "root port"
	PCIUpstream   PCIKind = "upstream port"
	PCIDownstream PCIKind = "downstream port"
)

// IsBridge reports whether functions can be behind this one.
func (k PCIKind) IsBridge() bool { return k == PCIRootPort || k == PCIUpstream || k == PCIDownstream }

// String prints the address as the kernel does: "0000:21:00.0", "10000:e1:00.0".
func (a PCIAddress) String() string {
	return fmt.Sprintf("%04x:%02x:%02x.%d", a.Domain, a.Bus, a.Device, a.Function)
}

// Compare orders addresses by domain, bus, device and function.
func (a PCIAddress) Compare(b PCIAddress) int {
	return cmp.Or(
		cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Bus, b.Bus),
		cmp.Compare(a.Device, b.Device), cmp.Compare(a.Function, b.Function),
	)
}

// ParsePCIAddress reads an address in the kernel's form, with the domain.
func ParsePCIAddress(text string) (PCIAddress, error) {
	domain, bus, rest, ok := cutBus(text)
	device, function, dot := strings.Cut(rest, ".")
	if ok && dot && len(device) == 2 && len(function) == 1 {
		d, errD := strconv.ParseUint(device, 16, 5)
		f, errF := strconv.ParseUint(function, 8, 3)
		if errD == nil && errF == nil {
			return PCIAddress{domain, bus, uint8(d), uint8(f)}, nil
		}
	}
	return PCIAddress{}, fmt.Errorf("%q is no PCI address such as 0000:21:00.0", shorten(text))
}

// parsePCIRoot reads the name of a root, "pci0000:17".
func parsePCIRoot(text string) (PCIRoot, bool) {
	name, ok := strings.CutPrefix(text, "pci")
	if !ok {
		return PCIRoot{}, false
	}
	domain, bus, rest, ok := cutBus(name + ":")
	return PCIRoot{Domain: domain, Bus: bus}, ok && rest == ""
}

// cutBus reads "DDDD:BB:" in front of the rest. A domain has leading zeros up to
// four digits, and none beyond.
func cutBus(text string) (domain uint32, bus uint8, rest string, ok bool) {
	first, rest, _ := strings.Cut(text, ":")
	second, rest, ok := strings.Cut(rest, ":")
	if !ok || len(first) < 4 || len(first) > 4 && first[0] == '0' || len(second) != 2 {
		return 0, 0, "", false
	}
	d, errD := strconv.ParseUint(first, 16, 32)
	b, errB := strconv.ParseUint(second, 16, 8)
	return uint32(d), uint8(b), rest, errD == nil && errB == nil
}

// Function returns the function with this address.
func (p *PCI) Function(a PCIAddress) (PCIFunction, bool) {
	if i, ok := p.index(a); ok {
		return p.Functions[i], true
	}
	return PCIFunction{}, false
}

// RootOf returns the root that the function is below.
func (p *PCI) RootOf(f PCIFunction) (PCIRoot, bool) {
	if f.Root == None {
		return PCIRoot{}, false
	}
	return p.Roots[f.Root], true
}
