package profile

import (
	"fmt"
	"slices"

	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology"
)

// Profile is one of the configuration.
type Profile struct {
	// Name is where the configuration has it: "devices[1].profiles[0]".
	Name string
	// Family is the family whose functions it is for.
	Family string
	v1alpha1.Profile
}

// Of returns the profiles of a configuration.
func Of(c v1alpha1.Configuration) []Profile {
	var list []Profile
	for i, f := range c.Devices {
		for j, p := range f.Profiles {
			list = append(list, Profile{fmt.Sprintf("devices[%d].profiles[%d]", i, j), f.Family, p})
		}
	}
	return list
}

// matches reports whether the profile selects a function of its family.
func (p Profile) matches(f topology.PCIFunction) bool {
	fits := func(list []string, id string) bool { return len(list) == 0 || slices.Contains(list, id) }
	return fits(p.Match.BusIDs, f.Address.String()) && fits(p.Match.DeviceIDs, fmt.Sprintf("0x%04x", f.Device))
}
