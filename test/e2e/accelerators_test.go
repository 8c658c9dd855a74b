//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	"k8s.io/utils/ptr"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/topologytest"
)

// acceleratorFamilies are those of acceleratorHost.
var acceleratorFamilies = []string{"gpu", "gaudi", "qat", "dsa", "dlb", "fpga", "sgx", "npu"}

// acceleratorHost has an accelerator of each family, and two GPUs.
func acceleratorHost(t *testing.T) *devicetest.Host {
	t.Helper()
	h := devicetest.New(t)
	if err := topologytest.Write(h.Dir, topologytest.Spec{Sockets: 2, CoresPerL3: 4, Threads: 2}); err != nil {
		t.Fatal(err)
	}
	function := func(address string, vendor, id uint16, class uint32, group int, driver string) devicetest.Function {
		f := devicetest.Function{Path: "/sys/devices/pci0000:37/" + address, Vendor: vendor, Device: id, Class: class, Group: group, Driver: driver}
		h.Add(f)
		return f
	}
	for i, driver := range []string{"i915", "xe"} {
		card := function(fmt.Sprintf("0000:40:0%d.0", i), 0x8086, []uint16{0x56c0, 0xe20b}[i], 0x038000, 40+i, driver)
		h.Char(card.Path, fmt.Sprintf("drm/card%d", 1+i), fmt.Sprintf("226:%d", 1+i), fmt.Sprintf("dri/card%d", 1+i))
		h.Char(card.Path, fmt.Sprintf("drm/renderD%d", 128+i), fmt.Sprintf("226:%d", 128+i), fmt.Sprintf("dri/renderD%d", 128+i))
	}
	gaudi := function("0000:41:00.0", 0x1da3, 0x1020, 0x120000, 50, "habanalabs")
	h.Files(gaudi.Path, map[string]string{"module_id": "3", "status": "Operational", "device_type": "GAUDI2"})
	h.Char(gaudi.Path, "accel/accel0", "261:0", "accel/accel0")
	h.Char("/sys/devices/virtual", "accel/accel_controlD0", "508:0", "accel/accel_controlD0")
	qat := function("0000:42:00.0", 0x8086, 0x4940, 0x0b4000, 51, "4xxx")
	h.Files(qat.Path, map[string]string{
		"sriov_totalvfs": "1", "sriov_numvfs": "1", "sriov_drivers_autoprobe": "0", "qat/state": "up", "qat/cfg_services": "sym;asym",
	})
	h.Virtual(qat, function("0000:42:00.1", 0x8086, 0x4941, 0x0b4000, 52, "vfio-pci"), 0)
	dsa := function("0000:43:00.0", 0x8086, 0x0b25, 0x088000, 53, "idxd").Path + "/dsa0"
	h.Files(dsa, map[string]string{
		"version": "0x100", "state": "enabled", "errors": "00000000", "clients": "0", "pasid_enabled": "1", "max_work_queues": "8",
		"engine0.0/group_id": "0", "group0.0/engines": "engine0.0",
		"wq0.0/state": "enabled", "wq0.0/group_id": "0", "wq0.0/mode": "dedicated", "wq0.0/size": "16", "wq0.0/threshold": "0",
		"wq0.0/priority": "10", "wq0.0/type": "user", "wq0.0/name": "app", "wq0.0/driver_name": "user", "wq0.0/clients": "0",
		"wq0.0/block_on_fault": "1", "wq0.0/cdev_minor": "0", "wq0.0/max_transfer_size": "2097152", "wq0.0/max_batch_size": "32",
		"wq0.0/dsa!wq0.0/dev": "511:0", "wq0.0/dsa!wq0.0/uevent": "MAJOR=511\nMINOR=0\nDEVNAME=dsa/wq0.0",
	})
	dlb := function("0000:45:00.0", 0x8086, 0x2710, 0x0b4000, 54, "dlb2")
	h.Files(dlb.Path, map[string]string{"dev_id": "0", "total_resources/num_sched_domains": "32"})
	h.Char(dlb.Path, "dlb2/dlb0", "507:0", "dlb0")
	region := function("0000:46:00.0", 0x8086, 0x09c4, 0x120000, 55, "dfl-pci").Path + "/fpga_region/region0"
	h.Files(region, map[string]string{
		"dfl-fme.0/ports_num": "1", "dfl-fme.0/dev": "238:0", "dfl-fme.0/uevent": "MAJOR=238\nMINOR=0\nDEVNAME=dfl-fme.0",
		"dfl-port.0/id": "0", "dfl-port.0/afu_id": "d8424dc4a4a3c413f89e433683f9040b",
		"dfl-port.0/dev": "237:0", "dfl-port.0/uevent": "MAJOR=237\nMINOR=0\nDEVNAME=dfl-port.0",
	})
	npu := function("0000:47:00.0", 0x8086, 0x7d1d, 0x120000, 56, "intel_vpu")
	h.Char(npu.Path, "accel/accel1", "261:1", "accel/accel1")
	h.File("/sys/devices/system/node/node0/x86/sgx_total_bytes", "2130706432")
	h.Char("/sys/devices/virtual", "misc/sgx_enclave", "10:125", "sgx_enclave")
	h.Char("/sys/devices/virtual", "misc/sgx_provision", "10:126", "sgx_provision")
	// What no family of these looks at, and whoever looks for the host's own disks does.
	h.File("/proc/1/mountinfo", "22 1 0:21 / /sys rw - sysfs sysfs rw")
	h.File("/proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority")
	return h
}

// TestAccelerators has the real API server and scheduler give away accelerators that are
// not here: the machine is files, the devices' numbers are what a container would get.
func TestAccelerators(t *testing.T) {
	// gpuMemory has a container ask the GPUs of this machine, which has none, before the daemon.
	values := []string{"migration=true", "gpuMemory=true"}
	configuration := "devices:\n"
	for i, family := range acceleratorFamilies {
		values = append(values, fmt.Sprintf("config.devices[%d].family=%s", i, family))
		configuration += "- family: " + family + "\n"
	}
	install(t, values...) // for its device classes
	n := newPaperNodeOn(t, acceleratorHost(t).Dir, configuration)
	t.Run("pods that ask for extended resources", func(t *testing.T) { oldPods(t, n) })
	t.Run("administrators look at what others have", func(t *testing.T) { monitors(t, n) })
}

// oldPods ask for devices as they did of device plugins, by nothing but a resource's name.
func oldPods(t *testing.T, n *paperNode) {
	ns := namespace(t)
	for _, test := range []struct{ resource, device, nodes string }{
		{"gpu.intel.com/i915", "gpu-0000-40-00-0", "/dev/dri/card1 c 226:1, /dev/dri/renderD128 c 226:128"},
		{"gpu.intel.com/xe", "gpu-0000-40-01-0", "/dev/dri/card2 c 226:2, /dev/dri/renderD129 c 226:129"},
		{"habana.ai/gaudi", "gaudi-0000-41-00-0", "/dev/accel/accel0 c 261:0, /dev/accel/accel_controlD0 c 508:0"},
		{"qat.intel.com/cy", "qat-0000-42-00-1-vfio", "/dev/vfio/52 c 243:52, /dev/vfio/vfio c 10:196"},
		{"dsa.intel.com/wq-user-dedicated", "dsa-0000-43-00-0-wq0", "/dev/dsa/wq0.0 c 511:0"},
		{"dlb.intel.com/pf", "dlb-0000-45-00-0", "/dev/dlb0 c 507:0"},
		{"sgx.intel.com/enclave", "sgx-epc-node0", "/dev/sgx_enclave c 10:125"},
		{"npu.intel.com/accel", "npu-0000-47-00-0", "/dev/accel/accel1 c 261:1"},
	} {
		t.Run(test.resource, func(t *testing.T) {
			p := n.pod(strings.NewReplacer("/", "-", ".", "-").Replace(test.resource))
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceName(test.resource): resource.MustParse("1")}
			create(t, ns, p)
			status := n.scheduled(t, ns, p.Name).Status.ExtendedResourceClaimStatus
			if status == nil || len(status.RequestMappings) != 1 {
				t.Fatalf("the scheduler made the claim %+v", status)
			}
			answer := n.prepareClaim(t, ns, status.ResourceClaimName)
			if got := devicesIn(t, answer); got != test.device {
				t.Errorf("the pod has the device %s, want %s", got, test.device)
			}
			if got := n.nodes(t, answer); got != test.nodes {
				t.Errorf("its container gets %s, want %s", got, test.nodes)
			}
		})
	}
}

// monitors looks at the GPUs, which pods have, and at the other accelerators.
func monitors(t *testing.T, n *paperNode) {
	claim := func(name, class string, admin bool) *resourceapi.ResourceClaim {
		c := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name}}
		c.Spec.Devices.Requests = []resourceapi.DeviceRequest{{Name: "all", Exactly: &resourceapi.ExactDeviceRequest{
			DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeAll, Tolerations: []resourceapi.DeviceToleration{{Operator: resourceapi.DeviceTolerationOpExists}},
		}}}
		if admin {
			c.Spec.Devices.Requests[0].Exactly.AdminAccess = ptr.To(true)
		}
		return c
	}
	createClaim := func(namespace string, c *resourceapi.ResourceClaim) error {
		_, err := cluster.Client.ResourceV1().ResourceClaims(namespace).Create(t.Context(), c, metav1.CreateOptions{})
		return err
	}
	// prepared has a pod with the claim scheduled, and prepares it.
	prepared := func(t *testing.T, namespace string, c *resourceapi.ResourceClaim) *dra.NodePrepareResourceResponse {
		t.Helper()
		if err := createClaim(namespace, c); err != nil {
			t.Fatal(err)
		}
		create(t, namespace, n.pod(c.Name, c.Name))
		n.scheduled(t, namespace, c.Name)
		return n.prepareClaim(t, namespace, c.Name)
	}

	others, admins := namespace(t), namespace(t)
	if _, err := cluster.Client.CoreV1().Namespaces().Patch(t.Context(), admins, "application/merge-patch+json",
		[]byte(`{"metadata":{"labels":{"`+resourceapi.DRAAdminNamespaceLabelKey+`":"true"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := createClaim(others, claim("looks", "gpu-monitor.topolet.dev", true)); !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
		t.Errorf("in a namespace that is not the administrators' a claim with adminAccess is answered with %v", err)
	}
	if got := prepared(t, others, claim("without-access", "gpu-monitor.topolet.dev", false)).GetError(); !strings.Contains(got, "ask for it with adminAccess") {
		t.Errorf("a claim for monitor devices without adminAccess is answered with %q", got)
	}
	for _, test := range []struct{ class, devices, nodes string }{
		{"gpu-monitor", "gpu-0000-40-00-0-monitor gpu-0000-40-01-0-monitor",
			"/dev/dri/card1 c 226:1, /dev/dri/card2 c 226:2, /dev/dri/renderD128 c 226:128, /dev/dri/renderD129 c 226:129"},
		{"gaudi-monitor", "gaudi-0000-41-00-0-monitor", "/dev/accel/accel_controlD0 c 508:0"},
		{"fpga-monitor", "fpga-0000-46-00-0-monitor", "/dev/dfl-fme.0 c 238:0"},
	} {
		t.Run(test.class, func(t *testing.T) {
			answer := prepared(t, admins, claim(test.class, test.class+".topolet.dev", true))
			if got := devicesIn(t, answer); got != test.devices {
				t.Errorf("administrators look at %s, want %s", got, test.devices)
			}
			if got := n.nodes(t, answer); got != test.nodes {
				t.Errorf("their container gets %s, want %s", got, test.nodes)
			}
		})
	}
}

// devicesIn are the names of the devices that were prepared.
func devicesIn(t *testing.T, answer *dra.NodePrepareResourceResponse) string {
	t.Helper()
	if answer.GetError() != "" {
		t.Fatalf("what the scheduler admitted was refused: %s", answer.GetError())
	}
	var names []string
	for _, d := range answer.GetDevices() {
		names = append(names, d.GetDeviceName())
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// nodes are the device nodes that a container with prepared devices gets, as a runtime finds
// them that has just started.
func (n *paperNode) nodes(t *testing.T, answer *dra.NodePrepareResourceResponse) string {
	t.Helper()
	cache, err := cdi.NewCache(cdi.WithSpecDirs(n.path("cdi")), cdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, d := range answer.GetDevices() {
		ids = append(ids, d.GetCdiDeviceIds()...)
	}
	spec := &specs.Spec{Linux: &specs.Linux{}}
	if unresolved, err := cache.InjectDevices(spec, ids...); err != nil {
		t.Fatalf("%v does not resolve: %v", unresolved, err)
	}
	var list []string
	for _, d := range spec.Linux.Devices {
		list = append(list, fmt.Sprintf("%s %s %d:%d", d.Path, d.Type, d.Major, d.Minor))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
