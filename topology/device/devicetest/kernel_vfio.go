package devicetest

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/topolet/topolet/topology/device"
)

// What vfio drivers do (drivers/vfio/pci/vfio_pci.c and vfio_pci_core.c).

// denied are the functions that vfio-pci refuses, by vendor and device
// (vfio_pci_dev_in_denylist).
var denied = []int{
	0x808619e2, 0x808619e3, 0x808637c8, 0x808637c9, 0x80860435, 0x80860443, // QAT
	0x80860b25, 0x80860cfe, // DSA and IAA
}

// ServeCdevs makes the kernel one with CONFIG_VFIO_DEVICE_CDEV: each function that is
// bound from now on has a node of its own beside that of its group.
func (k *Kernel) ServeCdevs() {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mkdir(cdevClass)
	k.virtual("misc/iommu", "10:123", "iommu")
}

const cdevClass = "/sys/class/vfio-dev"

func (k *Kernel) probeVFIO(driver string, f Function) error {
	disabled := k.get("/sys/module/vfio_pci/parameters/disable_denylist") == "Y"
	switch {
	case driver == "vfio-pci" && slices.Contains(denied, f.id()) && !disabled, f.Group < 0:
		return syscall.EINVAL
	case k.number(f.Path+"/sriov_numvfs", 0) > 0:
		return syscall.EBUSY
	}
	if name := group(f); !k.exists("/sys/class/" + name) {
		k.virtual(name, fmt.Sprintf("243:%d", f.Group), name)
	}
	if k.exists(cdevClass) {
		n := 0
		for k.exists(fmt.Sprintf("%s/vfio%d", cdevClass, n)) {
			n++
		}
		name := fmt.Sprintf("vfio%d", n)
		k.Char(f.Path, "vfio-dev/"+name, fmt.Sprintf("511:%d", n), "vfio/devices/"+name)
	}
	return nil
}

// group is the name of the group's device in its class.
func group(f Function) string { return fmt.Sprintf("vfio/%d", f.Group) }

func (k *Kernel) releaseVFIO(f Function, locked []string) {
	k.Remove(f.Path + "/vfio-dev")
	k.sweep()
	if ch, ok := k.held[f.Group]; ok {
		k.block(ch, locked)
	}
	for _, address := range k.entries(fmt.Sprintf("/sys/kernel/iommu_groups/%d/devices", f.Group)) {
		if member, ok := k.function(address); ok && device.IsVFIODriver(member.Driver) {
			return
		}
	}
	k.Remove("/sys/devices/virtual/" + group(f))
}
