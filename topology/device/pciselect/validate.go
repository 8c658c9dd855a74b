package pciselect

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/topolet/topolet/topology"
)

// maxShares is more than a device can sensibly be shared by.
const maxShares = 1000

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Validate returns what is wrong with the entries: for each fault the field, its value and
// what to write instead.
func (family Family) Validate() error {
	_, errs := family.valid()
	return errors.Join(errs...)
}

// valid returns the entries with nothing wrong, and the faults of the others.
func (family Family) valid() ([]matcher, []error) {
	var entries []matcher
	var faults []error
	names := map[string]bool{}
	for i, e := range family.Entries {
		c := checker{at: fmt.Sprintf("entries[%d].", i)}
		m := c.entry(e)
		if names[e.Name] {
			c.fault("name", e.Name, "another entry has it: give each one a name of its own")
		}
		names[e.Name] = true
		faults = append(faults, c.faults...)
		if len(c.faults) == 0 {
			entries = append(entries, m)
		}
	}
	return entries, faults
}

// checker collects the faults of an entry.
type checker struct {
	at     string
	faults []error
}

func (c *checker) fault(field, value, remedy string) {
	c.faults = append(c.faults, fmt.Errorf("%s%s is %q: %s", c.at, field, value, remedy))
}

func (c *checker) entry(e Entry) matcher {
	if !dnsLabel.MatchString(e.Name) {
		c.fault("name", e.Name, "use 1 to 63 lower-case letters, digits and dashes, with no dash at either end")
	}
	switch e.Expose {
	case Chardev:
	case VFIO:
		if e.Shares > 1 {
			c.fault("shares", fmt.Sprint(e.Shares), "a function that is handed over through vfio has one user: leave it out, or expose chardev")
		}
		if len(e.Allow) > 0 {
			c.fault("allow", strings.Join(e.Allow, ","), "it is for device nodes: leave it out, or expose chardev")
		}
	default:
		c.fault("expose", string(e.Expose), `use "chardev" or "vfio"`)
	}
	if e.Shares < 0 || e.Shares > maxShares {
		c.fault("shares", fmt.Sprint(e.Shares), fmt.Sprintf("use a number from 1 to %d, or leave it out", maxShares))
	}
	for i, pattern := range e.Allow {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" || strings.HasPrefix(pattern, "/") {
			c.fault(fmt.Sprintf("allow[%d]", i), pattern, `use a name below /dev, such as "sdb" or "sd*"`)
		}
	}
	return c.match(e)
}

func (c *checker) match(e Entry) matcher {
	m := matcher{Entry: e, addresses: map[topology.PCIAddress]bool{}}
	for _, field := range []struct {
		name, value string
		digits      int
		to          *number
	}{
		{"vendor", e.Match.Vendor, 4, &m.vendor},
		{"device", e.Match.Device, 4, &m.device},
		{"subsystemVendor", e.Match.SubsystemVendor, 4, &m.subsystemVendor},
		{"subsystemDevice", e.Match.SubsystemDevice, 4, &m.subsystemDevice},
		{"class", e.Match.Class, 6, &m.class},
		{"classMask", e.Match.ClassMask, 6, &m.classMask},
	} {
		if field.value == "" {
			continue
		}
		v, ok := parseHex(field.value, field.digits)
		if !ok {
			c.fault("match."+field.name, field.value, fmt.Sprintf("use %d hexadecimal digits, such as %s", field.digits, map[int]string{4: `"0x8086"`, 6: `"0x010802"`}[field.digits]))
			continue
		}
		*field.to = v
	}
	switch {
	case m.classMask.given && m.classMask.value == 0:
		c.fault("match.classMask", e.Match.ClassMask, "no bit of the class counts: leave it out, or set some bits")
	case m.classMask.given && e.Match.Class == "":
		c.fault("match.classMask", e.Match.ClassMask, "it says which bits of the class count: give the class too")
	}
	if d := e.Match.Driver; strings.Contains(d, "/") || strings.TrimSpace(d) != d {
		c.fault("match.driver", e.Match.Driver, "use the name of a folder in /sys/bus/pci/drivers")
	}
	for i, id := range e.Match.BusIDs {
		a, err := topology.ParsePCIAddress(id)
		if err != nil {
			c.fault(fmt.Sprintf("match.busIDs[%d]", i), id, `use the address with its domain, such as "0000:c0:05.0"`)
		}
		m.addresses[a] = true
	}
	if e.Match.isEmpty() {
		c.fault("match", "", "every function would match: give at least one property")
	}
	return m
}

func (m Match) isEmpty() bool {
	return m.Vendor+m.Device+m.SubsystemVendor+m.SubsystemDevice+m.Class+m.ClassMask+m.Driver == "" && len(m.BusIDs) == 0
}
