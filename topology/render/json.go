package render

import (
	"encoding/json"
	"io"

	"github.com/topolet/topolet/topology"
)

// The types below are the machine as programs read it. They are separate from
// the model: fields may move there, but not here. What the machine does not tell
// is left out.

type machineJSON struct {
	OnlineCPUs   topology.CPUSet `json:"onlineCPUs"`
	OfflineCPUs  topology.CPUSet `json:"offlineCPUs"`
	IsolatedCPUs topology.CPUSet `json:"isolatedCPUs"`
	NohzFullCPUs topology.CPUSet `json:"nohzFullCPUs"`
	CPUs         []cpuJSON       `json:"cpus"`
	NUMANodes    []numaNodeJSON  `json:"numaNodes"`
	PCIDevices   []pciJSON       `json:"pciDevices"`
}

// cpuJSON has the kernel's number of the CPU and of its NUMA node. The others
// are labels, each unique over the whole machine: CPUs with the same label share
// that thing.
type cpuJSON struct {
	ID       int               `json:"id"`
	Socket   *int              `json:"socket,omitempty"`
	Die      *int              `json:"die,omitempty"`
	Cluster  *int              `json:"cluster,omitempty"`
	Core     *int              `json:"core,omitempty"`
	L2       *int              `json:"l2,omitempty"`
	L3       *int              `json:"l3,omitempty"`
	NUMANode *int              `json:"numaNode,omitempty"`
	CoreType topology.CoreType `json:"coreType"`
}

type numaNodeJSON struct {
	ID          int             `json:"id"`
	CPUs        topology.CPUSet `json:"cpus"`
	MemoryBytes *uint64         `json:"memoryBytes,omitempty"`
	Distances   []int           `json:"distances,omitempty"`
	Hugepages   []hugepagesJSON `json:"hugepages,omitempty"`
	// MemoryOnly is a node with memory and without CPUs; the nearest nodes with
	// CPUs go with it.
	MemoryOnly      bool  `json:"memoryOnly,omitempty"`
	NearestCPUNodes []int `json:"nearestCPUNodes,omitempty"`
}

type hugepagesJSON struct {
	SizeBytes uint64 `json:"sizeBytes"`
	Total     uint64 `json:"total"`
}

// JSON writes the machine as one JSON object.
func JSON(w io.Writer, m *topology.Machine) error {
	out := machineJSON{
		OnlineCPUs:   m.Online,
		OfflineCPUs:  m.Offline,
		IsolatedCPUs: m.Isolated,
		NohzFullCPUs: m.NohzFull,
		CPUs:         make([]cpuJSON, 0, len(m.CPUs)),
		NUMANodes:    make([]numaNodeJSON, 0, len(m.NUMANodes)),
	}
	for _, c := range m.CPUs {
		out.CPUs = append(out.CPUs, cpuJSON{
			ID: c.ID, Socket: told(c.Socket), Die: told(c.Die), Cluster: told(c.Cluster),
			Core: told(c.Core), L2: told(c.L2), L3: told(c.L3), NUMANode: told(c.NUMANode),
			CoreType: c.CoreType,
		})
	}
	for _, n := range m.NUMANodes {
		node := numaNodeJSON{ID: n.ID, CPUs: n.CPUs, MemoryBytes: n.MemoryBytes, Distances: n.Distances,
			MemoryOnly: n.MemoryOnly(), NearestCPUNodes: n.NearestCPUNodes}
		for _, pages := range n.Hugepages {
			node.Hugepages = append(node.Hugepages, hugepagesJSON(pages))
		}
		out.NUMANodes = append(out.NUMANodes, node)
	}
	out.PCIDevices = pciDevices(m.PCI)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

// told returns nil for None.
func told(v int) *int {
	if v == topology.None {
		return nil
	}
	return &v
}
