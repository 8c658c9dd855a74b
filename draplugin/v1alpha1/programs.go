package v1alpha1

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/topolet/topolet/topology/device/fpga/bitstream"
)

// Programs are what the ports of FPGAs can be programmed with, and for whom.
type Programs struct {
	// Folder has them, by its path on the host: <folder>/<interface ID>/<AFU ID>.gbs or .aocx,
	// with IDs of 32 hexadecimal digits in lower case. Who can write there decides what the
	// node's FPGAs are.
	Folder string `json:"folder"`
	// Allow says for whom. What no rule allows is refused.
	Allow []ProgramRule `json:"allow"`
}

// ProgramRule allows claims of some namespaces something.
type ProgramRule struct {
	// Namespaces are those of the claims; "*" is all.
	Namespaces []string `json:"namespaces"`
	// AFUIDs are the functions that they may have programmed; none means all.
	AFUIDs []string `json:"afuIDs,omitempty"`
	// Management lets them have the node of the card's engine, by which every port of the
	// card can be programmed with anything.
	Management bool `json:"management,omitempty"`
}

// AnyNamespace stands for all namespaces.
const AnyNamespace = "*"

// AllowsAFU reports whether a claim of that namespace may have a function programmed, by its
// canonical ID.
func (p Programs) AllowsAFU(namespace, afuID string) bool {
	return slices.ContainsFunc(p.Allow, func(r ProgramRule) bool {
		return r.isFor(namespace) && (len(r.AFUIDs) == 0 || slices.Contains(r.AFUIDs, afuID))
	})
}

// AllowsManagement reports whether a claim of that namespace may have the engine's node.
func (p Programs) AllowsManagement(namespace string) bool {
	return slices.ContainsFunc(p.Allow, func(r ProgramRule) bool { return r.isFor(namespace) && r.Management })
}

func (r ProgramRule) isFor(namespace string) bool {
	return slices.Contains(r.Namespaces, AnyNamespace) || slices.Contains(r.Namespaces, namespace)
}

// check refuses what cannot be meant, and brings IDs into their canonical form.
func (p *Programs) check(family, kind, field string) error {
	bad := func(name, value, remedy string) error { return &FieldError{kind, field + name, value, remedy} }
	if family != "fpga" {
		return bad("", family, "leave it out: only ports of fpga are programmed")
	}
	if !isHostPath(p.Folder) {
		return bad(".folder", p.Folder, remedyHostPath+"\"/srv/fpga\"")
	}
	for _, system := range []string{"/dev", "/proc", "/sys"} {
		if p.Folder == system || strings.HasPrefix(p.Folder, system+"/") {
			return bad(".folder", p.Folder, "use a folder of a disk: "+system+" is the kernel's")
		}
	}
	if len(p.Allow) == 0 {
		return bad(".allow", "", "say which namespaces may have what programmed, such as [{namespaces: [\"*\"]}]")
	}
	for i := range p.Allow {
		if err := p.Allow[i].check(kind, fmt.Sprintf("%s.allow[%d]", field, i)); err != nil {
			return err
		}
	}
	return nil
}

func (r *ProgramRule) check(kind, field string) error {
	if len(r.Namespaces) == 0 {
		return &FieldError{kind, field + ".namespaces", "", "name namespaces, or use \"*\" for all"}
	}
	for i, n := range r.Namespaces {
		if n != AnyNamespace && len(validation.IsDNS1123Label(n)) > 0 {
			return &FieldError{kind, fmt.Sprintf("%s.namespaces[%d]", field, i), n, "use the name of a namespace, or \"*\" for all"}
		}
	}
	for i := range r.AFUIDs {
		if err := canonicalAFU(&r.AFUIDs[i], kind, fmt.Sprintf("%s.afuIDs[%d]", field, i)); err != nil {
			return err
		}
	}
	return nil
}

// canonicalAFU brings the ID of a function into the form in which the kernel prints it.
func canonicalAFU(id *string, kind, field string) error {
	canonical, ok := bitstream.ID(*id)
	if !ok || canonical == strings.Repeat("f", len(canonical)) {
		return &FieldError{kind, field, *id, "write 32 hexadecimal digits, or an UUID, as the file afu_id of a port has after programming"}
	}
	*id = canonical
	return nil
}
