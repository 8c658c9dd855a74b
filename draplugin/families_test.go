package draplugin

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/topolet/topolet/draplugin/rebind"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/dlb"
	"github.com/topolet/topolet/topology/device/fpga"
	"github.com/topolet/topolet/topology/device/gaudi"
	"github.com/topolet/topolet/topology/device/gpu"
	"github.com/topolet/topolet/topology/device/idxd"
	"github.com/topolet/topolet/topology/device/nic"
	"github.com/topolet/topolet/topology/device/npu"
	"github.com/topolet/topolet/topology/device/nvme"
	"github.com/topolet/topolet/topology/device/pciselect"
	"github.com/topolet/topolet/topology/device/qat"
	"github.com/topolet/topolet/topology/device/sgx"
)

// oneOfEach is a driver on a host with hardware of every family, whose functions are handed
// over where that is possible.
func oneOfEach(t *testing.T) *handoverRig {
	t.Helper()
	h := devicetest.New(t)
	h.File("/proc/1/mountinfo", "22 1 0:21 / /sys rw - sysfs sysfs rw")
	h.File("/proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority")
	h.File(routesFile, routesHead)
	h.File("/proc/1/net/ipv6_route", "")
	k := devicetest.NewKernel(h)
	add := func(address, driver string, id int, class uint32, group int, probe func(devicetest.Function)) devicetest.Function {
		f := devicetest.Function{Path: "/sys/devices/pci0000:37/" + address, Vendor: uint16(id >> 16), Device: uint16(id & 0xffff), Class: class, Group: group} //nolint:gosec // the halves of a number
		h.Add(f)
		if driver != "" {
			k.Load(devicetest.Driver{Name: driver, IDs: []int{id}, Probe: func(f devicetest.Function) error {
				probe(f)
				return nil
			}})
		}
		return f
	}
	add("0000:40:00.0", "i915", 0x808656c0, 0x038000, 40, func(f devicetest.Function) {
		h.Char(f.Path, "drm/card1", "226:1", "dri/card1")
		h.Char(f.Path, "drm/renderD128", "226:128", "dri/renderD128")
	})
	add("0000:41:00.0", "habanalabs", 0x1da31020, 0x120000, 41, func(f devicetest.Function) {
		h.Files(f.Path, map[string]string{"module_id": "3", "status": "Operational", "device_type": "GAUDI2"})
		h.Char(f.Path, "accel/accel0", "261:0", "accel/accel0")
		h.Char("/sys/devices/virtual", "accel/accel_controlD0", "508:0", "accel/accel_controlD0")
	})
	pf := add("0000:42:00.0", "4xxx", 0x80864940, 0x0b4000, 42, func(f devicetest.Function) {
		h.Files(f.Path+"/qat", map[string]string{"state": "up", "cfg_services": "sym;asym"})
	})
	h.Files(pf.Path, map[string]string{"sriov_totalvfs": "1", "sriov_numvfs": "1", "sriov_drivers_autoprobe": "0"})
	h.Virtual(pf, add("0000:42:00.1", "", 0x80864941, 0x0b4000, 142, nil), 0)
	dsa := add("0000:43:00.0", "", 0x80860b25, 0x088000, 43, nil)
	iaa := add("0000:44:00.0", "", 0x80860cfe, 0x088000, 44, nil)
	k.Load(devicetest.Driver{Name: "idxd", IDs: []int{0x80860b25, 0x80860cfe}})
	queue(h, dsa, "dsa", 0)
	queue(h, iaa, "iax", 1)
	add("0000:45:00.0", "dlb2", 0x80862710, 0x0b4000, 45, func(f devicetest.Function) {
		h.Files(f.Path, map[string]string{"dev_id": "0", "total_resources/num_sched_domains": "32"})
		h.Char(f.Path, "dlb2/dlb0", "507:0", "dlb0")
	})
	add("0000:46:00.0", "dfl-pci", 0x808609c4, 0x120000, 46, func(f devicetest.Function) {
		region := f.Path + "/fpga_region/region0"
		h.Files(region+"/dfl-fme.0", map[string]string{
			"ports_num": "1", "bitstream_id": "0x23000410010309", "dev": "238:0", "uevent": "MAJOR=238\nMINOR=0\nDEVNAME=dfl-fme.0",
			"errors/fme_errors": "0x0", "errors/catfatal_errors": "0x0", "errors/nonfatal_errors": "0x0",
		})
		h.Files(region+"/dfl-port.0", map[string]string{
			"id": "0", "afu_id": "d8424dc4a4a3c413f89e433683f9040b", "power_state": "0x0", "errors/errors": "0x0",
			"dev": "237:0", "uevent": "MAJOR=237\nMINOR=0\nDEVNAME=dfl-port.0",
		})
		h.Link("/sys/class/fpga_region/region0", region)
	})
	add("0000:47:00.0", "intel_vpu", 0x80867d1d, 0x120000, 47, func(f devicetest.Function) { h.Char(f.Path, "accel/accel1", "261:1", "accel/accel1") })
	add("0000:48:00.0", "mlx5_core", 0x15b3101d, 0x020000, 48, func(f devicetest.Function) {
		h.Files(f.Path+"/net/eth7", map[string]string{"address": "0c:42:a1:00:00:07", "type": "1", "operstate": "up"})
		h.Link("/sys/class/net/eth7", f.Path+"/net/eth7")
	})
	add("0000:49:00.0", "nvme", 0x144da80a, 0x010802, 49, func(f devicetest.Function) {
		h.Char(f.Path, "nvme/nvme0", "245:0", "nvme0")
		h.Files(f.Path+"/nvme/nvme0", map[string]string{"state": "live", "transport": "pcie", "model": "disk"})
	})
	add("0000:4a:00.0", "foo", 0x123411e8, 0x00ff00, 50, func(f devicetest.Function) { h.Char(f.Path, "foo/foo0", "505:0", "foo0") })
	h.File("/sys/devices/system/node/node0/x86/sgx_total_bytes", "2130706432")
	h.Char("/sys/devices/virtual", "misc/sgx_enclave", "10:125", "sgx_enclave")
	h.Char("/sys/devices/virtual", "misc/sgx_provision", "10:126", "sgx_provision")
	return newHandoverRigOn(t, k, func(rebinder *rebind.Rebinder) []device.Family {
		families := []device.Family{idxd.DSA, idxd.IAA, dlb.Family{}, fpga.Family{}, sgx.Family{}}
		for _, f := range []device.Family{gpu.Family{}, gaudi.Family{}, qat.Family{}, npu.Family{}, nic.Family{}, nvme.Family{}} {
			families = append(families, device.Managed{Family: f, Driver: rebinder.Driver, Twins: true})
		}
		return append(families, pciselect.Family{Entries: []pciselect.Entry{{Name: "card", Match: pciselect.Match{Vendor: "0x1234"}, Expose: pciselect.Chardev}}})
	})
}

// nodesOf are the nodes with which a container gets prepared devices, as a runtime finds them
// that has just started.
func (r *handoverRig) nodesOf(t *testing.T, names []string) []string {
	t.Helper()
	cache, err := cdi.NewCache(cdi.WithSpecDirs(r.cdiDir), cdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{Linux: &specs.Linux{}}
	if unresolved, err := cache.InjectDevices(spec, names...); err != nil {
		t.Fatalf("%v does not resolve: %v", unresolved, err)
	}
	var nodes []string
	for i, d := range spec.Linux.Devices {
		nodes = append(nodes, fmt.Sprintf("%s %s %d:%d %s", d.Path, d.Type, d.Major, d.Minor, spec.Linux.Resources.Devices[i].Access))
	}
	slices.Sort(nodes)
	return nodes
}

// What each family's devices are to their claims, from the preparation over a restart of the
// driver while the device is in use to the way back.
func TestEachFamilyIsPreparedAndGivenBack(t *testing.T) {
	vfio := func(group int) []string {
		return []string{fmt.Sprintf("/dev/vfio/%d c 243:%d rw", group, group), "/dev/vfio/vfio c 10:196 rw"}
	}
	type expectation struct {
		nodes []string
		// native is the driver that a function is taken from, if it is; none has it where it
		// has no driver.
		native string
	}
	const none = "-"
	table := map[string]expectation{
		"gpu-0000-40-00-0":        {nodes: []string{"/dev/dri/card1 c 226:1 rw", "/dev/dri/renderD128 c 226:128 rw"}},
		"gpu-0000-40-00-0-vfio":   {vfio(40), "i915"},
		"gaudi-0000-41-00-0":      {nodes: []string{"/dev/accel/accel0 c 261:0 rw", "/dev/accel/accel_controlD0 c 508:0 rw"}},
		"gaudi-0000-41-00-0-vfio": {vfio(41), "habanalabs"},
		"qat-0000-42-00-1-vfio":   {vfio(142), none},
		"dsa-0000-43-00-0-wq0":    {nodes: []string{"/dev/dsa/wq0.0 c 511:0 rw"}},
		"iaa-0000-44-00-0-wq0":    {nodes: []string{"/dev/iax/wq1.0 c 511:1 rw"}},
		"dlb-0000-45-00-0":        {nodes: []string{"/dev/dlb0 c 507:0 rw"}},
		"fpga-0000-46-00-0-port0": {nodes: []string{"/dev/dfl-port.0 c 237:0 rw"}},
		"npu-0000-47-00-0":        {nodes: []string{"/dev/accel/accel1 c 261:1 rw"}},
		"npu-0000-47-00-0-vfio":   {vfio(47), "intel_vpu"},
		"nic-0000-48-00-0":        {},
		"nic-0000-48-00-0-vfio":   {vfio(48), "mlx5_core"},
		"nvme-0000-49-00-0":       {nodes: []string{"/dev/nvme0 c 245:0 rw"}},
		"nvme-0000-49-00-0-vfio":  {vfio(49), "nvme"},
		"pci-0000-4a-00-0":        {nodes: []string{"/dev/foo0 c 505:0 rw"}},
		"sgx-epc-node0":           {nodes: []string{"/dev/sgx_enclave c 10:125 rw"}},
		"sgx-provision":           {nodes: []string{"/dev/sgx_provision c 10:126 rw"}},
	}
	for _, d := range oneOfEach(t).ledger.Inventory().Devices {
		if _, ok := table[d.Name]; !ok && len(d.Taints) == 0 {
			t.Errorf("device %s is in no table", d.Name)
		}
	}
	for name, want := range table {
		t.Run(name, func(t *testing.T) {
			r := oneOfEach(t)
			d, ok := r.ledger.Inventory().Device(name)
			if !ok || len(d.Taints) > 0 {
				t.Fatalf("the device is %+v", d)
			}
			var gives, back []string
			switch want.native {
			case "":
			case none:
				gives = []string{"devices/" + d.Address + "/driver_override vfio-pci", "drivers/vfio-pci/bind " + d.Address}
				back = []string{"drivers/vfio-pci/unbind " + d.Address, "devices/" + d.Address + "/driver_override \n"}
			default:
				gives, back = giving(want.native, d.Address), givingBack(want.native, d.Address)
			}
			before := r.kernel.Tree()
			claim := handoverClaim(name)
			var ids []string
			for _, device := range r.mustPrepare(t, claim) {
				ids = append(ids, device.CDIDeviceIDs...)
			}
			if diff := cmp.Diff(gives, r.written(0)); diff != "" {
				t.Errorf("preparing writes -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(want.nodes, r.nodesOf(t, ids)); diff != "" {
				t.Errorf("nodes -want +got:\n%s", diff)
			}

			inUse := r.kernel.Tree()
			r.restart(t)
			if err := r.cdi.reset(r.ledger.Grants()); err != nil {
				t.Fatal(err)
			}
			r.mustPrepare(t, claim)
			if diff := cmp.Diff(want.nodes, r.nodesOf(t, ids)); diff != "" {
				t.Errorf("nodes after a restart -want +got:\n%s", diff)
			}
			if !d.Shared {
				other := allocated("other", deviceResult("r0", name))
				if err := r.prepare(t, other).Err; err == nil || !strings.Contains(err.Error(), "another claim has device "+name) {
					t.Errorf("another claim for it is answered %v", err)
				}
			}
			if writes := r.written(len(gives)); len(writes) > 0 {
				t.Errorf("while it is in use, these are written: %q", writes)
			}
			r.wantUntouched(t, inUse)

			r.mustUnprepare(t)
			if diff := cmp.Diff(back, r.written(len(gives))); diff != "" {
				t.Errorf("giving it back writes -want +got:\n%s", diff)
			}
			r.wantUntouched(t, before)
			if left, err := filepath.Glob(filepath.Join(r.cdiDir, "*")); err != nil || len(left) > 0 {
				t.Errorf("CDI specs %v are left (%v)", left, err)
			}
		})
	}
}
