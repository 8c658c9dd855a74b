package profile

import (
	"maps"
	"slices"
	"strings"

	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// Settings are values by the names of their files. The names are those of the function's
// directory, but without numbers that the kernel may give anew: "wq0/size".
type Settings map[string]string

// family knows the settings of one kind of functions. It only reads.
type family interface {
	// has reports whether a function is of the family and bound to its driver: others have
	// no settings.
	has(f function) bool
	// want is what a profile says of a function; an error if it cannot be had.
	want(f function, p v1alpha1.Profile) (Settings, error)
	// read returns the present values of the settings that are wanted, and of those that
	// are lost when they are changed. What cannot be read is left out.
	read(f function, wanted Settings) Settings
	// file is the file of a setting, and appears says that it may be there only later.
	file(f function, name string) string
	appears(name string) bool
	// writes leads from one state to another. It is asked only if they differ.
	writes(f function, now, want Settings) []Write
	// busy tells who uses the function, as far as the kernel counts users; or nothing.
	busy(f function) string
	// missing is the first file that is not there yet of a function with such settings, or
	// nothing.
	missing(f function, want Settings) string
	// explain is what can be done about a write that failed with an error; or nothing.
	explain(f function, w Write, err error) string
}

// families are by the names that profiles have.
var families = map[string]family{
	"gpu":  gpu{sriov{drivers: []string{"i915", "xe"}}},
	"nic":  sriov{class: 0x02},
	"nvme": sriov{drivers: []string{"nvme"}},
	"qat":  qat{sriov{drivers: []string{"dh895xcc", "c6xx", "c3xxx", "c4xxx", "d15xx", "4xxx", "420xx", "6xxx"}}},
	"dlb":  dlb{sriov{drivers: []string{"dlb2"}}},
	"dsa":  idxd{prefix: "dsa"},
	"iaa":  idxd{prefix: "iax"},
}

// function is a PCI function with its files.
type function struct {
	*device.Host
	topology.PCIFunction
}

// address is the function's, as the kernel prints it.
func (f function) address() string { return f.Address.String() }

// dir ends with a slash.
func (f function) dir() string { return device.Dir(f.PCIFunction) }

// readAll reads the files of settings.
func (f function) readAll(names ...string) Settings {
	s := Settings{}
	for _, name := range names {
		if value, ok := f.Read(f.dir() + name); ok {
			s[name] = value
		}
	}
	return s
}

// names are those of the settings, in order.
func (s Settings) names() []string { return slices.Sorted(maps.Keys(s)) }

// differs returns the first setting that is not as wanted.
func (s Settings) differs(want Settings) (name string, differs bool) {
	for _, name := range want.names() {
		if have, ok := s[name]; !ok || !same(have, want[name]) {
			return name, true
		}
	}
	return "", false
}

// same reports whether two values mean the same: lists such as "sym;dc" have no order, and
// of "low [normal] high" only one word counts.
func same(a, b string) bool {
	a, b = chosen(a), chosen(b)
	words := func(text string) []string { return slices.Sorted(strings.SplitSeq(text, ";")) }
	return a == b || slices.Equal(words(a), words(b))
}
