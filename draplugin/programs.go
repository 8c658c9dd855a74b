package draplugin

import (
	"fmt"
	"slices"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/fpgaprogram"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/fpga"
	"github.com/topolet/topolet/topology/device/fpga/bitstream"
)

// AttributeAFU is the function of a port of an FPGA: in slices the one that it has at the
// moment, in the metadata of a claim that has it programmed the one that it has for the claim.
const AttributeAFU resourceapi.QualifiedName = DriverName + "/" + fpga.AFUID

// Programs say what ports of FPGAs may be programmed with. The zero value allows nothing.
type Programs struct {
	Rules v1alpha1.Programs
	// Root is the directory in which the host's folders are.
	Root string
}

// folder is the path of the folder of programs on the host; empty if there is none.
func (p Programs) folder() string { return p.Rules.Folder }

// checkPrograms refuses what the hook would refuse as well, but only when a container starts,
// and what the node's configuration does not allow: what is granted is not asked for again.
func (p *Plugin) checkPrograms(claim allocator.Claim, requests []allocator.Request) error {
	for _, r := range requests {
		if r.Program == "" && !slices.Contains(r.Roles, fpga.Management) {
			continue
		}
		if err := p.checkProgram(claim.Namespace, r); err != nil {
			return fmt.Errorf("devices.config[].opaque.parameters for request %q: %w", r.Name, err)
		}
	}
	return nil
}

func (p *Plugin) checkProgram(namespace string, r allocator.Request) error {
	const kind = "FPGAConfig"
	programs := p.opts.Programs
	field, value, allowed := "afuID", r.Program, programs.Rules.AllowsAFU(namespace, r.Program)
	if r.Program == "" || allowed && slices.Contains(r.Roles, fpga.Management) {
		field, value, allowed = "management", "true", programs.Rules.AllowsManagement(namespace)
	}
	bad := func(remedy string) error {
		return &v1alpha1.FieldError{Kind: kind, Field: field, Value: value, Remedy: remedy}
	}
	switch {
	case programs.folder() == "" || p.opts.Hook == "":
		return bad("leave it out, or have programs configured for the FPGAs of this node (devices[].programs)")
	case !allowed:
		return bad("leave it out, or have it allowed for namespace " + namespace + " in this node's configuration (devices[].programs.allow)")
	case r.Program == "":
		return nil
	case r.Admin:
		return &v1alpha1.FieldError{Kind: kind, Field: "afuID", Value: r.Program, Remedy: "leave it out: with adminAccess the port stays what it is for others"}
	}
	d, ok := p.ledger.Inventory().Device(r.Domain)
	if !ok {
		return nil // The ledger knows whether the claim has it nevertheless.
	}
	return p.checkPort(d, r.Program)
}

// checkPort refuses a function that the port cannot be programmed with as it is now. Where it
// has the function, nothing needs to be done.
func (p *Plugin) checkPort(d *device.Device, afuID string) error {
	if now, _ := d.Attributes[fpga.AFUID].AsText(); now == afuID && afuID != bitstream.OpenCL {
		return nil
	}
	interfaceID, _ := d.Attributes[fpga.InterfaceID].AsText()
	if programmable, _ := d.Attributes[fpga.Programmable].AsFlag(); !programmable {
		return &v1alpha1.FieldError{Kind: "FPGAConfig", Field: "afuID", Value: afuID,
			Remedy: "select devices whose attribute " + string(qualified(fpga.Programmable)) + " is true: that of " + d.Name + " is not at the moment"}
	}
	file, err := fpgaprogram.Folder{Root: p.opts.Programs.Root, Path: p.opts.Programs.folder()}.Find(interfaceID, afuID)
	if err != nil {
		return fmt.Errorf("%s cannot get function %s: %w", d.Name, afuID, err)
	}
	return file.Close()
}
