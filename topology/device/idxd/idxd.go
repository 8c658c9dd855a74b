// Package idxd finds the accelerators in Intel's processors that take their work
// through queues: DSA, which copies, compares and fills memory, and IAA, which
// compresses it. The driver idxd (drivers/dma/idxd) serves both, and the files are the
// same but for their names; Documentation/ABI/stable/sysfs-driver-dma-idxd describes them.
//
// An administrator divides an accelerator into groups of engines and work queues. A
// container maps the portal of a queue that is of type user, and writes descriptors to
// it; so each queue that is enabled is a device. The function as a whole is one only
// while it is bound to vfio.
package idxd

import (
	"fmt"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// native is the name of the driver, both on the PCI bus and for the device below it.
const native = "idxd"

// CharLink is the role of the link /dev/char/<major>:<minor> to a queue's node. The
// library libaccel-config finds the node by it, so claims get it unless they say that
// they do not need it.
const CharLink = "char-link"

// defaultShares is how many claims have a shared queue where nobody says otherwise.
const defaultShares = 8

// Family is the family of one kind of these accelerators: a copy of [DSA] or [IAA].
type Family struct {
	// Shares is how many claims can have a shared queue at the same time; 0 means 8.
	Shares uint64

	name string
	// prefix is what the kernel calls the accelerators, with a number behind it.
	prefix string
	// models are by vendor and device.
	models map[int]string
}

// The two families.
var (
	DSA = Family{name: "dsa", prefix: "dsa", models: map[int]string{
		0x80860b25: "Sapphire Rapids DSA",
		0x808611fb: "Granite Rapids-D DSA",
		0x80861212: "Diamond Rapids DSA",
	}}
	IAA = Family{name: "iaa", prefix: "iax", models: map[int]string{
		0x80860cfe: "Sapphire Rapids IAA",
		0x80861216: "Diamond Rapids IAA",
		0x8086b02d: "Panther Lake IAA",
		0x8086fd2d: "Wildcat Lake IAA",
	}}
)

// Name implements [device.Family].
func (family Family) Name() string { return family.name }

// Discover implements [device.Family]. A function without a driver has no queues, and so
// no devices.
func (family Family) Discover(h *device.Host, problem func(error)) []device.Device {
	var devices []device.Device
	for _, f := range h.Functions(func(f topology.PCIFunction) bool { return family.models[device.ID(f)] != "" }) {
		if d, ok := h.VFIO(family.name, f); ok {
			d.Set("model", device.Text(family.models[device.ID(f)]))
			devices = append(devices, d)
			continue
		}
		names := h.Child(device.Dir(f), family.prefix)
		if len(names) == 0 && f.Driver == native {
			problem(fmt.Errorf("%s is bound to %s, which shows no %s device for it", f.Address, native, family.prefix))
		}
		for _, name := range names {
			a := accelerator{
				Family: family, host: h, function: f,
				dir:    device.Dir(f) + name + "/",
				number: strings.TrimPrefix(name, family.prefix),
			}
			devices = append(devices, a.queues(problem)...)
		}
	}
	return devices
}

// accelerator is a function with the directory of its driver's device.
type accelerator struct {
	Family
	host     *device.Host
	function topology.PCIFunction
	// dir is <function>/dsa<number>, with a slash at the end. Both families count
	// together, and the number is another one after the next boot.
	dir, number string
}

// queues returns the queues that are in use; one of which something mandatory is not
// known costs no others.
func (a accelerator) queues(problem func(error)) []device.Device {
	var devices []device.Device
	taints := a.health()
	prefix := "wq" + a.number + "."
	for _, name := range a.host.Child(a.dir, prefix) {
		q := queue{of: a, index: strings.TrimPrefix(name, prefix), name: name}
		d, used, err := q.device()
		if err != nil {
			problem(fmt.Errorf("queue %s of %s is left out: %w", name, a.function.Address, err))
		}
		if err != nil || !used {
			continue
		}
		for _, t := range taints {
			d.Taint(t.Reason, t.Value)
		}
		devices = append(devices, d)
	}
	return devices
}
