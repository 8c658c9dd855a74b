package render

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/topolet/topolet/topology"
)

// writeNodes writes the table of the NUMA nodes. Each row of distances is read
// from the node to the nodes in the order of the table.
func writeNodes(out *strings.Builder, m *topology.Machine) {
	if len(m.NUMANodes) == 0 {
		return
	}
	digits := 0
	for _, n := range m.NUMANodes {
		for _, d := range n.Distances {
			digits = max(digits, len(strconv.Itoa(d)))
		}
	}
	table := [][]string{{"NUMA node", "memory", "hugepages", "distances", "CPUs"}}
	for _, n := range m.NUMANodes {
		memory := "-"
		if n.MemoryBytes != nil {
			memory = size(*n.MemoryBytes)
		}
		table = append(table, []string{
			strconv.Itoa(n.ID), memory, hugepages(n), distances(n, digits), nodeCPUs(n),
		})
	}
	out.WriteByte('\n')
	writeTable(out, table)
}

func hugepages(n topology.NUMANode) string {
	var parts []string
	for _, pages := range n.Hugepages {
		if pages.Total > 0 {
			parts = append(parts, fmt.Sprintf("%d × %s", pages.Total, size(pages.SizeBytes)))
		}
	}
	return orDash(strings.Join(parts, ", "))
}

func distances(n topology.NUMANode, digits int) string {
	var parts []string
	for _, d := range n.Distances {
		parts = append(parts, fmt.Sprintf("%*d", digits, d))
	}
	return orDash(strings.Join(parts, " "))
}

// nodeCPUs names the node's CPUs, or the nodes that lend it theirs.
func nodeCPUs(n topology.NUMANode) string {
	if n.CPUs.IsEmpty() && len(n.NearestCPUNodes) > 0 {
		if len(n.NearestCPUNodes) == 1 {
			return fmt.Sprintf("none, nearest: node %d", n.NearestCPUNodes[0])
		}
		return "none, nearest: nodes " + ranges(n.NearestCPUNodes)
	}
	return orDash(n.CPUs.String())
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// writeTable aligns the columns, and leaves out those that say nothing.
func writeTable(out *strings.Builder, table [][]string) {
	width := make([]int, len(table[0]))
	for c := range width {
		for _, row := range table[1:] {
			if row[c] != "-" {
				width[c] = max(width[c], utf8.RuneCountInString(row[c]), utf8.RuneCountInString(table[0][c]))
			}
		}
	}
	for _, row := range table {
		var cells []string
		for c, cell := range row {
			if width[c] > 0 {
				cells = append(cells, cell+strings.Repeat(" ", width[c]-utf8.RuneCountInString(cell)))
			}
		}
		out.WriteString(strings.TrimRight(strings.Join(cells, "  "), " ") + "\n")
	}
}
