package explain

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Object is one object of a file.
type Object struct {
	// From says where it stands: "claims.yaml, document 2".
	From string
	// Value is a pointer to a ResourceClaim, ResourceClaimTemplate, Pod, DeviceClass
	// or ResourceSlice, checked and with the API's defaults; nil for an object of
	// another kind.
	Value metav1.Object
	// Kind and Name are the object's own.
	Kind, Name string
}

// FieldError says which field of an object is wrong, and what would be right.
type FieldError struct {
	// From and Object say where the field is: "claims.yaml, document 2",
	// "ResourceClaim four-cpus".
	From, Object string
	Field        string
	Value        string
	Remedy       string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("%s: %s: %s: %q is not valid: %s", e.From, e.Object, e.Field, e.Value, e.Remedy)
}

// kinds are those that are read, with the API version that they have.
var kinds = map[string]struct {
	apiVersion string
	empty      func() metav1.Object
}{
	"ResourceClaim":         {resourceVersion, func() metav1.Object { return &resourceapi.ResourceClaim{} }},
	"ResourceClaimTemplate": {resourceVersion, func() metav1.Object { return &resourceapi.ResourceClaimTemplate{} }},
	"DeviceClass":           {resourceVersion, func() metav1.Object { return &resourceapi.DeviceClass{} }},
	"ResourceSlice":         {resourceVersion, func() metav1.Object { return &resourceapi.ResourceSlice{} }},
	"Pod":                   {"v1", func() metav1.Object { return &corev1.Pod{} }},
}

const resourceVersion = "resource.k8s.io/v1"

// maxBytes bounds a file. The API bounds an object to a part of this.
const maxBytes = 64 << 20

// Read reads the YAML or JSON documents of a file. A List counts as the objects in
// it. The decoding is strict: the error, a [*FieldError] if there is a field to
// name, says where the mistake is and what would be right.
func Read(name string, r io.Reader) ([]Object, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%s: more than %d MiB", name, maxBytes>>20)
	}
	var objects []Object
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		from := fmt.Sprintf("%s, document %d", name, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %s", from, oneLine(err))
		}
		asJSON, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return nil, fmt.Errorf("%s: not YAML: %s", from, oneLine(err))
		}
		if string(asJSON) == "null" {
			continue // nothing but comments
		}
		some, err := decode(from, asJSON)
		if err != nil {
			return nil, err
		}
		objects = append(objects, some...)
	}
}

// decode reads one object, or those of a List.
func decode(from string, raw []byte) ([]Object, error) {
	var head struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        struct {
			Name         string `json:"name"`
			GenerateName string `json:"generateName"`
		} `json:"metadata"`
		Items []json.RawMessage `json:"items"`
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &head); err != nil {
		return nil, fmt.Errorf("%s: not a Kubernetes object: %s", from, oneLine(err))
	}
	if strings.HasSuffix(head.Kind, "List") && head.Items != nil {
		var objects []Object
		for i, item := range head.Items {
			some, err := decode(fmt.Sprintf("%s, item %d", from, i+1), item)
			if err != nil {
				return nil, err
			}
			objects = append(objects, some...)
		}
		return objects, nil
	}
	o := Object{From: from, Kind: head.Kind, Name: head.Metadata.Name}
	if head.Kind == "" {
		return nil, o.wrong("kind", "", "every object has one, such as ResourceClaim")
	}
	known, ok := kinds[head.Kind]
	if !ok {
		return []Object{o}, nil
	}
	if head.APIVersion != known.apiVersion {
		return nil, o.wrong("apiVersion", head.APIVersion, "use "+known.apiVersion)
	}
	if o.Name == "" {
		return nil, o.wrong("metadata.name", "", "give it one")
	}
	o.Value = known.empty()
	strict, err := kjson.UnmarshalStrict(raw, o.Value)
	if err != nil {
		return nil, o.undecodable(raw, err)
	}
	if len(strict) > 0 {
		return nil, o.notStrict(strict[0])
	}
	if o.Value.GetNamespace() == "" {
		o.Value.SetNamespace(metav1.NamespaceDefault)
	}
	return []Object{o}, o.check()
}

func (o Object) wrong(field, value, remedy string) error {
	return &FieldError{From: o.From, Object: o.String(), Field: field, Value: value, Remedy: remedy}
}

// String is the object's kind and name.
func (o Object) String() string { return strings.TrimSpace(o.Kind + " " + o.Name) }

// notStrict tells of a field that is unknown or repeated.
func (o Object) notStrict(err error) error {
	var field kjson.FieldError
	if !errors.As(err, &field) {
		return fmt.Errorf("%s: %s: %s", o.From, o, oneLine(err))
	}
	return &FieldError{From: o.From, Object: o.String(), Field: field.FieldPath(), Value: field.FieldPath(),
		Remedy: "the API has no such field there: mind spelling, capitals and indentation"}
}

// undecodable tells of a value that is not of its field's type.
func (o Object) undecodable(raw []byte, err error) error {
	if mistyped, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return o.wrong(mistyped.Field, mistyped.Value, "the API wants "+article(mistyped.Type.Kind().String()))
	}
	// Quantities do not tell where they are.
	var tree any
	if json.Unmarshal(raw, &tree) == nil {
		if field, value, ok := badQuantity("", tree); ok {
			return o.wrong(field, value, `write a number, perhaps with a unit: "4", "512Mi"`)
		}
	}
	return fmt.Errorf("%s: %s: %s", o.From, o, oneLine(err))
}

// article puts Go's names of types into the words of YAML.
func article(kind string) string {
	switch kind {
	case "slice", "array":
		return "a list"
	case "map", "struct", "ptr":
		return "fields below it"
	case "bool":
		return "true or false"
	case "string":
		return `text: put it in quotes, as in "4"`
	}
	return "a number"
}

// oneLine fits errors of several lines into one.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
