package profile

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/topolet/topolet/topology/device"
)

// Plan is what has to be done about one function.
type Plan struct {
	// Address is the function's, and Family its family's name.
	Address, Family string
	// Profile is the name of the profile that the function matches; empty if there is none
	// any more, and the function is brought to what it was like before.
	Profile string
	// Writes lead there, in this order. None are needed if all is as it should be.
	Writes []Write
	// Err says why it cannot be had: nothing is to be written then.
	Err error

	function  function
	settings  family
	now, want Settings
}

// Write is a write to a file.
type Write struct {
	// File is below the root, without a leading slash.
	File string
	Data string
	// Why says to people what it is for.
	Why string
}

type writes []Write

func (l *writes) add(file, data, why string) { *l = append(*l, Write{file, data, why}) }

// with returns the settings with another value of one of them.
func with(s Settings, name, value string) Settings {
	s = maps.Clone(s)
	s[name] = value
	return s
}

// Plans compares the functions of a host with the profiles that they match, and with the
// states of those that matched one since the machine was started. Functions that neither
// holds for are left out. It only reads.
func Plans(h *device.Host, profiles []Profile, states []State) []Plan {
	boot, _ := h.Read(bootIDFile)
	var plans []Plan
	for _, pci := range h.Machine.PCI.Functions {
		f := function{h, pci}
		for _, name := range slices.Sorted(maps.Keys(families)) {
			p := Plan{Address: f.address(), Family: name, function: f, settings: families[name]}
			var found []Profile
			for _, profile := range profiles {
				if profile.Family == name && profile.matches(pci) {
					found = append(found, profile)
				}
			}
			i := slices.IndexFunc(states, func(s State) bool { return s.Address == p.Address && s.Family == name && s.BootID == boot })
			if len(found) == 0 && i < 0 || !p.settings.has(f) {
				continue
			}
			switch len(found) {
			case 0:
				p.want = states[i].Before
			case 1:
				p.Profile = found[0].Name
				p.want, p.Err = p.settings.want(f, found[0].Profile)
			default:
				p.Profile = found[0].Name
				p.Err = &ConflictError{p.Address, found[0].Name, found[1].Name}
			}
			if p.Err == nil {
				p.compare()
			}
			plans = append(plans, p)
		}
	}
	return plans
}

// compare reads the present settings and finds out what has to be written.
func (p *Plan) compare() {
	p.now = p.settings.read(p.function, p.want)
	for _, name := range p.want.names() {
		if _, known := p.now[name]; !known && p.Profile != "" && !p.settings.appears(name) {
			p.Err = &UnfitError{p.Address, p.settings.file(p.function, name), "its driver has no such setting", "leave it out of the profile, or use a newer kernel"}
			return
		}
	}
	if _, differs := p.now.differs(p.want); differs {
		p.Writes = p.settings.writes(p.function, p.now, p.want)
	}
}

// Fprint prints what plans would write, and what of the profiles matches no function.
func Fprint(w io.Writer, plans []Plan, profiles []Profile) {
	for _, p := range plans {
		what := p.Profile
		if what == "" {
			what = "no profile any more"
		}
		switch {
		case p.Err != nil:
			fmt.Fprintf(w, "%s (%s): nothing is written: %v\n", p.Address, what, p.Err)
		case len(p.Writes) == 0:
			fmt.Fprintf(w, "%s (%s): there is nothing to do\n", p.Address, what)
		default:
			fmt.Fprintf(w, "%s (%s):\n", p.Address, what)
		}
		for _, write := range p.Writes {
			fmt.Fprintf(w, "  echo %-12s > /%s  # %s\n", quoted(write.Data), write.File, write.Why)
		}
	}
	for _, profile := range profiles {
		if !slices.ContainsFunc(plans, func(p Plan) bool { return p.Profile == profile.Name }) {
			fmt.Fprintf(w, "%s: no function of family %s matches that is bound to its driver\n", profile.Name, profile.Family)
		}
	}
}

// quoted is a word for a shell.
func quoted(data string) string {
	return "'" + strings.ReplaceAll(strings.TrimSpace(data), "'", `'\''`) + "'"
}
