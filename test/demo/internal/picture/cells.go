package picture

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/topolet/topolet/topology"
)

const (
	block = "█"
	dot   = "·"
)

// group is how many of the narrowest cells stand together. Only the first CPU of
// a group is numbered where not all numbers have room.
const group = 4

// cells are the columns of the CPUs.
type cells struct {
	cpus []int
	// each is the width of one cell, the space behind it included. Cells of width 1
	// have a space behind each group only.
	each int
}

// newCells makes the cells as wide as fits, or returns nil if not even narrow
// ones do.
func newCells(node topology.CPUSet, room int) *cells {
	for _, each := range []int{4, 3, 2, 1} {
		if c := (&cells{cpus: node.List(), each: each}); c.width() <= room {
			return c
		}
	}
	return nil
}

func (c *cells) width() int { return len("CPU ") + c.start(len(c.cpus)) }

// start is where the nth cell begins.
func (c *cells) start(n int) int {
	if c.each == 1 {
		return n + n/group
	}
	return n * c.each
}

// head numbers the CPUs.
func (c *cells) head() string {
	widest := 1
	for _, id := range c.cpus {
		widest = max(widest, len(strconv.Itoa(id)))
	}
	line := ""
	for i, id := range c.cpus {
		switch {
		case widest < c.each:
			line += c.fit(strconv.Itoa(id))
		case i%group == 0:
			line = pad(line, c.start(i)) + strconv.Itoa(id)
		}
	}
	return "CPU " + pad(line, c.start(len(c.cpus)))
}

// row has a block for each CPU on which the container may run. Where its cgroup
// and its processes differ, either counts: the picture must not hide a CPU.
func (c *cells) row(p Palette, r Row) string {
	paint := p.Shared
	if !r.Granted.IsEmpty() {
		paint = p.Exclusive
	}
	reach := r.Cgroup.Union(r.Processes)
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", len("CPU ")))
	for i, id := range c.cpus {
		behind := c.start(i+1) - c.start(i) - max(1, c.each-1)
		if r.Absent == "" && reach.Contains(id) {
			b.WriteString(paint(strings.Repeat(block, max(1, c.each-1))))
		} else {
			b.WriteString(p.Faint(pad(c.middle(dot), max(1, c.each-1))))
		}
		b.WriteString(strings.Repeat(" ", behind))
	}
	return b.String()
}

// fit puts a text into a cell.
func (c *cells) fit(text string) string { return pad(c.middle(text), c.each) }

// middle puts spaces before a text that is narrower than a cell.
func (c *cells) middle(text string) string {
	return strings.Repeat(" ", max(0, (c.each-1-utf8.RuneCountInString(text))/2)) + text
}
