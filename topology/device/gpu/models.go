package gpu

import "github.com/topolet/topolet/topology"

// The vendors of GPUs that are told apart.
const (
	vendorIntel  = 0x8086
	vendorAMD    = 0x1002
	vendorNVIDIA = 0x10de
)

var vendors = map[int]string{vendorIntel: "intel", vendorAMD: "amd", vendorNVIDIA: "nvidia"}

// Base class, and base class and subclass of display controllers.
const (
	classBase    = 0x03
	classVGA     = 0x0300
	classDisplay = 0x0380
)

const unknown = "Unknown"

// model is what is known of a GPU by its device ID.
type model struct {
	name, series string
	// driver is the one that serves it unless another one is bound.
	driver string
	// integrated says that it is a part of the processor.
	integrated bool
}

// models are Intel's GPUs, by device ID. Virtual functions have the ID of their physical one.
var models = map[int]model{
	0x4626: {"Iris Xe", "Alder Lake-P", i915, true},
	0xa7a0: {"Iris Xe", "Raptor Lake-P", i915, true},
	0x7d67: {"Intel Graphics", "Arrow Lake-S", i915, true},

	0x5690: {"", "Arc A", i915, false},
	0x5691: {"", "Arc A", i915, false},
	0x5692: {"", "Arc A", i915, false},
	0x5693: {"", "Arc A", i915, false},
	0x5694: {"", "Arc A", i915, false},
	0x5695: {"", "Arc A", i915, false},
	0x5696: {"", "Arc A", i915, false},
	0x5697: {"", "Arc A", i915, false},
	0x56a0: {"A770", "Arc A", i915, false},
	0x56a1: {"A750", "Arc A", i915, false},
	0x56a2: {"A580", "Arc A", i915, false},
	0x56a3: {"", "Arc A", i915, false},
	0x56a4: {"", "Arc A", i915, false},
	0x56a5: {"A380", "Arc A", i915, false},
	0x56a6: {"A310", "Arc A", i915, false},
	0x56ba: {"", "Arc A", i915, false},
	0x56bb: {"", "Arc A", i915, false},
	0x56bc: {"", "Arc A", i915, false},
	0x56bd: {"", "Arc A", i915, false},

	0x56b0: {"A30M", "Arc Pro A", i915, false},
	0x56b1: {"A40/A50", "Arc Pro A", i915, false},
	0x56b2: {"A60M", "Arc Pro A", i915, false},
	0x56b3: {"A60", "Arc Pro A", i915, false},

	0x56c0: {"Flex 170", "Flex", i915, false},
	0x56c1: {"Flex 140", "Flex", i915, false},

	0x0b69: {"Max 1550", "Max", i915, false},
	0x0bd0: {"Max 1550", "Max", i915, false},
	0x0bd5: {"Max 1550", "Max", i915, false},
	0x0bd6: {"Max 1450", "Max", i915, false},
	0x0bd7: {"", "Max", i915, false},
	0x0bd9: {"Max 1100", "Max", i915, false},
	0x0bda: {"Max 1100", "Max", i915, false},
	0x0bdb: {"Max 1100", "Max", i915, false},

	0xb080: {"B390", "Arc B", xe, true},
	0xb081: {"B370", "Arc B", xe, true},
	0xb082: {"B390", "Arc B", xe, true},
	0xb083: {"B370", "Arc B", xe, true},
	0xb084: {"B390", "Arc B", xe, true},
	0xb085: {"B370", "Arc B", xe, true},
	0xb086: {"B390", "Arc B", xe, true},
	0xb087: {"B370", "Arc B", xe, true},

	0xe20b: {"B580", "Arc B", xe, false},
	0xe20c: {"B570", "Arc B", xe, false},

	0xe211: {"B60", "Arc Pro B", xe, false},
	0xe212: {"B50", "Arc Pro B", xe, false},
	0xe222: {"B65", "Arc Pro B", xe, false},
	0xe223: {"B70", "Arc Pro B", xe, false},
}

// integrated reports whether an Intel GPU is a part of the processor. Those are at bus 0,
// device 2. So can be any card in a virtual machine, hence models know better.
func integrated(f topology.PCIFunction) bool {
	if m, known := models[f.Device]; known {
		return m.integrated
	}
	return f.Address.Bus == 0 && f.Address.Device == 2
}
