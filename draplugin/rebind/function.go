package rebind

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

const (
	devicesDir = "sys/bus/pci/devices/"
	driversDir = "sys/bus/pci/drivers/"
	bootIDFile = "proc/sys/kernel/random/boot_id"
)

// function is a PCI function as its files show it now.
type function struct {
	topology.Files
	address string
}

func (f function) dir() string { return devicesDir + f.address + "/" }

func (f function) there() bool { return f.Exists(devicesDir + f.address) }

// binding reads which driver the function has, and which it may have.
func (f function) binding() Binding {
	b := Binding{Driver: f.target("driver")}
	if name, _ := f.Read(f.dir() + "driver_override"); name != "(null)" {
		b.Override = name
	}
	return b
}

// target is the last part of where a link of the function leads; empty if there is none.
func (f function) target(link string) string {
	target, ok := f.Link(f.dir() + link)
	if !ok {
		return ""
	}
	return path.Base(target)
}

// group is the function's IOMMU group, or empty.
func (f function) group() string { return f.target("iommu_group") }

// id is vendor and device, "0x8086:0x56c0".
func (f function) id() string {
	vendor, _ := f.Read(f.dir() + "vendor")
	model, _ := f.Read(f.dir() + "device")
	return vendor + ":" + model
}

// vfioDriver is the driver to give the function to. The kernel has special ones, which can
// move a virtual machine to another host, for some virtual functions.
func (f function) vfioDriver() string {
	const general, xe, qat = "vfio-pci", "xe-vfio-pci", "qat_vfio_pci"
	pf := f.target("physfn")
	switch {
	case pf == "":
	case f.loaded(xe) && function{f.Files, pf}.target("driver") == "xe":
		return xe
	case f.loaded(qat) && slices.Contains(qatFunctions, f.id()):
		return qat
	}
	return general
}

// qatFunctions are the virtual functions that qat_vfio_pci is for.
var qatFunctions = []string{"0x8086:0x4941", "0x8086:0x4943", "0x8086:0x4945", "0x8086:0x4947"}

func (f function) loaded(driver string) bool { return f.Exists(driversDir + driver) }

// denylist are the functions that vfio-pci refuses (vfio_pci_dev_in_denylist in
// drivers/vfio/pci/vfio_pci.c).
var denylist = []string{
	"0x8086:0x19e2", "0x8086:0x19e3", "0x8086:0x37c8", "0x8086:0x37c9", "0x8086:0x0435", "0x8086:0x0443",
	"0x8086:0x0b25", "0x8086:0x0cfe",
}

// refuse returns an error if the function cannot be given to a driver for vfio.
func (f function) refuse(driver string) error {
	no := func(reason, remedy string) error {
		return &RefusedError{Address: f.address, Reason: reason, Remedy: remedy}
	}
	group := f.group()
	if group == "" {
		return no("it is in no IOMMU group", "switch the IOMMU on, in the firmware and on the kernel's command line")
	}
	if vfs, _ := f.Int(f.dir() + "sriov_numvfs"); vfs > 0 {
		return no(strconv.FormatInt(vfs, 10)+" of its virtual functions are switched on", "give these away, or switch them off")
	}
	members := f.Entries("sys/kernel/iommu_groups/" + group + "/devices")
	if !slices.Contains(members, f.address) {
		return no("the functions of its IOMMU group "+group+" cannot be read", "let topolet read the host's /sys")
	}
	if f.isBridge() {
		return no("it is a bridge", "give away what is behind it")
	}
	for _, address := range members {
		member := function{f.Files, address}
		bound := member.target("driver")
		if address != f.address && bound != "" && !device.IsVFIODriver(bound) && !member.isBridge() {
			return no(address+" of the same IOMMU group "+group+" has the driver "+bound,
				"take "+address+" from its driver first; the group can only be handed over together")
		}
	}
	if device.IsVFIODriver(f.target("driver")) {
		return nil
	}
	if !f.loaded(driver) {
		return &ModuleError{Address: f.address, Driver: driver}
	}
	const parameter = "sys/module/vfio_pci/parameters/disable_denylist"
	if disabled, _ := f.Read(parameter); slices.Contains(denylist, f.id()) && disabled != "Y" {
		return no("vfio-pci has it on its denylist for flaws of the hardware", "load vfio-pci with disable_denylist=1 if you trust those who get it")
	}
	return nil
}

// isBridge reports whether the function is a bridge between PCI buses.
func (f function) isBridge() bool {
	class, _ := f.Read(f.dir() + "class")
	return strings.HasPrefix(class, "0x0604")
}

// missing is the first file that is not there yet of a function that is bound to a driver,
// or empty.
func (f function) missing(driver string) string {
	if f.target("driver") != driver {
		return f.dir() + "driver"
	}
	if !device.IsVFIODriver(driver) {
		return ""
	}
	if node := "sys/class/vfio/" + f.group() + "/dev"; !f.Exists(node) {
		return node
	}
	// The class is there on kernels that have such devices, with or without functions.
	if f.Exists("sys/class/vfio-dev") && !slices.ContainsFunc(f.Entries(f.dir()+"vfio-dev"), func(name string) bool { return strings.HasPrefix(name, "vfio") }) {
		return f.dir() + "vfio-dev"
	}
	return ""
}
