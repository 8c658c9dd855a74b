package v1alpha1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology/device/pciselect"
)

const version = `"apiVersion":"topolet.dev/v1alpha1"`

func TestDecodeDeviceConfig(t *testing.T) {
	typed := func(kind string) Type { return Type{APIVersion, kind} }
	for raw, want := range map[string]DeviceConfig{
		`{` + version + `,"kind":"PCIConfig"}`:                                                               PCIConfig{typed("PCIConfig"), AutoInterface, false, false},
		`{` + version + `,"kind":"PCIConfig","vfioInterface":"Cdev"}`:                                        PCIConfig{typed("PCIConfig"), CdevInterface, false, false},
		`{` + version + `,"kind":"PCIConfig","resetOnRelease":true}`:                                         PCIConfig{typed("PCIConfig"), AutoInterface, true, false},
		`{` + version + `,"kind":"GPUConfig"}`:                                                               GPUConfig{typed("GPUConfig"), All, Granted},
		`{` + version + `,"kind":"GPUConfig","accessMode":"Render"}`:                                         GPUConfig{typed("GPUConfig"), Render, Granted},
		`{` + version + `,"kind":"GPUConfig","byPath":"None"}`:                                               GPUConfig{typed("GPUConfig"), All, NoLinks},
		`{` + version + `,"kind":"GaudiConfig","scaleOut":true}`:                                             GaudiConfig{typed("GaudiConfig"), true, false, false},
		`{` + version + `,"kind":"GaudiConfig","noControlNode":true}`:                                        GaudiConfig{typed("GaudiConfig"), false, true, false},
		`{` + version + `,"kind":"WorkQueueConfig","noCharLink":true}`:                                       WorkQueueConfig{typed("WorkQueueConfig"), true},
		`{` + version + `,"kind":"SGXConfig","vepc":true}`:                                                   SGXConfig{typed("SGXConfig"), true, OwnQuotes},
		`{` + version + `,"kind":"SGXConfig","quoteProvider":"AESMDSidecar"}`:                                SGXConfig{typed("SGXConfig"), false, AESMDSidecar},
		`{` + version + `,"kind":"SGXConfig","quoteProvider":"AESMDHost"}`:                                   SGXConfig{typed("SGXConfig"), false, AESMDHost},
		`{` + version + `,"kind":"PCIConfig","legacyEnv":true}`:                                              PCIConfig{typed("PCIConfig"), AutoInterface, false, true},
		`{` + version + `,"kind":"GaudiConfig","legacyEnv":true}`:                                            GaudiConfig{typed("GaudiConfig"), false, false, true},
		`{` + version + `,"kind":"NVMeConfig","readOnly":true}`:                                              NVMeConfig{typed("NVMeConfig"), true},
		`{` + version + `,"kind":"FPGAConfig"}`:                                                              FPGAConfig{typed("FPGAConfig"), "", false},
		`{` + version + `,"kind":"FPGAConfig","afuID":"D8424DC4-a4a3-c413-f89e-433683f9040b"}`:               FPGAConfig{typed("FPGAConfig"), "d8424dc4a4a3c413f89e433683f9040b", false},
		`{` + version + `,"kind":"FPGAConfig","afuID":"d8424dc4a4a3c413f89e433683f9040b","management":true}`: FPGAConfig{typed("FPGAConfig"), "d8424dc4a4a3c413f89e433683f9040b", true},
	} {
		got, err := DecodeDeviceConfig([]byte(raw))
		if err != nil {
			t.Errorf("%s: %v", raw, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", raw, diff)
		}
	}
}

func TestDecodeDeviceConfigRefuses(t *testing.T) {
	for raw, said := range map[string]string{
		``:                                `cannot be read`,
		`null`:                            `field kind: ""`,
		`{` + version + `}`:               `use one of FPGAConfig, GPUConfig, GaudiConfig, NVMeConfig, PCIConfig, SGXConfig, WorkQueueConfig`,
		`{` + version + `,"kind":"Disk"}`: `field kind: "Disk" is not valid`,
		`{"kind":"SGXConfig"}`:            `SGXConfig field apiVersion: "" is not valid: use topolet.dev/v1alpha1`,
		`{` + version + `,"kind":"SGXConfig","VEPC":true}`:                                  `unknown field "VEPC"; its fields are apiVersion, kind, vepc (true or false)`,
		`{` + version + `,"kind":"SGXConfig","vepc":"yes"}`:                                 `cannot be read`,
		`{` + version + `,"kind":"FPGAConfig","afuID":"nlb0"}`:                              `FPGAConfig field afuID: "nlb0" is not valid: write 32 hexadecimal digits`,
		`{` + version + `,"kind":"FPGAConfig","afuID":"../../../../../../../../../../etc"}`: `FPGAConfig field afuID`,
		`{` + version + `,"kind":"FPGAConfig","afuID":"ffffffffffffffffffffffffffffffff"}`:  `FPGAConfig field afuID`,
		`{` + version + `,"kind":"FPGAConfig","management":"yes"}`:                          `its fields are apiVersion, kind, afuID (a string), management (true or false)`,
		`{` + version + `,"Kind":"SGXConfig"}`:                                              `unknown field "Kind"`,
		`{` + version + `,"kind":"GPUConfig","byPath":"All"}`:                               `GPUConfig field byPath: "All" is not valid: use Granted (the default) or None`,
		`{` + version + `,"kind":"PCIConfig","vfioInterface":"x"}`:                          `PCIConfig field vfioInterface: "x" is not valid: use Auto (the default) or Group or Cdev`,
	} {
		if got, err := DecodeDeviceConfig([]byte(raw)); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %+v, %v; want %q", raw, got, err, said)
		}
	}
}

func TestDevicesOfTheConfiguration(t *testing.T) {
	const head = "apiVersion: topolet.dev/v1alpha1\nkind: Configuration\ndevices: "
	c, err := DecodeConfiguration([]byte(head + "[{family: pci, entries: [{name: foo, match: {vendor: \"0x1234\"}, expose: chardev}]}, {family: gpu, shares: 4}, {family: sgx, tenants: 110}, {family: nvme}]"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]DeviceFamily{{Family: "pci", Entries: []pciselect.Entry{{Name: "foo", Match: pciselect.Match{Vendor: "0x1234"}, Expose: pciselect.Chardev}}}, {Family: "gpu", Shares: 4}, {Family: "sgx", Tenants: 110}, {Family: "nvme"}}, c.Devices); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
	for text, said := range map[string]string{
		"[{family: tpu}]":                            `devices[0].family: "tpu" is not valid: use one of gpu, gaudi, `,
		"[{family: gpu}, {family: gpu}]":             `devices[1].family: "gpu" is not valid: name each family once`,
		"[{family: nvme, shares: 2}]":                `devices[0].shares: "2" is not valid: leave it out`,
		"[{family: gpu, shares: -1}]":                `devices[0].shares: "-1" is not valid: use a number from 1 to 1024`,
		"[{family: gpu, shares: 1025}]":              `devices[0].shares`,
		"[{family: gpu, tenants: 1}]":                `devices[0].tenants: "1" is not valid`,
		"[{family: gpu, sharing: 1}]":                `unknown field "devices[0].sharing"`,
		"[{family: sgx, manageBinding: true}]":       `devices[0].manageBinding: "true" is not valid: leave it out: only functions of gpu, `,
		"[{family: dsa, manageBinding: true}]":       `devices[0].manageBinding`,
		"[{family: gpu, manageBinding: yes-please}]": `cannot be read`,
		"[{family: pci, manageBinding: true, entries: [{name: foo, match: {driver: foo}, expose: vfio}]}]": `devices[0].entries[0].match.driver: "foo" is not valid: match something else`,
		"[{family: pci}]":                         `devices[0].entries: "0 entries" is not valid: family pci needs some`,
		"[{family: gpu, entries: [{name: foo}]}]": `devices[0].entries`,
		"[{family: pci, entries: [{name: foo, match: {vendor: x}, expose: chardev}]}]": `vendor`,
		"[gpu]": `cannot be read`,
		"[{family: gpu, networkHook: /usr/bin/hook}]":                       `devices[0].networkHook: "/usr/bin/hook" is not valid: leave it out: only gaudi`,
		"[{family: gpu, networkConfig: /etc/net.json}]":                     `devices[0].networkConfig: "/etc/net.json" is not valid: leave it out: only gaudi`,
		"[{family: gaudi, networkHook: habana-container-hook}]":             `devices[0].networkHook: "habana-container-hook" is not valid: write an absolute path of the host`,
		"[{family: gaudi, networkHook: /usr/../bin/hook}]":                  `devices[0].networkHook`,
		"[{family: gaudi, networkHook: \"/bin/sh -c\"}]":                    `devices[0].networkHook`,
		"[{family: gaudi, networkConfig: /etc/net.json}]":                   `devices[0].networkConfig: "/etc/net.json" is not valid: name the program that reads it as well (networkHook)`,
		"[{family: gaudi, networkHook: /bin/hook, networkConfig: /etc/a/}]": `devices[0].networkConfig: "/etc/a/" is not valid: write an absolute path`,
	} {
		if _, err := DecodeConfiguration([]byte(head + text)); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v, want %q", text, err, said)
		}
	}
}
