package draplugin

import (
	"fmt"
	"slices"
	"strings"

	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/fpga"
	"github.com/topolet/topolet/topology/device/gaudi"
	"github.com/topolet/topolet/topology/device/gpu"
	"github.com/topolet/topolet/topology/device/idxd"
	"github.com/topolet/topolet/topology/device/nic"
	"github.com/topolet/topolet/topology/device/nvme"
	"github.com/topolet/topolet/topology/device/sgx"
)

// rolesOf are the roles of the nodes and links that a claim with this configuration gets
// of a device, by its name.
func rolesOf(name string, config v1alpha1.DeviceConfig) ([]string, error) {
	family, _, _ := strings.Cut(name, "-")
	if config != nil && len(config.Families()) > 0 && !slices.Contains(config.Families(), family) {
		kind := config.TypeOf().Kind
		return nil, &v1alpha1.FieldError{Kind: kind, Field: "kind", Value: kind,
			Remedy: fmt.Sprintf("it is for devices of %s, and %s is one of %s", strings.Join(config.Families(), " and "), name, family)}
	}
	if c, ok := config.(v1alpha1.PCIConfig); ok && c.LegacyEnv && !slices.Contains(device.LegacyEnvFamilies(), family) {
		return nil, &v1alpha1.FieldError{Kind: c.Kind, Field: "legacyEnv", Value: "true",
			Remedy: "leave it out: there are no such variables for devices of " + family + ", only for " + strings.Join(device.LegacyEnvFamilies(), " and ")}
	}
	if c, ok := config.(v1alpha1.PCIConfig); ok && c.LegacyEnv && !strings.HasSuffix(name, vfioSuffix) {
		return nil, &v1alpha1.FieldError{Kind: c.Kind, Field: "legacyEnv", Value: "true",
			Remedy: "leave it out: there are such variables for devices that end in " + vfioSuffix + " only, and " + name + " is used through its own driver"}
	}
	roles := map[string]bool{}
	for _, role := range defaultRoles(name, family) {
		roles[role] = true
	}
	switch c := config.(type) {
	case v1alpha1.PCIConfig:
		roles[device.VFIOGroup] = c.VFIOInterface != v1alpha1.CdevInterface
		roles[device.VFIOCdev] = c.VFIOInterface != v1alpha1.GroupInterface
		roles[device.LegacyEnv] = c.LegacyEnv
	case v1alpha1.GPUConfig:
		roles[gpu.Card] = c.AccessMode != v1alpha1.Render
		roles[gpu.ByPathCard] = roles[gpu.Card] && c.ByPath != v1alpha1.NoLinks
		roles[gpu.ByPathRender] = c.ByPath != v1alpha1.NoLinks
	case v1alpha1.GaudiConfig:
		roles[gaudi.Control] = !c.NoControlNode
		roles[gaudi.ScaleOut] = c.ScaleOut
		roles[device.LegacyEnv] = c.LegacyEnv
	case v1alpha1.WorkQueueConfig:
		roles[idxd.CharLink] = !c.NoCharLink
	case v1alpha1.FPGAConfig:
		roles[fpga.Management] = c.Management
	case v1alpha1.NVMeConfig:
		roles[nvme.Controller], roles[nvme.Generic] = !c.ReadOnly, !c.ReadOnly
	case v1alpha1.SGXConfig:
		roles[sgx.Enclave], roles[sgx.VirtualEPC] = !c.VEPC, c.VEPC
		roles[sgx.AESMHost] = c.QuoteProvider == v1alpha1.AESMDHost
		roles[sgx.AESM] = c.QuoteProvider == v1alpha1.AESMDSidecar || roles[sgx.AESMHost]
	}
	var wanted []string
	for role, want := range roles {
		if want {
			wanted = append(wanted, role)
		}
	}
	slices.Sort(wanted)
	return wanted, nil
}

// vfioSuffix ends the names of devices that are handed over as a whole.
const vfioSuffix = "-vfio"

// defaultRoles are those of a claim that says nothing.
func defaultRoles(name, family string) []string {
	if strings.HasSuffix(name, vfioSuffix) {
		return []string{device.VFIOGroup, device.VFIOCdev}
	}
	switch family {
	case "gpu":
		return []string{gpu.Card, gpu.Render, gpu.ByPathCard, gpu.ByPathRender}
	case "dsa", "iaa":
		return []string{idxd.CharLink}
	case "nvme":
		return []string{nvme.Controller, nvme.Generic}
	case "nic":
		return []string{nic.RDMA}
	case "gaudi":
		return []string{gaudi.Control}
	case "sgx":
		return []string{sgx.Enclave}
	}
	return nil
}
