package device

import (
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

// vfioDrivers hand functions over as a whole.
var vfioDrivers = []string{"vfio-pci", "xe-vfio-pci", "qat_vfio_pci", "mlx5_vfio_pci"}

// IsVFIODriver reports whether a driver hands functions over.
func IsVFIODriver(name string) bool { return slices.Contains(vfioDrivers, name) }

// Roles of the nodes of a function that is bound to vfio: by its group, or by the
// interface of newer kernels. See Documentation/driver-api/vfio.rst.
const (
	VFIOGroup = "vfio-group"
	VFIOCdev  = "vfio-cdev"
)

// VFIO returns the device by which a function that is bound to a vfio driver is handed
// over, with the nodes of all interfaces that the kernel offers; ok is false if it is not bound.
func (h *Host) VFIO(family string, f topology.PCIFunction) (d Device, ok bool) {
	if !IsVFIODriver(f.Driver) {
		return Device{}, false
	}
	d = h.Of(family, f, VFIO)
	d.nameVFIO(f)
	if f.IOMMUGroup != topology.None {
		d.setGroup(h, f)
		name := strconv.Itoa(f.IOMMUGroup)
		if kind, _ := h.Read(groupDir(f) + "/name"); kind == "vfio-noiommu" {
			name = "noiommu-" + name
		}
		d.add(h, VFIOGroup, "sys/class/vfio/"+name, "sys/class/misc/vfio")
	}
	for _, name := range h.Child(Dir(f)+"vfio-dev", "vfio") {
		d.add(h, VFIOCdev, strings.TrimSuffix(Dir(f), "/")+"/vfio-dev/"+name, "sys/class/misc/iommu")
	}
	return d, true
}

func groupDir(f topology.PCIFunction) string {
	return "sys/kernel/iommu_groups/" + strconv.Itoa(f.IOMMUGroup)
}

// setGroup sets the attributes of what can only be handed over together.
func (d *Device) setGroup(h *Host, f topology.PCIFunction) {
	d.Set("iommuGroup", Number(int64(f.IOMMUGroup)))
	d.Set("iommuGroupSize", Number(int64(len(h.Entries(groupDir(f)+"/devices")))))
}

// add adds the nodes of directories of classes, all or none.
func (d *Device) add(h *Host, role string, dirs ...string) {
	var nodes []Node
	for _, dir := range dirs {
		n, ok := h.Node(dir, false)
		if !ok {
			return
		}
		n.Role = role
		nodes = append(nodes, n)
	}
	d.Nodes = append(d.Nodes, nodes...)
}
