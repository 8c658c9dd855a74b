// Package gaudi finds the Gaudi accelerators of Intel's Habana Labs (driver habanalabs,
// drivers/accel/habanalabs).
//
// Each PCI function is a kernel device while it is not bound to vfio, a vfio device while
// it is, and always a device to monitor it by. Beside the PCI IDs all is told by files of
// the driver in the function's directory: the state, the slot on the board, and the nodes.
package gaudi

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

const (
	name   = "gaudi"
	native = "habanalabs"
)

// models are by vendor and device.
var models = map[int]string{
	0x1da31000: "Gaudi",
	0x1da31001: "Gaudi",
	0x1da31010: "Gaudi",
	0x1da31011: "Gaudi",
	0x1da31020: "Gaudi2",
	0x1da31030: "Gaudi3",
	0x1da31060: "Gaudi3",
	0x1da31061: "Gaudi3",
	0x1da31062: "Gaudi3",
	0x1da31063: "Gaudi3",
}

// Attributes of all devices, beside the model.
const (
	// ModuleID tells the slot of its board that the accelerator is in (module_id in the
	// function's directory), or [NoModule] where the driver does not tell. Software that
	// spans several accelerators has to know their slots.
	ModuleID = "moduleID"
	// ScaleOutReady tells whether there is a node for [ScaleOut].
	ScaleOutReady = "scaleOut"
)

// NoModule is no slot. It is a number so that selectors need not ask for the attribute first.
const NoModule = -1

// Family is the family of Gaudi accelerators.
type Family struct {
	// NetworkHook is a program of the host by which the network ports of a container's
	// accelerators are set up, for claims with the role [ScaleOut]: the hook of the maker's
	// container runtime. Empty is none.
	NetworkHook string
	// NetworkConfig is a file of the host that such containers see, with the addresses of
	// these ports. Empty is none.
	NetworkConfig string
}

// createRuntime is how the maker's hook is told at which moment it is run.
const createRuntime = "createRuntime"

// Name implements [device.Family].
func (Family) Name() string { return name }

// Discover implements [device.Family].
func (family Family) Discover(h *device.Host, problem func(error)) []device.Device {
	var devices []device.Device
	for _, f := range h.Functions(func(f topology.PCIFunction) bool { return models[device.ID(f)] != "" }) {
		d, handedOver := h.VFIO(name, f)
		if !handedOver {
			d = h.Of(name, f, device.Kernel)
			d.Driver = native
		}
		monitor := h.Of(name, f, device.Monitor)
		monitor.Driver = native
		t := told{moduleID: NoModule}
		switch {
		case handedOver:
		case f.Driver == native:
			t = read(h, f, &d, problem)
		case f.Driver == "":
			d.Taint(device.DriverLost, "")
		default:
			d.Taint(device.DriverLost, "other-driver")
		}
		d.Variables = t.variables
		if !handedOver && family.NetworkHook != "" {
			d.Hooks = []device.Hook{{Path: family.NetworkHook, Argument: createRuntime, Role: ScaleOut}}
		}
		if !handedOver && family.NetworkConfig != "" {
			d.Mounts = []device.Mount{{Path: family.NetworkConfig, Role: ScaleOut}}
		}
		for _, n := range t.nodes {
			d.Nodes = append(d.Nodes, n)
			if n.Role == Control {
				n.Role = ""
				monitor.Nodes = append(monitor.Nodes, n)
			}
		}
		for _, d := range []*device.Device{&d, &monitor} {
			d.Set("model", device.Text(models[device.ID(f)]))
			d.Set(ModuleID, device.Number(t.moduleID))
			d.Set(ScaleOutReady, device.Flag(t.scaleOut))
		}
		devices = append(devices, d, monitor)
	}
	return devices
}

// told is what the driver tells of an accelerator.
type told struct {
	moduleID int64
	scaleOut bool
	nodes    []device.Node
	// variables are those in which the driver's software expects numbers and nodes.
	variables []device.Variable
}

// read reads what the driver tells, and taints the device with what is wrong.
func read(h *device.Host, f topology.PCIFunction, d *device.Device, problem func(error)) told {
	t := told{moduleID: NoModule}
	if text, ok := mandatory(h, f, d, "status", problem); ok {
		reason, known := states[strings.ToLower(text)]
		switch {
		case !known:
			d.Taint(device.Unhealthy, "unknown-status")
			problem(fmt.Errorf("%s: its status %q is unknown", f.Address, device.Shorten(text)))
		case reason != "":
			d.Taint(reason, strings.ReplaceAll(strings.ToLower(text), " ", "-"))
		}
	}
	if text, ok := mandatory(h, f, d, "module_id", problem); ok {
		slot, err := strconv.ParseUint(text, 10, 31)
		if err == nil {
			t.moduleID = int64(slot)
		} else {
			d.Taint(device.Unhealthy, "module_id")
			problem(fmt.Errorf("%s: its module_id %q is no number", f.Address, device.Shorten(text)))
		}
	}
	accel, found := accelNodes(h, f)
	t.nodes = accel
	if found {
		t.variables = variables(accel[0].Path, t.moduleID)
	}
	// While the driver initialises the device, there is no node yet.
	if !found && !d.Tainted(device.InReset) {
		d.Taint(device.DriverLost, "no-node")
	}
	uverbs := uverbsNodes(h, f)
	t.scaleOut = len(uverbs) > 0
	t.nodes = append(t.nodes, uverbs...)
	return t
}

// states are what the driver says (status, Documentation/ABI/testing/sysfs-driver-habanalabs),
// in lower case, and what that means. Resets end by themselves.
var states = map[string]device.Reason{
	"operational":                   "",
	"in reset":                      device.InReset,
	"in device creation":            device.InReset,
	"in reset after device release": device.InReset,
	"needs reset":                   device.Unhealthy,
	"disabled":                      device.Unhealthy,
	"malfunction":                   device.Unhealthy,
}

// mandatory reads a file without which the device is not to be given away.
func mandatory(h *device.Host, f topology.PCIFunction, d *device.Device, file string, problem func(error)) (string, bool) {
	text, err := h.ReadError(device.Dir(f) + file)
	switch {
	case err == nil:
		return text, true
	case device.Resetting(err):
		d.Taint(device.InReset, "")
	default:
		d.Taint(device.Unhealthy, file)
		problem(fmt.Errorf("%s: %w", f.Address, err))
	}
	return "", false
}
