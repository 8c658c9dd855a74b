package render

import "math"

// Distances in the picture, in pixels.
const (
	padding = 8
	gap     = 8
	tight   = 3 // in and between cores
)

// box is a rectangle of the picture, with text or with boxes in it.
type box struct {
	// class says what it is, and so what it looks like; "" has no outline.
	class string
	id    string
	// title is the line at the top of a box with boxes in it, lines is the text of
	// one without. Each must fit; tip is what a viewer shows at the pointer.
	title string
	lines []string
	tip   string
	// hatched is for isolated CPUs.
	hatched bool
	// key is a square at the left with a short text: a legend's entry.
	key, keyClass string

	sections []section

	x, y, w, h int
}

// section is some boxes in rows and columns; the sections of a box are below each
// other.
type section struct {
	boxes []*box
	// ratio is the width to the height that is aimed for; 0 fills the width of the
	// sections before, or at least wideEnough.
	ratio float64
	// close puts the boxes close together, and leaves them their size.
	close bool

	columns       []int // their widths
	rows          []int // their heights
	width, height int
}

const wideEnough = 560

// textBox is a box with text. It is as large as that.
func textBox(class, tip string, lines ...string) *box {
	b := &box{class: class, tip: tip, lines: lines}
	for _, line := range lines {
		b.w = max(b.w, textWidth(line)+2*padding)
	}
	b.h = len(lines)*lineHeight + padding
	return b
}

func (s *section) gap() int {
	if s.close {
		return tight
	}
	return gap
}

// pad is the distance from the outline to what is inside.
func (b *box) pad() int {
	switch {
	case b.class == "":
		return 0
	case len(b.sections) > 0 && b.sections[0].close && b.title == "":
		return tight
	}
	return padding
}

// heading is the height of the title.
func (b *box) heading() int {
	if b.title == "" {
		return 0
	}
	return lineHeight + 4
}

// measure computes the size, from the inside out. Boxes without boxes in them have
// theirs already.
func (b *box) measure() {
	if len(b.sections) == 0 && b.title == "" {
		return
	}
	inner, height := textWidth(b.title), 0
	for i := range b.sections {
		s := &b.sections[i]
		for _, child := range s.boxes {
			child.measure()
		}
		s.arrange(inner)
		inner = max(inner, s.width)
		height += s.height
		if i > 0 {
			height += gap
		}
	}
	b.w = inner + 2*b.pad()
	b.h = height + 2*b.pad() + b.heading()
}

// mostColumns bounds the search for a good shape.
const mostColumns = 64

// arrange chooses the number of columns.
func (s *section) arrange(inner int) {
	best := math.Inf(1)
	chosen := 1
	for n := 1; n <= min(len(s.boxes), mostColumns); n++ {
		s.inColumns(n)
		if s.ratio == 0 && n > 1 && s.width > max(inner, wideEnough) {
			break
		}
		if score := s.score(); score < best-1e-9 {
			best, chosen = score, n
		}
	}
	s.inColumns(chosen)
}

// score is the better the lower.
func (s *section) score() float64 {
	if s.ratio == 0 {
		return float64(s.height)
	}
	// A last row with holes looks as if something were missing.
	holes := len(s.columns)*len(s.rows) - len(s.boxes)
	return math.Abs(math.Log(float64(s.width)/float64(s.height)/s.ratio)) + 2*float64(holes)/float64(len(s.boxes))
}

func (s *section) inColumns(n int) {
	s.columns, s.rows = make([]int, n), make([]int, (len(s.boxes)+n-1)/n)
	for i, child := range s.boxes {
		s.columns[i%n] = max(s.columns[i%n], child.w)
		s.rows[i/n] = max(s.rows[i/n], child.h)
	}
	s.width, s.height = sum(s.columns)+s.gap()*(n-1), sum(s.rows)+s.gap()*(len(s.rows)-1)
}

func sum(numbers []int) int {
	total := 0
	for _, n := range numbers {
		total += n
	}
	return total
}

// place gives the box its place, and what is in it, from the outside in.
func (b *box) place(x, y, w, h int) {
	b.x, b.y, b.w, b.h = x, y, w, h
	x, y, w = x+b.pad(), y+b.pad()+b.heading(), w-2*b.pad()
	for i := range b.sections {
		s := &b.sections[i]
		n := len(s.columns)
		more := 0
		if !s.close {
			more = (w - s.width) / n
		}
		at := y
		for row, height := range s.rows {
			left := x
			for column := range n {
				if k := row*n + column; k < len(s.boxes) {
					child := s.boxes[k]
					if s.close {
						child.place(left, at, child.w, child.h)
					} else {
						child.place(left, at, s.columns[column]+more, height)
					}
				}
				left += s.columns[column] + more + s.gap()
			}
			at += height + s.gap()
		}
		y += s.height + gap
	}
}
