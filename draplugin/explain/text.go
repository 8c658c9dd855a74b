package explain

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/topolet/topolet/draplugin"
)

// words are the verdicts as people read them.
var words = map[Verdict]string{
	Fits:       "fits",
	FitsInPart: "fits, as far as is known here",
	Unknown:    "cannot be answered here",
	Waits:      "would fit, but waits for its pod's other claims",
	DoesNotFit: "does not fit",
}

// WriteText writes the answer for a person at a terminal.
func (a Answer) WriteText(w io.Writer) error {
	var out strings.Builder
	out.WriteString(a.Node.sentence() + "\n")
	for _, note := range a.Notes {
		out.WriteString("note: " + note + "\n")
	}
	for i := range a.Claims {
		out.WriteByte('\n')
		a.Claims[i].write(&out)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// sentence is the node in one line.
func (s Summary) sentence() string {
	said := count(s.CPUs, "CPU")
	if s.NUMANodes > 0 {
		said += " on " + count(s.NUMANodes, "NUMA node")
	}
	said += fmt.Sprintf("; reserved: %s", s.Reserved)
	if s.Claims == 0 {
		return said + "; nothing is held by claims"
	}
	return said + fmt.Sprintf("; held: %s by %s", count(s.Held, "CPU"), count(s.Claims, "claim"))
}

// row is a line of a claim's answer: a label and what it says.
type row struct {
	indent      int
	label, text string
}

func (c *Claim) write(out *strings.Builder) {
	fmt.Fprintf(out, "%s %s\n", c.title(), words[c.Verdict])
	var rows []row
	for _, r := range c.Requests {
		rows = append(rows, r.rows()...)
	}
	for _, r := range c.Refusals {
		rows = append(rows, r.rows()...)
	}
	for _, note := range c.Notes {
		rows = append(rows, row{1, "note", note})
	}
	width := 0
	for _, r := range rows {
		width = max(width, 2*r.indent+len(r.label))
	}
	for _, r := range rows {
		fmt.Fprintf(out, "%*s%-*s  %s\n", 2*r.indent, "", width-2*r.indent, r.label, r.text)
	}
}

func (r Request) rows() []row {
	if r.LeftOut != "" {
		return []row{{1, r.Name, "left out: " + r.LeftOut}}
	}
	of := r.Device
	if r.Driver != draplugin.DriverName {
		of = fmt.Sprintf("%s of driver %s, pool %s", r.Device, r.Driver, r.Pool)
	}
	rows := []row{{1, r.Name, strings.Join(append(r.amounts(), of), " of ")}}
	if !r.CPUs.IsEmpty() {
		rows = append(rows, row{2, "CPUs", r.CPUs.String()})
	}
	if !r.Idle.IsEmpty() {
		rows = append(rows, row{2, "idle", r.Idle.String()})
	}
	if len(r.NUMANodes) > 0 {
		rows = append(rows, row{2, "NUMA", strings.Trim(fmt.Sprint(r.NUMANodes), "[]")})
	}
	label := "why"
	for _, why := range r.Why {
		rows = append(rows, row{2, label, why})
		label = ""
	}
	label = "passed over"
	for _, d := range together(r.Passed) {
		rows = append(rows, row{2, label, fmt.Sprintf("%s: %s", d.Device, d.Reason)})
		label = ""
	}
	return rows
}

// amounts are what the request takes of its device, in a list of one at most.
func (r Request) amounts() []string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(r.Consumed)) {
		if name := resourceapi.QualifiedName(name); name != draplugin.CapacityTenants && r.Consumed[string(name)] != "0" {
			words = append(words, amount(name, r.Consumed[string(name)]))
		}
	}
	if words == nil {
		return nil
	}
	return []string{strings.Join(words, " and ")}
}

func (r Refusal) rows() []row {
	label := r.Request
	if label == "" {
		label = "why not"
	}
	rows := []row{{1, label, r.Reason}}
	for _, d := range together(r.Devices) {
		rows = append(rows, row{2, d.Device, d.Reason})
	}
	for _, n := range r.Nearest {
		rows = append(rows, row{1, "nearest", n.sentence(r.Request == "")})
	}
	return rows
}

// together makes one of neighbouring devices that are in the same state.
func together(devices []DeviceState) []DeviceState {
	var joined []DeviceState
	for i := 0; i < len(devices); {
		last := i
		for last+1 < len(devices) && devices[last+1].Reason == devices[i].Reason {
			last++
		}
		names := devices[i].Device
		switch last - i {
		case 0:
		case 1:
			names += ", " + devices[last].Device
		default:
			names += " … " + devices[last].Device
		}
		joined = append(joined, DeviceState{Device: names, Reason: devices[i].Reason})
		i = last + 1
	}
	return joined
}

// sentence says what would fit, and of which request if that is not clear.
func (n Nearest) sentence(named bool) string {
	each := ""
	if len(n.Devices) > 1 {
		each = " each"
	}
	said := fmt.Sprintf("%s%s would fit, on %s", amount(resourceapi.QualifiedName(n.Capacity), n.Value), each, strings.Join(n.Devices, ", "))
	if named {
		return fmt.Sprintf("%s: %s, with all else as it is", n.Request, said)
	}
	return said
}
