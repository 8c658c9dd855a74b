package device

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

// Family is one kind of devices. A family knows nothing of the others, and reads only
// the host it is given.
type Family interface {
	// Name is a word in lower case with which the names of its devices begin.
	Name() string
	// Discover returns the devices of the family. It never fails: a file that cannot be
	// read costs an attribute, one without which a device is not known costs the device,
	// and problem is called with what people ought to know of it.
	Discover(h *Host, problem func(error)) []Device
}

// Discover returns the devices of all families in the order in which the scheduler shall
// take them, and what is wrong with those that are left out. Where two families have a
// device of the same PCI function, the first one's counts.
func Discover(h *Host, families ...Family) (devices []Device, problems []error) {
	names, owners := map[string]bool{}, map[string]string{}
	for _, family := range families {
		problem := func(err error) { problems = append(problems, fmt.Errorf("%s: %w", family.Name(), err)) }
		for _, d := range family.Discover(h, problem) {
			if owner, taken := owners[d.Address]; taken && d.Address != "" && owner != d.Family {
				continue
			}
			if err := sound(d); err != nil {
				problem(fmt.Errorf("device %s is left out: %w", d.Name, err))
				continue
			}
			if names[d.Name] {
				problem(fmt.Errorf("device %s is left out: there is another one of that name", d.Name))
				continue
			}
			names[d.Name], owners[d.Address] = true, d.Family
			tidy(&d)
			devices = append(devices, d)
		}
	}
	slices.SortFunc(devices, Compare)
	return devices, problems
}

// tidy makes two discoveries of the same host equal.
func tidy(d *Device) {
	slices.SortFunc(d.Taints, func(a, b Taint) int { return cmp.Compare(a.Reason, b.Reason) })
	slices.SortFunc(d.Nodes, func(a, b Node) int { return cmp.Compare(a.Path, b.Path) })
	slices.SortFunc(d.Links, func(a, b Link) int { return cmp.Compare(a.Path, b.Path) })
}

// The API's limits (k8s.io/api/resource/v1): a value's length, and attributes and
// capacities of a device together, of which the common ones are published beside those
// in the map.
const (
	maxText       = 64
	maxProperties = 32 - 7
)

var (
	label       = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	identifier  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,31}$`)
	notInTaints = regexp.MustCompile(`[^-A-Za-z0-9_.]`)
	taintValue  = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`)
)

// sound returns an error if the API, or a container runtime, would refuse the device:
// one that does would take all others with it.
func sound(d Device) error {
	if !label.MatchString(d.Name) {
		return fmt.Errorf("its name is no DNS label")
	}
	if n := len(d.Attributes) + len(d.Capacities); n > maxProperties {
		return fmt.Errorf("it has %d properties, at most %d fit", n, maxProperties)
	}
	for name, v := range d.Attributes {
		if text, _ := v.AsText(); !identifier.MatchString(name) || len(text) > maxText || strings.ToValidUTF8(text, "") != text {
			return fmt.Errorf("attribute %q is %q: at most %d bytes of UTF-8 fit", name, text, maxText)
		}
	}
	for _, c := range d.Capacities {
		if !identifier.MatchString(c.Name) || c.Amount > 1<<62 || c.Default > c.Amount || c.Min > c.Amount {
			return fmt.Errorf("capacity %q is %+v", c.Name, c)
		}
	}
	for _, t := range d.Taints {
		if !taintValue.MatchString(t.Value) {
			return fmt.Errorf("the value %q of taint %s is none", t.Value, t.Reason)
		}
	}
	for _, n := range d.Nodes {
		if !inDev(n.Path) {
			return fmt.Errorf("node %q is not in /dev", n.Path)
		}
	}
	for _, m := range d.Mounts {
		if !isPath(m.Path) {
			return fmt.Errorf("mount %q is no path", m.Path)
		}
	}
	for _, k := range d.Hooks {
		if !isPath(k.Path) {
			return fmt.Errorf("hook %q is no path", k.Path)
		}
	}
	for _, l := range d.Links {
		if !inDev(l.Path) || !inDev(path.Join(path.Dir(l.Path), l.Target)) {
			return fmt.Errorf("link %q to %q is not in /dev", l.Path, l.Target)
		}
	}
	return nil
}

func isPath(name string) bool { return path.IsAbs(name) && path.Clean(name) == name }

func inDev(name string) bool { return strings.HasPrefix(name, "/dev/") && path.Clean(name) == name }

// Shorten makes a text of the host's fit for an attribute: valid UTF-8 without white
// space around it, and no longer than the API allows.
func Shorten(text string) string {
	text = strings.TrimSpace(strings.ToValidUTF8(text, ""))
	for len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	return strings.TrimSpace(text)
}

// numbered picks the names "prefixN" and orders them by N.
func numbered(names []string, prefix string) []string {
	type entry struct {
		name string
		n    uint64
	}
	var found []entry
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, prefix)
		if n, err := strconv.ParseUint(digits, 10, 31); ok && err == nil && strconv.FormatUint(n, 10) == digits {
			found = append(found, entry{name, n})
		}
	}
	slices.SortFunc(found, func(a, b entry) int { return cmp.Compare(a.n, b.n) })
	list := make([]string, len(found))
	for i, e := range found {
		list[i] = e.name
	}
	return list
}

// FatalErrors reads how many fatal errors a function has reported
// (aer_dev_fatal, Documentation/ABI/testing/sysfs-bus-pci-devices-aer); 0 where it does
// not tell. The count never falls between two boots.
func (h *Host) FatalErrors(f topology.PCIFunction) uint64 {
	text, _ := h.Read(Dir(f) + "aer_dev_fatal")
	for line := range strings.Lines(text) {
		if number, ok := strings.CutPrefix(line, "TOTAL_ERR_FATAL "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(number), 10, 64)
			return n
		}
	}
	return 0
}
