package gpu

import (
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// consoles are the drivers of what servers show their boot messages on.
var consoles = map[string]bool{"ast": true, "mgag200": true}

// other returns a GPU that is given away by others, for its place on the machine; ok is
// false if the function is none. It has no nodes, so that it cannot be given away from here,
// whatever a claim tolerates. What is bound to vfio has no driver to give it away either.
func other(h *device.Host, f topology.PCIFunction) (d device.Device, ok bool) {
	// AMD's accelerators are of a class that many accelerators are of.
	display := f.Class>>16 == classBase || f.Vendor == vendorAMD && f.Driver == "amdgpu"
	nvidia := f.Vendor == vendorNVIDIA
	if !display || consoles[f.Driver] || device.IsVFIODriver(f.Driver) || !nvidia && !h.Exists(device.Dir(f)+"drm") {
		return device.Device{}, false
	}
	d = h.Of(name, f, device.Kernel)
	d.Taint(device.Unmanaged, "")
	model := ""
	if nvidia {
		model = nvidiaModel(h, f)
		if d.Driver == "" {
			d.Driver = "nvidia"
		}
	}
	setCommon(&d, f, model, "", 0)
	bytes, _ := h.Uint(device.Dir(f) + "mem_info_vram_total") // a file of amdgpu's
	d.Capacities = memoryCapacity(bytes)
	return d, true
}

// nvidiaModel reads the model off a file of NVIDIA's driver; it is empty where there is none.
func nvidiaModel(h *device.Host, f topology.PCIFunction) string {
	text, _ := h.Read("proc/driver/nvidia/gpus/" + f.Address.String() + "/information")
	for line := range strings.Lines(text) {
		if model, ok := strings.CutPrefix(line, "Model:"); ok {
			return device.Shorten(model)
		}
	}
	return ""
}
