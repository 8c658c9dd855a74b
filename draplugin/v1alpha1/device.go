package v1alpha1

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/topolet/topolet/topology/device/pciselect"
)

// DeviceConfig is the opaque configuration of a request for a device that is neither
// CPUs nor memory: one of the kinds below, each for one family of devices, or
// [PCIConfig] for functions that are handed over as a whole, whatever their family.
type DeviceConfig interface {
	// TypeOf is the object's kind and version.
	TypeOf() Type
	// Families are the families that the kind is for; none means any.
	Families() []string
}

// Type is what every object carries.
type Type struct {
	// APIVersion is topolet.dev/v1alpha1.
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// TypeOf implements [DeviceConfig].
func (t Type) TypeOf() Type { return t }

// VFIOInterface is how user space reaches a function that it is handed.
type VFIOInterface string

const (
	// AutoInterface gives the device nodes of all interfaces that the kernel offers.
	AutoInterface VFIOInterface = "Auto"
	// GroupInterface gives /dev/vfio/<group> and its container.
	GroupInterface VFIOInterface = "Group"
	// CdevInterface gives /dev/vfio/devices/vfio<n> and /dev/iommu.
	CdevInterface VFIOInterface = "Cdev"
)

// PCIConfig is for functions that are handed over.
type PCIConfig struct {
	Type `json:",inline"`
	// VFIOInterface is how. The default is Auto.
	VFIOInterface VFIOInterface `json:"vfioInterface,omitempty"`
	// ResetOnRelease has the function reset, where it can be, before its own driver gets
	// it back from vfio (manageBinding).
	ResetOnRelease bool `json:"resetOnRelease,omitempty"`
	// LegacyEnv gives the container the functions' addresses in the variables that device
	// plugins set: QAT0, QAT1 … for QAT, VFIO_BDF0 … for DSA.
	LegacyEnv bool `json:"legacyEnv,omitempty"`
}

// GPUConfig is for graphics cards.
type GPUConfig struct {
	Type `json:",inline"`
	// AccessMode says which of the card's device nodes the container gets. The default
	// is All.
	AccessMode AccessMode `json:"accessMode,omitempty"`
	// ByPath says whether the container has the links to them under /dev/dri/by-path.
	// The default is Granted.
	ByPath ByPath `json:"byPath,omitempty"`
}

// AccessMode is a choice of a card's device nodes.
type AccessMode string

const (
	// All gives the card's node and the render node.
	All AccessMode = "All"
	// Render leaves out the card's node, by which outputs are set up.
	Render AccessMode = "Render"
)

// ByPath is a choice of links.
type ByPath string

const (
	// Granted gives those to the card that the claim got.
	Granted ByPath = "Granted"
	// NoLinks gives none.
	NoLinks ByPath = "None"
)

// GaudiConfig is for Gaudi accelerators.
type GaudiConfig struct {
	Type `json:",inline"`
	// ScaleOut adds the RDMA node by which the accelerators of several hosts are joined.
	ScaleOut bool `json:"scaleOut,omitempty"`
	// NoControlNode leaves out the node by which the accelerator's state is read.
	NoControlNode bool `json:"noControlNode,omitempty"`
	// LegacyEnv sets HL_VISIBLE_DEVICES, for older software, beside HABANA_VISIBLE_DEVICES
	// and HABANA_VISIBLE_MODULES.
	LegacyEnv bool `json:"legacyEnv,omitempty"`
}

// WorkQueueConfig is for work queues of DSA and IAA.
type WorkQueueConfig struct {
	Type `json:",inline"`
	// NoCharLink leaves out the queue's entry in /dev/char, by which libaccel-config finds
	// it.
	NoCharLink bool `json:"noCharLink,omitempty"`
}

// SGXConfig is for enclave memory.
type SGXConfig struct {
	Type `json:",inline"`
	// VEPC gives the node by which a virtual machine's enclave memory is made, in place
	// of that for enclaves.
	VEPC bool `json:"vepc,omitempty"`
	// QuoteProvider says who makes the enclaves' quotes. The default is Own.
	QuoteProvider QuoteProvider `json:"quoteProvider,omitempty"`
}

// QuoteProvider is who makes the quotes of enclaves.
type QuoteProvider string

const (
	// OwnQuotes are made by the process itself, with the provision device, or by nobody.
	OwnQuotes QuoteProvider = "Own"
	// AESMDSidecar has them made by the architectural enclave service in another container
	// of the pod. Both share a volume of the pod at /var/run/aesmd.
	AESMDSidecar QuoteProvider = "AESMDSidecar"
	// AESMDHost has them made by the one that runs on the host, whose folder /var/run/aesmd
	// the containers see. Without that folder they do not start.
	AESMDHost QuoteProvider = "AESMDHost"
)

// NVMeConfig is for disks.
type NVMeConfig struct {
	Type `json:",inline"`
	// ReadOnly has the kernel refuse to open the disk for writing.
	ReadOnly bool `json:"readOnly,omitempty"`
}

// FPGAConfig is for ports of FPGAs.
type FPGAConfig struct {
	Type `json:",inline"`
	// AFUID is the ID of the function that the port has when the container starts, 32
	// hexadecimal digits with or without the hyphens of an UUID. If it has another one, it
	// is programmed first, as far as the node's configuration allows (programs). Empty means
	// whatever is programmed.
	AFUID string `json:"afuID,omitempty"`
	// Management adds the node of the card's engine, by which the container can program
	// ports itself, those of others on the card too: for development, as far as the node's
	// configuration allows.
	Management bool `json:"management,omitempty"`
}

// Families implements [DeviceConfig].
func (PCIConfig) Families() []string { return nil }

// Families implements [DeviceConfig].
func (GPUConfig) Families() []string { return []string{"gpu"} }

// Families implements [DeviceConfig].
func (GaudiConfig) Families() []string { return []string{"gaudi"} }

// Families implements [DeviceConfig].
func (WorkQueueConfig) Families() []string { return []string{"dsa", "iaa"} }

// Families implements [DeviceConfig].
func (SGXConfig) Families() []string { return []string{"sgx"} }

// Families implements [DeviceConfig].
func (NVMeConfig) Families() []string { return []string{"nvme"} }

// Families implements [DeviceConfig].
func (FPGAConfig) Families() []string { return []string{"fpga"} }

// deviceKinds read the JSON of each kind.
var deviceKinds = map[string]func(raw []byte) (DeviceConfig, error){
	"PCIConfig": func(raw []byte) (DeviceConfig, error) {
		return decodeDevice(raw, "vfioInterface (a string), resetOnRelease, legacyEnv (true or false)", func(c *PCIConfig) error {
			return choose(&c.VFIOInterface, c.Kind, "vfioInterface", AutoInterface, GroupInterface, CdevInterface)
		})
	},
	"GPUConfig": func(raw []byte) (DeviceConfig, error) {
		return decodeDevice(raw, "accessMode, byPath (strings)", func(c *GPUConfig) error {
			if err := choose(&c.AccessMode, c.Kind, "accessMode", All, Render); err != nil {
				return err
			}
			return choose(&c.ByPath, c.Kind, "byPath", Granted, NoLinks)
		})
	},
	"GaudiConfig": func(raw []byte) (DeviceConfig, error) {
		return decodeDevice[GaudiConfig](raw, "scaleOut, noControlNode, legacyEnv (true or false)", nil)
	},
	"WorkQueueConfig": func(raw []byte) (DeviceConfig, error) {
		return decodeDevice[WorkQueueConfig](raw, "noCharLink (true or false)", nil)
	},
	"SGXConfig": func(raw []byte) (DeviceConfig, error) {
		return decodeDevice(raw, "vepc (true or false), quoteProvider (a string)", func(c *SGXConfig) error {
			return choose(&c.QuoteProvider, c.Kind, "quoteProvider", OwnQuotes, AESMDSidecar, AESMDHost)
		})
	},
	"NVMeConfig": func(raw []byte) (DeviceConfig, error) {
		return decodeDevice[NVMeConfig](raw, "readOnly (true or false)", nil)
	},
	"FPGAConfig": func(raw []byte) (DeviceConfig, error) {
		return decodeDevice(raw, "afuID (a string), management (true or false)", func(c *FPGAConfig) error {
			if c.AFUID == "" {
				return nil
			}
			return canonicalAFU(&c.AFUID, c.Kind, "afuID")
		})
	},
}

// DecodeDeviceConfig reads the JSON of one of the kinds and fills in the defaults.
func DecodeDeviceConfig(raw []byte) (DeviceConfig, error) {
	const kind = "parameters"
	var t Type
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %s", kind, oneLine(err))
	}
	read, ok := deviceKinds[t.Kind]
	if !ok {
		return nil, &FieldError{kind, "kind", t.Kind, "use one of " + strings.Join(slices.Sorted(maps.Keys(deviceKinds)), ", ")}
	}
	return read(raw)
}

// decodeDevice reads a kind. Complete fills in the defaults and refuses what is no value.
func decodeDevice[C DeviceConfig](raw []byte, fields string, complete func(*C) error) (DeviceConfig, error) {
	var c C
	var t Type
	_ = json.Unmarshal(raw, &t) // read before
	if err := decode(raw, &c, t.Kind, fields); err != nil {
		return nil, err
	}
	if err := checkType(c.TypeOf().APIVersion, t.Kind, t.Kind); err != nil {
		return nil, err
	}
	if complete != nil {
		if err := complete(&c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// DefaultDeviceConfig is what holds without any parameters.
func DefaultDeviceConfig() DeviceConfig { return nil }

// families are those that can be published, and some of them those that have an option.
var (
	families  = []string{"gpu", "gaudi", "qat", "dsa", "iaa", "dlb", "fpga", "sgx", "npu", "nic", "nvme", "pci"}
	shareable = []string{"gpu", "npu", "dsa", "iaa"}
	// manageable are those whose functions may change their drivers. The others have none
	// for vfio; and to give a work queue accelerator back its queues had to be made anew.
	manageable = []string{"gpu", "gaudi", "qat", "npu", "nic", "nvme", "pci"}
)

// maxShares bounds what a device is divided into; more claims do not fit on a node.
const maxShares = 1024

// checkFamilies refuses families that do not exist and options that they do not have.
func checkFamilies(list []DeviceFamily, kind string) error {
	seen := map[string]bool{}
	for i, f := range list {
		field := func(name string) string { return fmt.Sprintf("devices[%d].%s", i, name) }
		switch {
		case !slices.Contains(families, f.Family):
			return &FieldError{kind, field("family"), f.Family, "use one of " + strings.Join(families, ", ")}
		case seen[f.Family]:
			return &FieldError{kind, field("family"), f.Family, "name each family once"}
		case f.Shares < 0 || f.Shares > maxShares:
			return &FieldError{kind, field("shares"), fmt.Sprint(f.Shares), fmt.Sprintf("use a number from 1 to %d", maxShares)}
		case f.Shares > 0 && !slices.Contains(shareable, f.Family):
			return &FieldError{kind, field("shares"), fmt.Sprint(f.Shares), "leave it out: only devices of " + strings.Join(shareable, ", ") + " can be shared"}
		case f.Tenants < 0 || f.Tenants > 0 && f.Family != "sgx":
			return &FieldError{kind, field("tenants"), fmt.Sprint(f.Tenants), "leave it out, or give a number for family sgx"}
		case f.ManageBinding && !slices.Contains(manageable, f.Family):
			return &FieldError{kind, field("manageBinding"), "true", "leave it out: only functions of " + strings.Join(manageable, ", ") + " can be given to vfio and back"}
		case (len(f.Entries) > 0) != (f.Family == "pci"):
			return &FieldError{kind, field("entries"), fmt.Sprintf("%d entries", len(f.Entries)), "family pci needs some, the others have none"}
		}
		if err := (pciselect.Family{Entries: f.Entries}).Validate(); err != nil {
			return fmt.Errorf("%s field devices[%d]: %s", kind, i, oneLine(err))
		}
		for j, e := range f.Entries {
			if f.ManageBinding && e.Match.Driver != "" {
				return &FieldError{kind, field(fmt.Sprintf("entries[%d].match.driver", j)), e.Match.Driver, "match something else: with manageBinding the driver changes"}
			}
		}
		if err := f.checkNetwork(kind, field); err != nil {
			return err
		}
		if f.Programs != nil {
			if err := f.Programs.check(f.Family, kind, field("programs")); err != nil {
				return err
			}
		}
		if err := checkProfiles(f.Family, f.Profiles, kind, fmt.Sprintf("devices[%d]", i)); err != nil {
			return err
		}
		seen[f.Family] = true
	}
	return nil
}
