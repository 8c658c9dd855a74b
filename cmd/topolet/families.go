package main

import (
	"cmp"
	"slices"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/dlb"
	"github.com/topolet/topolet/topology/device/fpga"
	"github.com/topolet/topolet/topology/device/gaudi"
	"github.com/topolet/topolet/topology/device/gpu"
	"github.com/topolet/topolet/topology/device/idxd"
	"github.com/topolet/topolet/topology/device/nic"
	"github.com/topolet/topolet/topology/device/npu"
	"github.com/topolet/topolet/topology/device/nvme"
	"github.com/topolet/topolet/topology/device/pciselect"
	"github.com/topolet/topolet/topology/device/qat"
	"github.com/topolet/topolet/topology/device/sgx"
)

// familiesOf are the families that the configuration names, with its options. vfioDriver is
// as of [device.Managed], memory as of [gpu.Family].
func familiesOf(config v1alpha1.Configuration, vfioDriver func(address string) (string, error), memory gpu.MemoryQuery) []device.Family {
	var families []device.Family
	for _, f := range config.Devices {
		shares := uint64(max(f.Shares, 0))
		dsa, iaa := idxd.DSA, idxd.IAA
		dsa.Shares, iaa.Shares = shares, shares
		family := map[string]device.Family{
			"gpu":   gpu.Family{Shares: shares, Memory: memory},
			"gaudi": gaudi.Family{NetworkHook: f.NetworkHook, NetworkConfig: f.NetworkConfig},
			"qat":   qat.Family{},
			"dsa":   dsa,
			"iaa":   iaa,
			"dlb":   dlb.Family{},
			"fpga":  fpga.Family{},
			"sgx":   sgx.Family{Tenants: uint64(max(f.Tenants, 0))},
			"npu":   npu.Family{Shares: shares},
			"nic":   nic.Family{},
			"nvme":  nvme.Family{},
			"pci":   pciselect.Family{Entries: f.Entries, Managed: f.ManageBinding},
		}[f.Family]
		if f.ManageBinding {
			// The entries of pci say which functions are handed over.
			family = device.Managed{Family: family, Driver: vfioDriver, Twins: f.Family != "pci"}
		}
		families = append(families, family)
	}
	// What another family knows is not for the entries of pci.
	slices.SortStableFunc(families, func(a, b device.Family) int {
		return cmp.Compare(isSelector(a), isSelector(b))
	})
	return families
}

// programsOf are what the configuration says of programs for FPGAs, on the host below a root.
func programsOf(config v1alpha1.Configuration, root string) draplugin.Programs {
	for _, f := range config.Devices {
		if f.Programs != nil {
			return draplugin.Programs{Rules: *f.Programs, Root: root}
		}
	}
	return draplugin.Programs{}
}

func isSelector(f device.Family) int {
	if f.Name() == "pci" {
		return 1
	}
	return 0
}
