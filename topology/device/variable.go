package device

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

// Variable is an environment variable by which the software of a device finds it. Its name
// is fixed, so that one container can have it for several devices: see [Environment].
type Variable struct {
	// Name is that of the variable; if Numbered, what comes before the number.
	Name string `json:"name"`
	// Value is this device's.
	Value string `json:"value"`
	// Numbered gives each device of the container a variable of its own: QAT0, QAT1. Of
	// others the values are one list, with commas between them.
	Numbered bool `json:"numbered,omitempty"`
	// Role is as in [Node].
	Role string `json:"role,omitempty"`
}

// LegacyEnv is the role of variables that only older software reads.
const LegacyEnv = "legacy-env"

// legacyVFIO are the variables in which programs that were written for device plugins
// expect the addresses of the functions that they are handed, without the number.
var legacyVFIO = map[string]string{"qat": "QAT", "dsa": "VFIO_BDF"}

// LegacyEnvFamilies are the families whose vfio devices have such variables.
func LegacyEnvFamilies() []string { return slices.Sorted(maps.Keys(legacyVFIO)) }

// nameVFIO sets the variables of a function that is handed over.
func (d *Device) nameVFIO(f topology.PCIFunction) {
	d.Variables = nil
	if name, ok := legacyVFIO[d.Family]; ok {
		d.Variables = []Variable{{Name: name, Value: f.Address.String(), Numbered: true, Role: LegacyEnv}}
	}
}

// Environment merges the variables of all devices of a container, given one after the
// other in the order of the devices' addresses. Each name is there once.
func Environment(all []Variable) []Variable {
	var env []Variable
	counts := map[string]int{}
	for _, v := range all {
		if v.Numbered {
			n := counts[v.Name]
			counts[v.Name]++
			env = append(env, Variable{Name: v.Name + strconv.Itoa(n), Value: v.Value})
			continue
		}
		i := slices.IndexFunc(env, func(have Variable) bool { return have.Name == v.Name })
		switch {
		case i < 0:
			env = append(env, Variable{Name: v.Name, Value: v.Value})
		case !slices.Contains(strings.Split(env[i].Value, ","), v.Value):
			env[i].Value += "," + v.Value
		}
	}
	slices.SortFunc(env, func(a, b Variable) int { return cmp.Compare(a.Name, b.Name) })
	return env
}
