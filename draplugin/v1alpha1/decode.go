package v1alpha1

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
	if err := decode(raw, &c, kind, "sharedPool, siblings, memory (all strings)"); err != nil {
		return CPUConfig{}, err
	}
	if err := checkType(c.APIVersion, c.Kind, kind); err != nil {
		return CPUConfig{}, err
	}
	for _, err := range []error{
		choose(&c.SharedPool, kind, "sharedPool", Exclude, Include),
		choose(&c.Siblings, kind, "siblings", Use, Idle),
		choose(&c.Memory, kind, "memory", Any, Local),
	} {
		if err != nil {
			return CPUConfig{}, err
		}
	}
	return c, nil
}

// DefaultCPUConfig is what holds without any parameters.
func DefaultCPUConfig() CPUConfig {
	return CPUConfig{SharedPool: Exclude, Siblings: Use, Memory: Any}
}

// choose fills in the default, and refuses what is neither that nor the other.
func choose[T ~string](value *T, kind, field string, byDefault, other T) error {
	switch *value {
	case "":
		*value = byDefault
	case byDefault, other:
	default:
		return &FieldError{kind, field, string(*value), fmt.Sprintf("use %s (the default) or %s", byDefault, other)}
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
	if err := decode(asJSON, &c, kind, "reservedCPUs (all strings), levels (a list of strings)"); err != nil {
		return Configuration{}, err
	}
	if err := checkType(c.APIVersion, c.Kind, kind); err != nil {
		return Configuration{}, err
	}
	if _, err := topology.ParseCPUSet(c.ReservedCPUs); err != nil {
		return Configuration{}, &FieldError{kind, "reservedCPUs", c.ReservedCPUs,
			"write a list of CPU numbers and ranges, such as \"0-1,64-65\""}
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
