// Package device tells which accelerators, network cards and disks a machine has,
// beside its CPUs: what they are, which of them are different faces of the same
// hardware, and by which device nodes a container reaches them.
//
// Each kind is a [Family], in a package of its own below this one, which turns PCI
// functions and the files of their drivers into [Device] values. [Discover] asks all
// families and keeps what is sound of their answers. Like the machine, devices are
// plain data: whoever publishes, grants or prepares them gets all that there is to
// know from here, and a change of the host means another discovery.
package device

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

// Device is something that a claim can get. A function that a container or a virtual
// machine can use is two devices of one hardware: see [Use].
type Device struct {
	// Name is unique on the machine and the same after every restart:
	// "gpu-0000-3a-00-0", "dsa-0000-6a-01-0-wq3". See [NameOf].
	Name string
	// Family is the name of the family.
	Family      string
	Personality Personality
	Function    Function
	// Address is the PCI function's, as the kernel prints it; empty for what has none.
	Address string
	// NUMANode is the kernel's number of the node that the device is at, or
	// topology.None.
	NUMANode int
	// Root is the PCIe root as Kubernetes names it, "pci0000:37", or empty.
	Root string
	// Driver is the name of the driver that serves this personality, be it bound or not.
	Driver string
	// Attributes are further properties, by the names under which they are published.
	Attributes map[string]Value
	// Capacities are what claims can take parts of, or merely read.
	Capacities []Capacity
	// Shared says that several claims can have the device at the same time.
	Shared bool
	// Use is what of the hardware a claim has with the device.
	Use Use
	// Taints are reasons not to give the device away, ordered by reason.
	Taints []Taint
	// Managed says that the function is given to the driver when a claim gets the device,
	// and taken back when the claim is done: until then there are no nodes. See [Managed].
	Managed bool
	// Nodes are the device nodes by which it is used, ordered by path.
	Nodes []Node
	// Links are symbolic links in /dev that lead to nodes, ordered by path.
	Links []Link
	// Mounts are folders and files of the host that whoever gets the device sees.
	Mounts []Mount
	// Hooks are programs that are run before a container with the device starts.
	Hooks []Hook
	// Variables are those of the environment of whoever gets the device.
	Variables []Variable
	// Interfaces are the network interfaces that move to whoever gets the device, by the
	// host's names.
	Interfaces []string
}

// Personality is who uses a device.
type Personality string

// The personalities of devices.
const (
	// Kernel devices are used through their own driver.
	Kernel Personality = "kernel"
	// VFIO devices are handed over as a whole, to virtual machines and drivers in user
	// space.
	VFIO Personality = "vfio"
	// Monitor devices are for looking at: they take nothing from those who use the hardware.
	Monitor Personality = "monitor"
)

// Function is the part that a PCI function plays in SR-IOV.
type Function string

// The parts in SR-IOV.
const (
	Single   Function = "single" // has no virtual functions
	Physical Function = "pf"
	Virtual  Function = "vf"
)

// Use is the hardware behind a device. Two devices exclude each other if they are of
// the same Owner and one is the whole or both are the same Part. The zero value takes
// nothing from anybody. It is written into checkpoints, like [Node] and [Link].
type Use struct {
	// Owner is the address of the physical or single function.
	Owner string `json:"owner"`
	// Part is what of it: "vf0", "wq3", "ns1"; empty for the whole.
	Part string `json:"part,omitempty"`
}

// Excludes reports whether two devices cannot be given away at the same time.
func (u Use) Excludes(other Use) bool {
	return u.Owner != "" && u.Owner == other.Owner && (u.Part == "" || other.Part == "" || u.Part == other.Part)
}

// Capacity is an amount of something that a device has.
type Capacity struct {
	// Name is that under which it is published: "memory", "shares".
	Name string
	// Amount is how much there is.
	Amount uint64
	// Bytes says that it is counted in bytes.
	Bytes bool
	// Default is what a claim takes of a shared device that does not say how much, and
	// Min and Step are the least and the unit. All are 0 where nothing is taken: the
	// amount is for information.
	Default, Min, Step uint64
}

// SharesCapacity is the name of the capacity by which claims share a device.
const SharesCapacity = "shares"

// Shares are n equal parts of a device, of which a claim takes one by default.
func Shares(n uint64) Capacity {
	return Capacity{Name: SharesCapacity, Amount: n, Default: 1, Min: 1, Step: 1}
}

// Taint is a reason not to give a device away.
type Taint struct {
	Reason Reason
	// Value is a short cause of at most 63 letters, digits, dashes, dots and
	// underscores; it may be empty.
	Value string
}

// Reason is one of a closed list.
type Reason string

// The reasons for taints.
const (
	Unhealthy      Reason = "unhealthy"       // broken, or the driver says so
	InReset        Reason = "in-reset"        // comes back by itself
	Gone           Reason = "gone"            // claims hold what is no longer there
	ControlOnly    Reason = "control-only"    // the function that manages virtual ones
	Unmanaged      Reason = "unmanaged"       // given away by others, listed for its place
	ProfilePending Reason = "profile-pending" // waits for its configuration
	RebindStuck    Reason = "rebind-stuck"    // cannot change its driver
	DriverLost     Reason = "driver-lost"     // its driver is not bound or not working
	MonitorOnly    Reason = "monitor-only"    // every monitor device has it
)

// Node is a device node that a container needs.
type Node struct {
	// Path is in the host's /dev, and the same in the container.
	Path string `json:"path"`
	// Block tells a block device from a character device.
	Block bool  `json:"block,omitempty"`
	Major int64 `json:"major"`
	Minor int64 `json:"minor"`
	// Role tells apart nodes that a claim's parameters choose from; empty for those
	// that every claim gets.
	Role string `json:"role,omitempty"`
}

// Kind is the node's type as mknod(1) and OCI write it: "c" or "b".
func (n Node) Kind() string {
	if n.Block {
		return "b"
	}
	return "c"
}

// String tells people.
func (n Node) String() string {
	return fmt.Sprintf("%s (%s %d:%d)", n.Path, n.Kind(), n.Major, n.Minor)
}

// Link is a symbolic link.
type Link struct {
	// Path is in /dev.
	Path string `json:"path"`
	// Target is what the link contains: "../card1".
	Target string `json:"target"`
	// Role is as in [Node].
	Role string `json:"role,omitempty"`
}

// Mount is a folder, or a file, of the host that a container sees under the same path, in which it
// cannot change anything but can use sockets. It is written into checkpoints.
type Mount struct {
	Path string `json:"path"`
	// Role is as of [Node].
	Role string `json:"role,omitempty"`
}

// Hook is a program of the host that is run on the host, as root, before the first instruction
// of a container that has the device. Without it, or if it fails, the container does not start.
// It is written into checkpoints.
type Hook struct {
	// Path is the program's, Argument its only one.
	Path     string `json:"path"`
	Argument string `json:"argument"`
	// Role is as of [Node].
	Role string `json:"role,omitempty"`
}

// Value is a text, a number or a truth value.
type Value struct {
	kind byte // 's', 'i' or 'b'
	text string
	num  int64
}

// Text returns a text.
func Text(v string) Value { return Value{kind: 's', text: v} }

// Number returns a number.
func Number(v int64) Value { return Value{kind: 'i', num: v} }

// Flag returns a truth value.
func Flag(v bool) Value {
	if v {
		return Value{kind: 'b', num: 1}
	}
	return Value{kind: 'b'}
}

// AsText returns the value if it is a text.
func (v Value) AsText() (string, bool) { return v.text, v.kind == 's' }

// AsNumber returns the value if it is a number.
func (v Value) AsNumber() (int64, bool) { return v.num, v.kind == 'i' }

// AsFlag returns the value if it is a truth value.
func (v Value) AsFlag() (value, ok bool) { return v.num != 0, v.kind == 'b' }

// String prints the value for people.
func (v Value) String() string {
	switch v.kind {
	case 's':
		return v.text
	case 'i':
		return strconv.FormatInt(v.num, 10)
	case 'b':
		return strconv.FormatBool(v.num != 0)
	}
	return ""
}

// Taint adds a taint, once. Of a value, such as a driver's name, what the API has no
// room for is left out.
func (d *Device) Taint(reason Reason, value string) {
	value = strings.Trim(notInTaints.ReplaceAllString(value, "-"), "-_.")
	t := Taint{reason, strings.TrimRight(value[:min(len(value), 63)], "-_.")}
	if !slices.ContainsFunc(d.Taints, func(have Taint) bool { return have.Reason == reason }) {
		d.Taints = append(d.Taints, t)
	}
}

// Tainted reports whether the device has a taint of this reason.
func (d *Device) Tainted(reason Reason) bool {
	return slices.ContainsFunc(d.Taints, func(t Taint) bool { return t.Reason == reason })
}

// Set sets an attribute.
func (d *Device) Set(name string, value Value) {
	if d.Attributes == nil {
		d.Attributes = map[string]Value{}
	}
	d.Attributes[name] = value
}

// Compare puts what the scheduler shall take first in front: parts before wholes,
// kernel before vfio, monitors last.
func Compare(a, b Device) int {
	return cmp.Or(
		cmp.Compare(order(a.Personality), order(b.Personality)),
		cmp.Compare(a.Family, b.Family),
		cmp.Compare(wholeness(a), wholeness(b)),
		cmp.Compare(a.Name, b.Name),
	)
}

func order(p Personality) int { return slices.Index([]Personality{Kernel, VFIO, Monitor}, p) }

func wholeness(d Device) int {
	if d.Use.Part == "" {
		return 1
	}
	return 0
}

// NameOf is the name of a device by its family and PCI function, with a suffix for
// its part or personality if there is one.
func NameOf(family string, address topology.PCIAddress, suffix ...string) string {
	return strings.Join(append([]string{family, Dashed(address.String())}, suffix...), "-")
}

// Dashed is a PCI address in the form of names: "0000-3a-00-0".
func Dashed(address string) string {
	text := []byte(address)
	for i, c := range text {
		if c == ':' || c == '.' {
			text[i] = '-'
		}
	}
	return string(text)
}
