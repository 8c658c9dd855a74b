// Package picture draws for a terminal on which CPUs of a node the containers
// may run: a row for each container and a column for each CPU. A node with more
// CPUs than fit has their numbers instead.
package picture

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/topolet/topolet/topology"
)

// Width is how many columns of the terminal a picture takes at most.
const Width = 80

const (
	indent = "   "
	gap    = "  "
)

// Row is one container.
type Row struct {
	Name string
	// Granted are the CPUs of its claim; none for a container without a claim.
	Granted topology.CPUSet
	// Cgroup and Processes are what the kernel says: the effective CPUs of its
	// cgroup, and where its processes may run.
	Cgroup, Processes topology.CPUSet
	// Absent says why there is nothing to show, such as "deleted".
	Absent string
}

// column is a list that stands at the right of each row.
type column struct {
	title string
	list  func(Row) string
	width int
}

func columnsOf(rows []Row, list ...column) []column {
	for i, c := range list {
		list[i].width = len(c.title)
		for _, r := range rows {
			list[i].width = max(list[i].width, len(c.list(r)))
		}
	}
	return list
}

var (
	granted   = column{title: "granted", list: func(r Row) string { return orDash(r.Granted) }}
	cgroup    = column{title: "cgroup", list: func(r Row) string { return orDash(r.Cgroup) }}
	processes = column{title: "processes", list: func(r Row) string { return orDash(r.Processes) }}
	// both is for rows whose cgroups and processes agree.
	both = column{title: "cgroup, processes", list: cgroup.list}
)

// layout chooses what stands beside the names: cells if they fit, if need be with
// fewer lists; otherwise the lists alone, the cells being nil.
func layout(node topology.CPUSet, rows []Row, names int) (*cells, []column) {
	room := Width - len(indent) - names
	full := columnsOf(rows, granted, cgroup, processes)
	choices := [][]column{full}
	if !slices.ContainsFunc(rows, func(r Row) bool { return !r.Cgroup.Equals(r.Processes) }) {
		choices = append(choices, columnsOf(rows, granted, both))
	}
	for _, columns := range choices {
		right := len(gap)
		for _, c := range columns {
			right += len(gap) + c.width
		}
		if cells := newCells(node, room-right); cells != nil {
			return cells, columns
		}
	}
	for i := range full {
		full[i].width = min(full[i].width, room/len(full)-len(gap))
	}
	return nil, full
}

// Draw writes the picture of one moment on a node with these CPUs.
func Draw(w io.Writer, p Palette, title string, node topology.CPUSet, rows []Row) {
	names := utf8.RuneCountInString(title)
	for _, r := range rows {
		names = max(names, utf8.RuneCountInString(r.Name))
	}
	cells, columns := layout(node, rows, names)
	head := []string{p.Strong(pad(title, names))}
	if cells != nil {
		head = append(head, p.Faint(cells.head()))
	}
	for _, c := range columns {
		head = append(head, p.Faint(pad(c.title, c.width)))
	}
	writeLine(w, strings.Join(head, gap))
	for _, r := range rows {
		drawRow(w, p, cells, columns, names, r)
	}
}

func drawRow(w io.Writer, p Palette, cells *cells, columns []column, names int, r Row) {
	line := pad(r.Name, names)
	if cells != nil {
		line += gap + cells.row(p, r)
	}
	if r.Absent != "" {
		writeLine(w, line+gap+p.Faint(r.Absent))
		return
	}
	// A list that is longer than its column goes on in further lines.
	var columnLines [][]string
	height := 1
	for _, c := range columns {
		wrapped := wrapList(c.list(r), c.width)
		columnLines = append(columnLines, wrapped)
		height = max(height, len(wrapped))
	}
	for n := range height {
		if n > 0 {
			line = strings.Repeat(" ", names)
			if cells != nil {
				line += gap + strings.Repeat(" ", cells.width())
			}
		}
		for i, wrapped := range columnLines {
			text := ""
			if n < len(wrapped) {
				text = wrapped[n]
			}
			line += gap + pad(text, columns[i].width)
		}
		writeLine(w, line)
	}
}

func writeLine(w io.Writer, line string) {
	fmt.Fprintln(w, strings.TrimRight(indent+line, " "))
}

func orDash(s topology.CPUSet) string {
	if s.IsEmpty() {
		return "-"
	}
	return s.String()
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

// wrapList breaks a CPU list behind its commas.
func wrapList(list string, width int) []string {
	var lines []string
	line := ""
	for part := range strings.SplitAfterSeq(list, ",") {
		if line != "" && len(line)+len(part) > width {
			lines = append(lines, line)
			line = ""
		}
		line += part
	}
	return append(lines, line)
}
