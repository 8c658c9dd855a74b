package fpga

import (
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// stack is a set of drivers. All names of directories end in a number that the kernel
// counts over all cards.
type stack struct {
	// name is published, driver is that of the PCI function.
	name, driver string
	// below and container are where a function's engine and ports are:
	// <function>/<below>/<container><N>.
	below, container string
	// engine and port are the beginnings of their names there.
	engine, port string
	// interfaces returns the files with the ID of the interface below an engine's
	// directory: one for each port that can be programmed, or one for all.
	interfaces func(h *device.Host, engine string) []string
	// errors are files below an engine's directory.
	errors []register
}

var stacks = []stack{{
	name: "dfl", driver: "dfl-pci",
	below: "fpga_region", container: "region", engine: "dfl-fme.", port: "dfl-port.",
	// <engine>/dfl-fme-region.<N>/fpga_region/region<N>/compat_id
	interfaces: func(h *device.Host, engine string) []string {
		var files []string
		for _, region := range h.Child(engine, "dfl-fme-region.") {
			dir := engine + "/" + region + "/fpga_region"
			for _, inner := range h.Child(dir, "region") {
				files = append(files, dir+"/"+inner+"/compat_id")
			}
		}
		return files
	},
	errors: []register{
		{file: "errors/fme_errors", cause: "fme-errors"},
		{file: "errors/catfatal_errors", cause: "catfatal-errors"},
	},
}, {
	name: "opae", driver: "intel-fpga-pci",
	below: "fpga", container: "intel-fpga-dev.", engine: "intel-fpga-fme.", port: "intel-fpga-port.",
	interfaces: func(h *device.Host, engine string) []string {
		if !h.Exists(engine + "/pr") {
			return nil
		}
		return []string{engine + "/pr/interface_id"}
	},
	errors: []register{
		{file: "errors/fme-errors/errors", cause: "fme-errors"},
		{file: "errors/catfatal_errors", cause: "catfatal-errors"},
		{file: "errors/bbs_errors", cause: "catfatal-errors"}, // its name on the first cards
	},
}}

// children returns the directories of engines or ports of a function.
func (s stack) children(h *device.Host, f topology.PCIFunction, prefix string) []string {
	var dirs []string
	for _, container := range h.Child(device.Dir(f)+s.below, s.container) {
		dir := device.Dir(f) + s.below + "/" + container
		for _, child := range h.Child(dir, prefix) {
			dirs = append(dirs, dir+"/"+child)
		}
	}
	return dirs
}
