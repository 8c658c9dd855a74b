package devicetest

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// Host is a host in the making. All paths are the host's own, with a leading slash.
type Host struct {
	t   testing.TB
	Dir string
}

// New returns a host with CPUs, NUMA nodes and the vfio driver in a temporary folder.
func New(t testing.TB) *Host {
	t.Helper()
	h := &Host{t: t, Dir: Dir(t)}
	h.File("/sys/devices/system/cpu/online", "0-127")
	h.File("/sys/devices/system/cpu/present", "0-127")
	h.File("/sys/devices/system/node/online", "0-1")
	for node, cpus := range []string{"0-31,64-95", "32-63,96-127"} {
		dir := fmt.Sprintf("/sys/devices/system/node/node%d/", node)
		h.File(dir+"cpulist", cpus)
		h.File(dir+"distance", []string{"10 21", "21 10"}[node])
		h.File(dir+"meminfo", fmt.Sprintf("Node %d MemTotal:       67108864 kB", node))
	}
	h.File("/proc/sys/kernel/random/boot_id", "6f1c1f6e-8f0a-4d4b-9d38-6a4f3a1f2f10")
	h.driver("vfio-pci")
	h.virtual("misc/vfio", "10:196", "vfio/vfio")
	return h
}

// Dir returns a folder that goes with the test, in memory if it can be: a host is hundreds
// of small files, and tests make hundreds of hosts.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "host-") //nolint:usetesting // that is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Function is a PCI function. Its fields may be changed before it is added.
type Function struct {
	// Path is its directory in the tree of devices: "/sys/devices/pci0000:37/0000:37:01.0".
	Path           string
	Vendor, Device uint16
	Class          uint32
	// Node is what numa_node says; -1 where the firmware does not tell.
	Node int
	// Group is the IOMMU group; none below 0.
	Group int
	// Driver is bound to it, if it is not empty.
	Driver string
}

// Bridge is a bridge in a group of its own.
func Bridge(path string, node int) Function {
	return Function{Path: path, Vendor: 0x8086, Device: 0x352a, Class: 0x060400, Node: node, Group: -1, Driver: "pcieport"}
}

// Address is the function's, as the kernel prints it.
func (f Function) Address() string { return path.Base(f.Path) }

// Add puts functions on the host.
func (h *Host) Add(functions ...Function) {
	h.t.Helper()
	for _, f := range functions {
		h.add(f)
	}
}

func (h *Host) add(f Function) {
	h.t.Helper()
	for name, content := range map[string]string{
		"vendor":           fmt.Sprintf("0x%04x", f.Vendor),
		"device":           fmt.Sprintf("0x%04x", f.Device),
		"class":            fmt.Sprintf("0x%06x", f.Class),
		"revision":         "0x08",
		"subsystem_vendor": fmt.Sprintf("0x%04x", f.Vendor),
		"subsystem_device": "0x0000",
		"numa_node":        fmt.Sprint(f.Node),
		"local_cpulist":    map[int]string{-1: "0-127", 0: "0-31,64-95", 1: "32-63,96-127"}[f.Node],
		"driver_override":  "(null)",
		"uevent": fmt.Sprintf("PCI_CLASS=%X\nPCI_ID=%04X:%04X\nPCI_SLOT_NAME=%s",
			f.Class, f.Vendor, f.Device, f.Address()),
	} {
		h.File(f.Path+"/"+name, content)
	}
	h.Link("/sys/bus/pci/devices/"+f.Address(), f.Path)
	h.Link(f.Path+"/subsystem", "/sys/bus/pci")
	if f.Group >= 0 {
		group := fmt.Sprintf("/sys/kernel/iommu_groups/%d", f.Group)
		h.Link(group+"/devices/"+f.Address(), f.Path)
		h.Link(f.Path+"/iommu_group", group)
	}
	if f.Driver != "" {
		h.bind(f)
	}
	if f.Driver == "vfio-pci" && f.Group >= 0 {
		h.virtual(fmt.Sprintf("vfio/%d", f.Group), fmt.Sprintf("243:%d", f.Group), fmt.Sprintf("vfio/%d", f.Group))
	}
}

func (h *Host) bind(f Function) {
	h.driver(f.Driver)
	h.Link(f.Path+"/driver", "/sys/bus/pci/drivers/"+f.Driver)
	h.Link("/sys/bus/pci/drivers/"+f.Driver+"/"+f.Address(), f.Path)
}

func (h *Host) driver(name string) {
	for _, file := range []string{"bind", "unbind"} {
		h.File("/sys/bus/pci/drivers/"+name+"/"+file, "")
	}
}

// Virtual makes a function the virtual function of that index of a physical one.
func (h *Host) Virtual(pf, vf Function, index int) {
	h.t.Helper()
	h.Link(vf.Path+"/physfn", pf.Path)
	h.Link(fmt.Sprintf("%s/virtfn%d", pf.Path, index), vf.Path)
}

// Char puts a device of a class below a function, or, with the path
// /sys/devices/virtual, below none: its directory, the class's link, and what the kernel
// says of its node. Class and name are "drm/card1", the name of the node is "dri/card1".
func (h *Host) Char(parent, class, numbers, node string) {
	h.t.Helper()
	dir := parent + "/" + class
	if parent == "/sys/devices/virtual" {
		h.virtual(class, numbers, node)
		return
	}
	h.node(dir, numbers, node)
	h.Link(dir+"/device", parent)
	h.Link("/sys/class/"+class, dir)
}

func (h *Host) virtual(class, numbers, node string) {
	dir := "/sys/devices/virtual/" + class
	h.node(dir, numbers, node)
	h.Link("/sys/class/"+class, dir)
}

func (h *Host) node(dir, numbers, node string) {
	h.File(dir+"/dev", numbers)
	major, minor, _ := strings.Cut(numbers, ":")
	h.File(dir+"/uevent", "MAJOR="+major+"\nMINOR="+minor+"\nDEVNAME="+node)
}

// File writes a file, as the kernel shows it: with a newline at its end.
func (h *Host) File(name, content string) {
	h.t.Helper()
	file := h.at(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content+"\n"), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// Files writes files into a directory, by their names.
func (h *Host) Files(dir string, contents map[string]string) {
	h.t.Helper()
	for name, content := range contents {
		h.File(dir+"/"+name, content)
	}
}

// Link makes a relative link, as the kernel does, in place of one that is there.
func (h *Host) Link(name, target string) {
	h.t.Helper()
	file := h.at(name)
	relative, err := filepath.Rel(filepath.Dir(file), h.at(target))
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	if err := os.Symlink(relative, file); err != nil {
		h.t.Fatal(err)
	}
}

// Remove takes a file or a directory with everything in it away.
func (h *Host) Remove(name string) {
	h.t.Helper()
	if err := os.RemoveAll(h.at(name)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *Host) at(name string) string {
	if !path.IsAbs(name) {
		h.t.Fatalf("path %q has no leading slash", name)
	}
	return filepath.Join(h.Dir, filepath.FromSlash(name))
}

// Open returns the host as families read it.
func (h *Host) Open() *device.Host {
	h.t.Helper()
	root, machine := h.discover()
	return device.NewHost(root, machine)
}

func (h *Host) discover() (*topology.Root, *topology.Machine) {
	h.t.Helper()
	root, err := topology.OpenRoot(h.Dir)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { root.Close() }) //nolint:errcheck // only read
	m, err := topology.Discover(root)
	if err != nil {
		h.t.Fatal(err)
	}
	return root, m
}

// Discover returns the devices of families, which nothing may be wrong with.
func (h *Host) Discover(families ...device.Family) []device.Device {
	h.t.Helper()
	devices, problems := device.Discover(h.Open(), families...)
	for _, problem := range problems {
		h.t.Error(problem)
	}
	return devices
}
