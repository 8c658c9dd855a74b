// Package examples reads deploy/examples for tests: what each example consists of,
// what its comment promises, and whether a node has what it needs.
//
// An example that makes claims says with annotations of its pod what a node must have
// for it:
//
//	topolet.dev/needs-cpus: "4"                    so many CPUs to claim
//	topolet.dev/needs-nodes: "2"                   on so many NUMA nodes
//	topolet.dev/needs-device: level=l3,tenants=2   a device of topolet with these attributes or capacities
//	topolet.dev/needs-driver: nvme.example.com     a device of another driver
//
// In needs-device a name without a value is an attribute that is there and is neither
// 0 nor false. Only the first annotation is on every example.
package examples

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// driver is topolet's. Its package is not used: that package's tests use this one.
const driver = "topolet.dev"

const needs = driver + "/needs-"

// Example is one file: a pod with its claims.
type Example struct {
	// Name is the pod's, and the file's without its extension.
	Name string
	File string
	Pod  *corev1.Pod
	// Claims are the specs of the pod's claims, in the pod's order.
	Claims []resourceapi.ResourceClaimSpec
}

// Read returns the examples in a folder, in the order of their names.
func Read(dir string) ([]Example, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no examples in %s: %w", dir, err)
	}
	var all []Example
	for _, file := range files {
		e, err := read(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, e)
	}
	return all, nil
}

func read(file string) (Example, error) {
	e := Example{Name: strings.TrimSuffix(filepath.Base(file), ".yaml"), File: file}
	data, err := os.ReadFile(file)
	if err != nil {
		return e, err
	}
	specs := map[string]resourceapi.ResourceClaimSpec{}
	for document := range bytes.SplitSeq(data, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return e, err
		}
		switch kind.Kind {
		case "Pod":
			e.Pod = &corev1.Pod{}
			err = yaml.UnmarshalStrict(document, e.Pod)
		case "ResourceClaim":
			var claim resourceapi.ResourceClaim
			err = yaml.UnmarshalStrict(document, &claim)
			specs[claim.Name] = claim.Spec
		case "ResourceClaimTemplate":
			var template resourceapi.ResourceClaimTemplate
			err = yaml.UnmarshalStrict(document, &template)
			specs[template.Name] = template.Spec.Spec
		default:
			err = fmt.Errorf("kind %q: an example has a pod and claims", kind.Kind)
		}
		if err != nil {
			return e, err
		}
	}
	if e.Pod == nil {
		return e, fmt.Errorf("it has no pod")
	}
	for _, c := range e.Pod.Spec.ResourceClaims {
		for _, name := range []*string{c.ResourceClaimName, c.ResourceClaimTemplateName} {
			if name != nil {
				e.Claims = append(e.Claims, specs[*name])
			}
		}
	}
	return e, e.check()
}

// check refuses annotations that nobody understands: what they ask would be taken
// for granted.
func (e Example) check() error {
	for name := range e.Pod.Annotations {
		known := []string{"cpus", "nodes", "device", "driver"}
		if need, ok := strings.CutPrefix(name, needs); ok && !slices.Contains(known, need) {
			return fmt.Errorf("annotation %s: there are %s with %s", name, needs, strings.Join(known, ", "))
		}
	}
	for _, count := range []string{"cpus", "nodes"} {
		if _, err := e.count(count); err != nil {
			return err
		}
	}
	return nil
}

// count is the number that an annotation says, or 0.
func (e Example) count(need string) (int, error) {
	text, ok := e.Pod.Annotations[needs+need]
	if !ok {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("annotation %s%s: %w", needs, need, err)
	}
	return n, nil
}

// NeedsOneCPU reports whether a CPU is all that the example needs of a node, if that.
func (e Example) NeedsOneCPU() bool {
	for name, value := range e.Pod.Annotations {
		if strings.HasPrefix(name, needs) && (name != needs+"cpus" || value != "1") {
			return false
		}
	}
	return true
}

// Lacks says what the example needs and a node with these ResourceSlices has not, or
// nothing.
func (e Example) Lacks(published []*resourceapi.ResourceSlice) string {
	var devices []resourceapi.Device
	other := e.Pod.Annotations[needs+"driver"]
	for _, s := range published {
		switch s.Spec.Driver {
		case driver:
			devices = append(devices, s.Spec.Devices...)
		case other:
			other = ""
		}
	}
	nodes := map[string]bool{}
	cpus := 0
	for _, d := range devices {
		// The other levels are the same CPUs once more.
		if f := facts(d); f["level"] == "numa" {
			n, _ := strconv.Atoi(f["cpus"])
			cpus += n
			nodes[f["numaNode"]] = true
		}
	}
	wanted := e.Pod.Annotations[needs+"device"]
	wantCPUs, _ := e.count("cpus") // checked when it was read
	wantNodes, _ := e.count("nodes")
	switch {
	case cpus < wantCPUs:
		return fmt.Sprintf("%d claimable CPUs; it has %d", wantCPUs, cpus)
	case len(nodes) < wantNodes:
		return fmt.Sprintf("CPUs on %d NUMA nodes; it has %d", wantNodes, len(nodes))
	case wanted != "" && !slices.ContainsFunc(devices, func(d resourceapi.Device) bool { return has(d, wanted) }):
		return "a device with " + wanted
	case other != "":
		return "the driver " + other
	}
	return ""
}

// has reports whether a device has everything in the list.
func has(d resourceapi.Device, list string) bool {
	f := facts(d)
	for item := range strings.SplitSeq(list, ",") {
		name, want, exact := strings.Cut(item, "=")
		got := f[name]
		if exact && got != want || !exact && (got == "" || got == "0" || got == "false") {
			return false
		}
	}
	return true
}

// facts are the attributes and capacities of a device without their domains.
func facts(d resourceapi.Device) map[string]string {
	f := map[string]string{}
	set := func(name resourceapi.QualifiedName, value string) {
		f[string(name)[strings.LastIndexByte(string(name), '/')+1:]] = value
	}
	for name, a := range d.Attributes {
		switch {
		case a.StringValue != nil:
			set(name, *a.StringValue)
		case a.IntValue != nil:
			set(name, strconv.FormatInt(*a.IntValue, 10))
		case a.BoolValue != nil:
			set(name, strconv.FormatBool(*a.BoolValue))
		case len(a.StringValues) > 0:
			set(name, strings.Join(a.StringValues, " "))
		case len(a.IntValues) > 0:
			set(name, fmt.Sprint(a.IntValues))
		}
	}
	for name, c := range d.Capacity {
		set(name, c.Value.String())
	}
	return f
}
