package render

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// holderColours are light enough for black text, and as far apart as colours
// that most people can tell apart are.
var holderColours = []string{
	"#8ecae6", "#ffb454", "#8fdcae", "#f4a9cb", "#f3e36b", "#c9b0ff", "#ff9a8b", "#bfc8cf",
}

// style has the colours twice, for light and for dark screens. The page has a
// background of its own: the picture is readable wherever it is put.
const style = `
text{font:12px "DejaVu Sans",Verdana,sans-serif;fill:#1b1f24}
.mid{text-anchor:middle}
rect{fill:none;stroke:none}
.page>rect{fill:#ffffff}
.machine>rect{fill:#f4f6f8;stroke:#8a94a0}
.socket>rect{fill:#e9edf1;stroke:#6b7682}
.node>rect{fill:#ffffff;stroke:#2f855a;stroke-width:1.5}
.cache>rect{fill:#eef4fb;stroke:#5b8fc7}
.core>rect{fill:#d9dfe6;stroke:#8a94a0}
.efficiency>rect{stroke:#57606a;stroke-dasharray:3 2}
.cpu>rect{fill:#ffffff;stroke:#57606a}
.memory>rect{fill:#dcf2e3;stroke:#2f855a}
.root>rect,.bridge>rect{fill:#f7f4fd;stroke:#8d7cc2}
.bridge>rect{stroke-dasharray:5 3}
.device>rect{fill:#e7e0fa;stroke:#6b46c1}
.cpu>.hatch{fill:url(#hatch);stroke:none}
.stripe{stroke:#1b1f24;stroke-opacity:.28}
`

const darkStyle = `
text{fill:#e6e8eb}
.page>rect{fill:#14171a}
.machine>rect{fill:#1b1f24;stroke:#76808b}
.socket>rect{fill:#24292f;stroke:#8b949e}
.node>rect{fill:#161b19;stroke:#4fb67c}
.cache>rect{fill:#1a2430;stroke:#5b8fc7}
.core>rect{fill:#343b44;stroke:#76808b}
.efficiency>rect{stroke:#a3adb8}
.cpu>rect{fill:#0f1215;stroke:#a3adb8}
.memory>rect{fill:#173626;stroke:#4fb67c}
.root>rect,.bridge>rect{fill:#1f1a2e;stroke:#8d7cc2}
.device>rect{fill:#2f2650;stroke:#a78bfa}
.stripe{stroke:#e6e8eb}
`

// draw writes the page.
func draw(out *strings.Builder, page *box) {
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img">`, page.w, page.h)
	out.WriteString("\n<title>Topology of a machine</title>\n<style>" + style)
	held := []string{".held>text{fill:#111111}"}
	for i, colour := range holderColours {
		held = append(held, fmt.Sprintf(".%s>rect:first-of-type{fill:%s}", fill(i), colour))
	}
	both := strings.Join(held, "\n") + "\n"
	out.WriteString(both + "@media (prefers-color-scheme:dark){" + darkStyle + both + "}\n</style>\n")
	out.WriteString(`<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">` +
		`<line class="stripe" x1="1" y1="0" x2="1" y2="6" stroke-width="2"/></pattern></defs>` + "\n")
	page.draw(out)
	out.WriteString("</svg>\n")
}

func (b *box) draw(out *strings.Builder) {
	out.WriteString("<g")
	if b.class != "" {
		fmt.Fprintf(out, ` class="%s"`, b.class)
	}
	if b.id != "" {
		fmt.Fprintf(out, ` id="%s"`, b.id)
	}
	out.WriteString(">")
	if b.tip != "" {
		out.WriteString("<title>" + escape(b.tip) + "</title>")
	}
	if b.class != "" {
		rect(out, "", b.x, b.y, b.w, b.h)
	}
	if b.hatched && b.keyClass == "" {
		rect(out, "hatch", b.x, b.y, b.w, b.h)
	}
	left := b.x + padding
	if b.keyClass != "" {
		b.drawKey(out)
		left += 24 + 2*padding
	}
	if b.title != "" {
		text(out, "heading", b.x+b.pad(), b.y+b.pad()+fontSize, b.title)
	}
	for i, line := range b.lines {
		if strings.HasPrefix(b.class, "cpu") || b.class == "kind" {
			text(out, "mid", b.x+b.w/2, b.y+fontSize+3+i*(lineHeight-2), line)
		} else {
			text(out, "", left, b.y+padding/2+fontSize+i*lineHeight, line)
		}
	}
	for _, s := range b.sections {
		out.WriteString("\n")
		for _, child := range s.boxes {
			child.draw(out)
		}
	}
	out.WriteString("</g>\n")
}

// drawKey draws the sample of a legend's entry.
func (b *box) drawKey(out *strings.Builder) {
	const wide = 24
	x, y := b.x+padding, b.y+(b.h-wide)/2
	fmt.Fprintf(out, `<g class="%s">`, b.keyClass)
	rect(out, "", x, y, wide, wide)
	if b.hatched {
		rect(out, "hatch", x, y, wide, wide)
	}
	text(out, "mid", x+wide/2, y+wide/2+fontSize/2-2, b.key)
	out.WriteString("</g>")
}

func rect(out *strings.Builder, class string, x, y, w, h int) {
	if class != "" {
		class = fmt.Sprintf(` class="%s"`, class)
	}
	fmt.Fprintf(out, `<rect%s x="%d" y="%d" width="%d" height="%d" rx="3"/>`, class, x, y, w, h)
}

func text(out *strings.Builder, class string, x, y int, content string) {
	if content == "" {
		return
	}
	if class != "" {
		class = fmt.Sprintf(` class="%s"`, class)
	}
	fmt.Fprintf(out, `<text%s x="%d" y="%d">%s</text>`, class, x, y, escape(content))
}

// escape makes any text fit for XML.
func escape(content string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(content)) // a Builder does not fail
	return out.String()
}
