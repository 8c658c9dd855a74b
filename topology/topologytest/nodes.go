package topologytest

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

const nodeDir = "sys/devices/system/node/"

// Distances as firmware commonly states them.
const (
	distanceSelf     = 10
	distanceInSocket = 12
	distanceRemote   = 21
	distanceMemory   = 17
)

// numaNode is a node in the making; socket is none for a node of memory only.
type numaNode struct {
	id, socket int
	cpus       topology.CPUSet
}

const none = -1

func (b *builder) writeNodes() {
	cpus := b.sharing(func(c cpu) int { return c.node })
	var nodes []numaNode
	for i, id := range b.NUMAIDs {
		nodes = append(nodes, numaNode{id, i / b.NUMAPerSocket, cpus[i]})
	}
	for _, id := range b.MemoryOnly {
		nodes = append(nodes, numaNode{id, none, topology.CPUSet{}})
	}
	slices.SortFunc(nodes, func(a, b numaNode) int { return cmp.Compare(a.id, b.id) })

	var ids []int
	for _, node := range nodes {
		ids = append(ids, node.id)
		b.writeNode(node, nodes)
	}
	// Node lists have the format of CPU lists.
	b.file(nodeDir+"online", topology.NewCPUSet(ids...).String())
	b.file(nodeDir+"possible", topology.NewCPUSet(ids...).String())
}

func (b *builder) writeNode(node numaNode, nodes []numaNode) {
	dir := nodeDir + "node" + strconv.Itoa(node.id) + "/"
	b.file(dir+"cpumap", b.mask(node.cpus))
	b.file(dir+"cpulist", node.cpus.String())
	b.file(dir+"meminfo", fmt.Sprintf("\nNode %[1]d MemTotal:       %8[2]d kB\nNode %[1]d MemFree:        %8[2]d kB",
		node.id, b.NUMAMemory>>10))
	var distances []string
	for _, other := range nodes {
		distances = append(distances, strconv.Itoa(distance(node, other)))
	}
	b.file(dir+"distance", strings.Join(distances, " "))
	for id := range node.cpus.All() {
		b.tree.Link(dir+"cpu"+strconv.Itoa(id), "../../cpu/cpu"+strconv.Itoa(id))
		b.tree.Link(cpuPath(id, "node"+strconv.Itoa(node.id)), "../../node/node"+strconv.Itoa(node.id))
	}
	if node.socket == none {
		return
	}
	for _, pages := range b.Hugepages {
		b.file(fmt.Sprintf("%shugepages/hugepages-%dkB/nr_hugepages", dir, pages.SizeBytes>>10),
			strconv.FormatUint(pages.Total, 10))
	}
}

func distance(a, b numaNode) int {
	switch {
	case a.id == b.id:
		return distanceSelf
	case a.socket == none || b.socket == none:
		return distanceMemory
	case a.socket == b.socket:
		return distanceInSocket
	}
	return distanceRemote
}
