package v1alpha1

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/topolet/topolet/topology"
)

// maxBytes bounds what is decoded; the Kubernetes API allows opaque parameters
// of 10 KiB.
const maxBytes = 1 << 20

// FieldError says which field of an object is wrong, and what would be right.
type FieldError struct {
	Kind   string
	Field  string
	Value  string
	Remedy string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("%s field %s: %q is not valid: %s", e.Kind, e.Field, e.Value, e.Remedy)
}

// DecodeCPUConfig reads the JSON of a CPUConfig and fills in the defaults.
func DecodeCPUConfig(raw []byte) (CPUConfig, error) {
	const kind = "CPUConfig"
	var c CPUConfig
	if err := decode(raw, &c, kind, "sharedPool, siblings, memory, sharing, loadBalancing (all strings)"); err != nil {
		return CPUConfig{}, err
	}
	if err := checkType(c.APIVersion, c.Kind, kind); err != nil {
		return CPUConfig{}, err
	}
	for _, err := range []error{
		choose(&c.SharedPool, kind, "sharedPool", Exclude, Include),
		choose(&c.Siblings, kind, "siblings", Use, Idle),
		choose(&c.Memory, kind, "memory", Any, Local),
		choose(&c.Sharing, kind, "sharing", OnePod, ManyPods),
		choose(&c.LoadBalancing, kind, "loadBalancing", Enabled, Disabled),
	} {
		if err != nil {
			return CPUConfig{}, err
		}
	}
	return c, nil
}

// DefaultCPUConfig is what holds without any parameters.
func DefaultCPUConfig() CPUConfig {
	return CPUConfig{SharedPool: Exclude, Siblings: Use, Memory: Any, Sharing: OnePod, LoadBalancing: Enabled}
}

// choose fills in the default, and refuses what is neither that nor one of the
// others.
func choose[T ~string](value *T, kind, field string, byDefault T, others ...T) error {
	switch {
	case *value == "":
		*value = byDefault
	case *value != byDefault && !slices.Contains(others, *value):
		names := make([]string, 0, len(others))
		for _, other := range others {
			names = append(names, string(other))
		}
		return &FieldError{kind, field, string(*value),
			fmt.Sprintf("use %s (the default) or %s", byDefault, strings.Join(names, " or "))}
	}
	return nil
}

// DecodeConfiguration reads the YAML or JSON of a Configuration.
func DecodeConfiguration(raw []byte) (Configuration, error) {
	const kind = "Configuration"
	asJSON, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return Configuration{}, fmt.Errorf("%s is not YAML: %s", kind, oneLine(err))
	}
	var c Configuration
	if err := decode(asJSON, &c, kind, "reservedCPUs, reservedMemory, cpuRequests, enforcement (all strings), levels (a list of strings), devices (a list of objects with family, shares, tenants, manageBinding, entries, programs, networkHook, networkConfig, profiles), nodeAllocatable, listAttributes (true or false)"); err != nil {
		return Configuration{}, err
	}
	if err := checkType(c.APIVersion, c.Kind, kind); err != nil {
		return Configuration{}, err
	}
	if _, err := topology.ParseCPUSet(c.ReservedCPUs); err != nil {
		return Configuration{}, &FieldError{kind, "reservedCPUs", c.ReservedCPUs,
			"write a list of CPU numbers and ranges, such as \"0-1,64-65\""}
	}
	if _, _, err := c.MemoryReserve(); err != nil {
		return Configuration{}, err
	}
	for _, err := range []error{
		choose(&c.CPURequests, kind, "cpuRequests", Warn, Refuse, Ignore),
		choose(&c.Enforcement, kind, "enforcement", Auto, Kernel, Runtime),
	} {
		if err != nil {
			return Configuration{}, err
		}
	}
	if err := checkFamilies(c.Devices, kind); err != nil {
		return Configuration{}, err
	}
	for i, level := range c.Levels {
		switch field := fmt.Sprintf("levels[%d]", i); {
		case level != L3 && level != Socket && level != Machine:
			return Configuration{}, &FieldError{kind, field, string(level), "use l3, socket or machine; NUMA nodes are always there"}
		case slices.Contains(c.Levels[:i], level):
			return Configuration{}, &FieldError{kind, field, string(level), "name each level once"}
		}
	}
	return c, nil
}

// DefaultConfiguration is what holds without a configuration file.
func DefaultConfiguration() Configuration {
	return Configuration{APIVersion: APIVersion, Kind: "Configuration", CPURequests: Warn, Enforcement: Auto}
}

// defaultReservedPercent of a node's memory is kept back when nobody says how much.
const defaultReservedPercent = 10

// MemoryReserve returns ReservedMemory as bytes or as percent of each NUMA node's
// memory; the other one is 0.
func (c Configuration) MemoryReserve() (bytes, percent uint64, err error) {
	if c.ReservedMemory == "" {
		return 0, defaultReservedPercent, nil
	}
	if number, ok := strings.CutSuffix(c.ReservedMemory, "%"); ok {
		percent, err := strconv.ParseUint(number, 10, 64)
		if err == nil && percent <= 100 {
			return 0, percent, nil
		}
	} else if q, err := resource.ParseQuantity(c.ReservedMemory); err == nil && q.Sign() >= 0 && q.CmpInt64(math.MaxInt64) < 0 {
		return uint64(q.Value()), 0, nil //nolint:gosec // not negative
	}
	return 0, 0, &FieldError{c.Kind, "reservedMemory", c.ReservedMemory, "write an amount for each NUMA node, such as \"2Gi\", or a part of its memory, such as \"5%\""}
}

// decode is strict: names are case-sensitive, unknown and repeated ones are
// errors.
func decode(raw []byte, into any, kind, fields string) error {
	if len(raw) > maxBytes {
		return fmt.Errorf("%s of %d bytes: more than %d", kind, len(raw), maxBytes)
	}
	strict, err := kjson.UnmarshalStrict(raw, into)
	if err = errors.Join(append(strict, err)...); err != nil {
		return fmt.Errorf("%s cannot be read: %s; its fields are apiVersion, kind, %s", kind, oneLine(err), fields)
	}
	return nil
}

// oneLine fits errors of several lines into an Event or a log line.
func oneLine(err error) string {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, ", ")
}

func checkType(apiVersion, kind, wantKind string) error {
	if apiVersion != APIVersion {
		return &FieldError{wantKind, "apiVersion", apiVersion, "use " + APIVersion}
	}
	if kind != wantKind {
		return &FieldError{wantKind, "kind", kind, "use " + wantKind}
	}
	return nil
}
