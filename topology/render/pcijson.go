package render

import (
	"fmt"

	"github.com/topolet/topolet/topology"
)

// pciJSON is one PCI function. numaNode and cpus are what the kernel says, and
// locality is what follows from it. Numbers of vendors and the like are text, as
// in the kernel's files: "0x8086".
type pciJSON struct {
	Address          string           `json:"address"`
	Kind             topology.PCIKind `json:"kind"`
	Class            string           `json:"class,omitempty"`
	Vendor           string           `json:"vendor,omitempty"`
	Device           string           `json:"device,omitempty"`
	SubsystemVendor  string           `json:"subsystemVendor,omitempty"`
	SubsystemDevice  string           `json:"subsystemDevice,omitempty"`
	Driver           string           `json:"driver,omitempty"`
	IOMMUGroup       *int             `json:"iommuGroup,omitempty"`
	NUMANode         *int             `json:"numaNode,omitempty"`
	CPUs             *topology.CPUSet `json:"cpus,omitempty"`
	Locality         *localityJSON    `json:"locality,omitempty"`
	PCIeRoot         string           `json:"pcieRoot,omitempty"`
	Parent           string           `json:"parent,omitempty"`
	PhysicalFunction string           `json:"physicalFunction,omitempty"`
	SRIOV            *sriovJSON       `json:"sriov,omitempty"`
	Link             *linkJSON        `json:"link,omitempty"`
	MaxLink          *linkJSON        `json:"maxLink,omitempty"`
}

type localityJSON struct {
	NUMANode *int                    `json:"numaNode,omitempty"`
	CPUs     topology.CPUSet         `json:"cpus"`
	From     topology.LocalitySource `json:"from"`
}

type sriovJSON struct {
	TotalVFs int `json:"totalVFs"`
	NumVFs   int `json:"numVFs"`
}

// linkJSON has the speed of a lane in GT/s, and the number of lanes.
type linkJSON struct {
	Speed float64 `json:"speed,omitempty"`
	Width int     `json:"width,omitempty"`
}

func pciDevices(pci topology.PCI) []pciJSON {
	out := make([]pciJSON, 0, len(pci.Functions))
	address := func(i int) string {
		if i == topology.None {
			return ""
		}
		return pci.Functions[i].Address.String()
	}
	for _, f := range pci.Functions {
		d := pciJSON{
			Address: f.Address.String(), Kind: f.Kind,
			Class: hex(f.Class, 6), Vendor: hex(f.Vendor, 4), Device: hex(f.Device, 4),
			SubsystemVendor: hex(f.SubsystemVendor, 4), SubsystemDevice: hex(f.SubsystemDevice, 4),
			Driver: f.Driver, IOMMUGroup: told(f.IOMMUGroup),
			NUMANode: told(f.NUMANode), CPUs: f.LocalCPUs,
			Parent: address(f.Parent), PhysicalFunction: address(f.PhysicalFunction),
			Link: link(f.Link), MaxLink: link(f.MaxLink),
		}
		if root, ok := pci.RootOf(f); ok {
			d.PCIeRoot = root.String()
		}
		if near := f.Locality; near.Known() {
			d.Locality = &localityJSON{NUMANode: told(near.NUMANode), CPUs: near.CPUs, From: near.From}
		}
		if f.SRIOV != nil {
			d.SRIOV = &sriovJSON{TotalVFs: f.SRIOV.TotalVFs, NumVFs: f.SRIOV.NumVFs}
		}
		out = append(out, d)
	}
	return out
}

// hex prints a number as the kernel does, "" for None.
func hex(v, digits int) string {
	if v == topology.None {
		return ""
	}
	return fmt.Sprintf("0x%0*x", digits, v)
}

func link(l topology.PCILink) *linkJSON {
	if l == (topology.PCILink{}) {
		return nil
	}
	return &linkJSON{Speed: l.Speed, Width: l.Width}
}
