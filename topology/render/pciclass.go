package render

import "github.com/topolet/topolet/topology"

// pciClasses are short names for what a function is, by base class and subclass,
// or by base class alone. Where workloads ask for it, it is worth a line of its own.
var pciClasses = map[int]struct {
	name      string
	worthLine bool
}{
	0x0100: {"SCSI", true}, 0x0101: {"IDE", true}, 0x0104: {"RAID", true}, 0x0105: {"ATA", true},
	0x0106: {"SATA", true}, 0x0107: {"SAS", true}, 0x0108: {"NVMe", true}, 0x01: {"storage", true},
	0x0200: {"Ethernet", true}, 0x0207: {"InfiniBand", true}, 0x0208: {"fabric", true}, 0x02: {"network", true},
	0x0300: {"VGA", true}, 0x0302: {"3D controller", true}, 0x03: {"display", true},
	0x04: {"multimedia", false}, 0x0403: {"audio", false},
	0x0502: {"CXL memory", true}, 0x05: {"memory controller", false},
	0x0600: {"host bridge", false}, 0x0601: {"ISA bridge", false}, 0x0604: {"PCI bridge", false}, 0x06: {"bridge", false},
	0x0700: {"serial port", false}, 0x07: {"communication", false},
	0x08: {"system peripheral", false}, 0x09: {"input", false}, 0x0a: {"docking station", false},
	0x0b40: {"co-processor", true}, 0x0b: {"processor", false},
	0x0c03: {"USB", false}, 0x0c04: {"Fibre Channel", true}, 0x0c05: {"SMBus", false}, 0x0c06: {"InfiniBand", true},
	0x0c07: {"IPMI", false}, 0x0c: {"serial bus", false},
	0x0d: {"wireless", false}, 0x0e: {"intelligent controller", false}, 0x0f: {"satellite", false},
	0x10: {"encryption", true}, 0x11: {"signal processing", false},
	0x12: {"accelerator", true}, 0x13: {"instrumentation", false},
}

// classOf names a function, and tells whether it is worth a line. What is not
// known may be what somebody is looking for.
func classOf(f topology.PCIFunction) (name string, worthLine bool) {
	if f.Class == topology.None {
		return "device", true
	}
	for _, key := range []int{f.Class >> 8, f.Class >> 16} {
		if c, ok := pciClasses[key]; ok {
			return c.name, c.worthLine
		}
	}
	return "device", true
}
