package draplugin

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/gpu"
	"github.com/topolet/topolet/topology/device/idxd"
	"github.com/topolet/topolet/topology/device/nic"
	"github.com/topolet/topolet/topology/device/npu"
	"github.com/topolet/topolet/topology/device/nvme"
	"github.com/topolet/topolet/topology/device/qat"
	"github.com/topolet/topolet/topology/device/sgx"
	"github.com/topolet/topolet/topology/topologytest"
)

// bigServer is a machine of two sockets with four NUMA nodes each. At each node there is
// a GPU, a network card and a work queue accelerator, each below a PCIe root of its own;
// at every other node a QAT accelerator with sixteen virtual functions. One GPU has two
// virtual functions.
//
// It is read once: what discovery returns never changes.
func bigServer(t testing.TB) (*topology.Machine, []device.Device) {
	t.Helper()
	server.Do(func() { server.machine, server.devices = readBigServer(t) })
	return server.machine, server.devices
}

var server struct {
	sync.Once
	machine *topology.Machine
	devices []device.Device
}

func readBigServer(t testing.TB) (*topology.Machine, []device.Device) {
	t.Helper()
	dir := t.TempDir()
	if err := topologytest.Write(dir, topologytest.Spec{Sockets: 2, NUMAPerSocket: 4, CoresPerL3: 16, Threads: 2}); err != nil {
		t.Fatal(err)
	}
	h := devicetest.At(t, dir)
	h.File("/proc/1/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT")
	h.File("/proc/1/net/ipv6_route", "")
	group := 0
	function := func(node, bus int, last string, vendor, id uint16, class uint32, driver string) devicetest.Function {
		root := fmt.Sprintf("/sys/devices/pci0000:%02x", bus)
		group++
		f := devicetest.Function{
			Path:   fmt.Sprintf("%s/0000:%02x:%s", root, bus, last),
			Vendor: vendor, Device: id, Class: class, Node: node, Group: group, Driver: driver,
		}
		h.Add(f)
		return f
	}
	for node := range 8 {
		bus := 0x10 + node*0x10
		card := function(node, bus, "01.0", 0x8086, 0x0bda, 0x038000, "i915")
		h.Char(card.Path, fmt.Sprintf("drm/card%d", node), fmt.Sprintf("226:%d", node), fmt.Sprintf("dri/card%d", node))
		h.Char(card.Path, fmt.Sprintf("drm/renderD%d", 128+node), fmt.Sprintf("226:%d", 128+node), fmt.Sprintf("dri/renderD%d", 128+node))
		if node == 7 {
			h.Files(card.Path, map[string]string{"sriov_totalvfs": "2", "sriov_numvfs": "2"})
			for i := range 2 {
				vf := function(node, bus, fmt.Sprintf("01.%d", i+1), 0x8086, 0x0bda, 0x038000, "i915")
				h.Virtual(card, vf, i)
				h.Char(vf.Path, fmt.Sprintf("drm/renderD%d", 140+i), fmt.Sprintf("226:%d", 140+i), fmt.Sprintf("dri/renderD%d", 140+i))
			}
		}
		port := function(node, bus+1, "00.0", 0x15b3, 0x101d, 0x020000, "mlx5_core")
		name := fmt.Sprintf("eth%d", node)
		h.Files(port.Path+"/net/"+name, map[string]string{"address": fmt.Sprintf("0c:42:a1:00:00:%02x", node), "mtu": "1500", "type": "1", "speed": "100000", "operstate": "up"})
		dsa := function(node, bus+2, "01.0", 0x8086, 0x0b25, 0x088000, "idxd")
		queue(h, dsa, "dsa", node)
		if node%2 == 0 {
			pf := function(node, bus+3, "00.0", 0x8086, 0x4940, 0x0b4000, "4xxx")
			h.Files(pf.Path, map[string]string{"sriov_totalvfs": "16", "sriov_numvfs": "16", "qat/state": "up", "qat/cfg_services": "sym;asym"})
			for i := range 16 {
				vf := function(node, bus+3, fmt.Sprintf("%02x.%d", (i+1)/8, (i+1)%8), 0x8086, 0x4941, 0x0b4000, "vfio-pci")
				h.Virtual(pf, vf, i)
			}
		}
	}
	h.Files("/sys/devices/system/node/node0/x86", map[string]string{"sgx_total_bytes": "2130706432"})
	h.Char("/sys/devices/virtual", "misc/sgx_enclave", "10:125", "sgx_enclave")
	h.Char("/sys/devices/virtual", "misc/sgx_provision", "10:126", "sgx_provision")
	host := h.Open()
	devices, problems := device.Discover(host, gpu.Family{}, qat.Family{}, idxd.DSA, sgx.Family{}, npu.Family{}, nic.Family{}, nvme.Family{})
	for _, problem := range problems {
		t.Log(problem)
	}
	return host.Machine, devices
}

// queue gives an accelerator, dsa or iax, one work queue for programs.
func queue(h *devicetest.Host, f devicetest.Function, kind string, n int) {
	dir := fmt.Sprintf("%s/%s%d", f.Path, kind, n)
	h.Files(dir, map[string]string{
		"version": "0x100", "state": "enabled", "errors": "00000000", "clients": "0", "max_work_queues": "8", "pasid_enabled": "1",
		fmt.Sprintf("engine%d.0/group_id", n): "0", fmt.Sprintf("group%d.0/engines", n): fmt.Sprintf("engine%d.0", n),
	})
	name := fmt.Sprintf("wq%d.0", n)
	h.Files(dir+"/"+name, map[string]string{
		"state": "enabled", "group_id": "0", "mode": "shared", "size": "16", "threshold": "15", "priority": "10", "type": "user",
		"name": "app", "driver_name": "user", "clients": "0", "block_on_fault": "1", "cdev_minor": "0",
		"max_transfer_size": "2097152", "max_batch_size": "32",
	})
	h.Files(dir+"/"+name+"/"+kind+"!"+name, map[string]string{
		"dev": fmt.Sprintf("511:%d", n), "uevent": fmt.Sprintf("MAJOR=511\nMINOR=%d\nDEVNAME=%s/%s", n, kind, name),
	})
}

// hardwareRig is a driver on the big server, with a scheduler that knows the chart's classes.
func hardwareRig(t testing.TB) (*rig, *scheduler) {
	t.Helper()
	m, devices := bigServer(t)
	r := newRigOn(t, m, allocator.Policy{ReservedCPUs: allocator.DefaultReserved(m)})
	r.ledger.ReplaceDevices(devices)
	s := newScheduler(t, r)
	classes, err := hardwareClasses()
	if err != nil {
		t.Fatal(err)
	}
	s.classes = append(slices.Clone(s.classes), classes...)
	return r, s
}

// hardwareClasses are those of the chart's file.
var hardwareClasses = sync.OnceValues(func() ([]*resourceapi.DeviceClass, error) {
	data, err := os.ReadFile("../deploy/helm/topolet/files/devices.yaml")
	if err != nil {
		return nil, err
	}
	type entry struct{ Name, Resource, Family, Where string }
	var file struct{ Classes, ExtendedResources []entry }
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		return nil, err
	}
	attribute := regexp.MustCompile(`\ba\.`)
	var classes []*resourceapi.DeviceClass
	for _, e := range slices.Concat(file.Classes, file.ExtendedResources) {
		name := e.Name
		if name == "" {
			name = regexp.MustCompile(`[^a-z0-9]`).ReplaceAllString(e.Resource, "-")
		}
		class := class(name, fmt.Sprintf(`device.attributes[%q].family == %q && `, DriverName, e.Family)+
			attribute.ReplaceAllString(e.Where, fmt.Sprintf(`device.attributes[%q].`, DriverName)))
		if e.Resource != "" {
			class.Spec.ExtendedResourceName = &e.Resource
		}
		classes = append(classes, class)
	}
	return classes, nil
})

// togetherBy asks for one device of each class, all with the same value of an attribute.
func togetherBy(uid string, attribute resourceapi.QualifiedName, classes ...string) *resourceapi.ResourceClaim {
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: uid, UID: types.UID(uid)}}
	for i, class := range classes {
		r := resourceapi.DeviceRequest{Name: fmt.Sprintf("r%d", i), Exactly: &resourceapi.ExactDeviceRequest{
			DeviceClassName: class + ".topolet.dev", AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1,
		}}
		if class == "cpu" {
			r.Exactly.Capacity = &resourceapi.CapacityRequirements{Requests: map[resourceapi.QualifiedName]resource.Quantity{CapacityCPUs: *quantity(4)}}
		}
		claim.Spec.Devices.Requests = append(claim.Spec.Devices.Requests, r)
	}
	if attribute != "" {
		claim.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(attribute))}}
	}
	return claim
}

func TestCPUsAndDevicesOfOneNUMANode(t *testing.T) {
	r, s := hardwareRig(t)
	nodes := map[int64]bool{}
	for i := range 4 { // as many as there are QAT accelerators
		uid := fmt.Sprintf("c%d", i)
		claim := togetherBy(uid, deviceattribute.StandardDeviceAttributeNUMANode, "cpu", "gpu", "nic", "qat")
		if !s.allocate(t, claim) {
			t.Fatalf("claim %d is refused", i)
		}
		r.mustPrepare(t, s.claims[types.UID(uid)])
		got := map[int64]bool{}
		for _, result := range claim.Status.Allocation.Devices.Results {
			got[s.nodeOf(t, result.Device)] = true
		}
		if len(got) != 1 {
			t.Errorf("claim %d is on nodes %v: %+v", i, got, claim.Status.Allocation.Devices.Results)
		}
		maps.Copy(nodes, got)
	}
	// Sixteen virtual functions are at each of the four nodes, but only one GPU.
	if len(nodes) != 4 {
		t.Errorf("the claims are on nodes %v", nodes)
	}
	if s.allocate(t, togetherBy("late", deviceattribute.StandardDeviceAttributeNUMANode, "cpu", "gpu", "nic", "qat")) {
		t.Error("a fifth claim got a GPU at a node without one")
	}
}

// nodeOf is the NUMA node of a published device.
func (s *scheduler) nodeOf(t *testing.T, name string) int64 {
	t.Helper()
	for _, slice := range s.slices {
		for _, d := range slice.Spec.Devices {
			if node := d.Attributes[deviceattribute.StandardDeviceAttributeNUMANode].IntValue; d.Name == name && node != nil {
				return *node
			}
		}
	}
	t.Fatalf("device %s has no NUMA node", name)
	return 0
}

const (
	wholeGPU = "gpu-0000-80-01-0"
	firstVF  = "gpu-0000-80-01-1"
)

// selecting is a claim for one GPU by its address, whatever taints it has.
func selecting(uid, address string) *resourceapi.ResourceClaim {
	claim := togetherBy(uid, "", "gpu")
	exactly := claim.Spec.Devices.Requests[0].Exactly
	exactly.Selectors = []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{
		Expression: fmt.Sprintf(`device.attributes["resource.kubernetes.io"].pciBusID == %q`, address),
	}}}
	exactly.Tolerations = []resourceapi.DeviceToleration{{Operator: resourceapi.DeviceTolerationOpExists}}
	return claim
}

func TestAPhysicalFunctionIsNotGivenAwayBesideItsVirtualOnes(t *testing.T) {
	r, s := hardwareRig(t)
	plain := selecting("plain", "0000:80:01.0")
	plain.Spec.Devices.Requests[0].Exactly.Tolerations = nil
	if s.allocate(t, plain) {
		t.Error("the function that manages virtual ones is given away to a claim that does not tolerate it")
	}
	if !s.allocate(t, selecting("vf", "0000:80:01.1")) {
		t.Fatal("a virtual function is refused")
	}
	if s.allocate(t, selecting("pf", "0000:80:01.0")) {
		t.Error("the physical function was given away while a virtual one is out")
	}
	if !s.allocate(t, selecting("vf2", "0000:80:01.2")) {
		t.Error("the other virtual function is refused")
	}
	delete(s.claims, "vf")
	delete(s.claims, "vf2")
	if !s.allocate(t, selecting("pf", "0000:80:01.0")) {
		t.Fatal("the physical function is refused with no virtual one out")
	}
	if s.allocate(t, selecting("vf3", "0000:80:01.2")) {
		t.Error("a virtual function was given away while the physical one is out")
	}
	// Somebody who writes a claim's status by hand gets no further.
	r.mustPrepare(t, s.claims["pf"])
	forged := allocated("forged", resourceapi.DeviceRequestAllocationResult{Request: "gpu", Driver: DriverName, Pool: nodeName, Device: firstVF})
	if err := r.prepare(t, forged).Err; err == nil || !strings.Contains(err.Error(), "another claim has device "+wholeGPU) {
		t.Errorf("the driver answers %v", err)
	}
}

// What one writes for the device plugins of before is answered.
func TestOldResourceNamesAreAnswered(t *testing.T) {
	r, s := hardwareRig(t)
	for resourceName, family := range map[string]string{
		"gpu-intel-com-i915": "gpu", "qat-intel-com-cy": "qat", "intel-com-qat": "qat",
		"dsa-intel-com-wq-user-shared": "dsa", "sgx-intel-com-enclave": "sgx", "sgx-intel-com-provision": "sgx",
	} {
		claim := togetherBy(resourceName, "", resourceName)
		if !s.allocate(t, claim) {
			t.Errorf("%s is refused", resourceName)
			continue
		}
		if got := claim.Status.Allocation.Devices.Results[0].Device; !strings.HasPrefix(got, family+"-") {
			t.Errorf("%s gets %s", resourceName, got)
		}
		r.mustPrepare(t, s.claims[types.UID(resourceName)])
	}
	for _, resourceName := range []string{"gpu-intel-com-xe", "qat-intel-com-dc", "dsa-intel-com-wq-user-dedicated", "npu-intel-com-accel"} {
		if s.allocate(t, togetherBy(resourceName, "", resourceName)) {
			t.Errorf("%s is answered on a machine without one", resourceName)
		}
	}
}

func TestASharedWorkQueueServesAsManyClaimsAsItHasShares(t *testing.T) {
	r, s := hardwareRig(t)
	served := 0
	for i := range 100 {
		claim := togetherBy(fmt.Sprintf("c%d", i), "", "dsa")
		if !s.allocate(t, claim) {
			break
		}
		served++
		r.mustPrepare(t, s.claims[claim.UID])
	}
	if want := 8 * 8; served != want {
		t.Errorf("%d claims were served by eight queues, want %d", served, want)
	}
}

func TestADiskToReadIsNotWritten(t *testing.T) {
	part := allocator.Part{Request: allocator.Request{Name: "disk", Domain: "nvme-0"}, Hardware: &allocator.Hardware{
		Family: "nvme", Nodes: []device.Node{{Path: "/dev/nvme0n1", Block: true, Major: 259}},
	}}
	for readOnly, want := range map[bool]string{false: "rw", true: "r"} {
		part.ReadOnly = readOnly
		nodes := deviceNodes(allocator.Grant{Parts: []allocator.Part{part}}, "disk")
		if len(nodes) != 1 || nodes[0].Permissions != want || nodes[0].Type != "b" {
			t.Errorf("read only %t: nodes %+v", readOnly, nodes)
		}
	}
}

func TestLinksAreMadeByAHook(t *testing.T) {
	part := allocator.Part{Request: allocator.Request{Name: "gpu", Domain: wholeGPU}, Hardware: &allocator.Hardware{
		Family: "gpu", Links: []device.Link{{Path: "/dev/dri/by-path/pci-0000:80:01.0-card", Target: "../card7"}},
	}}
	folder, err := newCDIFolder(t.TempDir(), "/var/lib/topolet/hook", "")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := folder.specOf(allocator.Grant{Claim: allocator.Claim{UID: "uid"}, Parts: []allocator.Part{part}})
	if err != nil {
		t.Fatal(err)
	}
	hooks := spec.Devices[0].ContainerEdits.Hooks
	if len(hooks) != 1 || hooks[0].Path != "/var/lib/topolet/hook" || hooks[0].HookName != "createContainer" ||
		!slices.Contains(hooks[0].Args, "/dev/dri/by-path/pci-0000:80:01.0-card=../card7") {
		t.Errorf("hooks %+v", hooks)
	}
}

func TestAClaimIsToldWhatBecameOfItsDevice(t *testing.T) {
	r, _ := hardwareRig(t)
	const name = "gpu-0000-10-01-0"
	r.mustPrepare(t, allocated("uid", resourceapi.DeviceRequestAllocationResult{Request: "gpu", Driver: DriverName, Pool: nodeName, Device: name}))
	told := func(devices []device.Device) (said, health string) {
		r.ledger.ReplaceDevices(devices)
		for _, f := range r.findings(r.ledger.Conflicts()) {
			said += string(f.status) + " " + f.reason
		}
		for _, d := range r.health(time.Time{}).Devices {
			if d.DeviceName == name {
				health = string(d.Health)
			}
		}
		return said, health
	}
	_, devices := bigServer(t)
	i := slices.IndexFunc(devices, func(d device.Device) bool { return d.Name == name })
	if said, health := told(devices); said != "" || health != "Healthy" {
		t.Errorf("of a sound device: %q, %s", said, health)
	}
	sick := slices.Clone(devices)
	sick[i].Taints = []device.Taint{{Reason: device.Unhealthy, Value: "aer-fatal"}}
	if said, health := told(sick); said != "False DeviceBroken" || health != "Unhealthy" {
		t.Errorf("of a broken device: %q, %s", said, health)
	}
	if said, health := told(slices.Delete(slices.Clone(devices), i, i+1)); said != "False DeviceGone" || health != "Unhealthy" {
		t.Errorf("of a lost device: %q, %s", said, health)
	}
}

// The container runtime finds every device of the specs, also after a restart of the
// driver, and gives the container exactly the nodes of its claims.
func TestTheRuntimeFindsTheNodesOfSeveralFamilies(t *testing.T) {
	r, s := hardwareRig(t)
	all := map[string][]string{
		"gpu":           {"/dev/dri/renderD140 c 226:140"},
		"qat":           {"/dev/vfio/5 c 243:5", "/dev/vfio/vfio c 10:196"},
		"dsa":           {"/dev/dsa/wq0.0 c 511:0"},
		"sgx":           {"/dev/sgx_enclave c 10:125"},
		"sgx-provision": {"/dev/sgx_provision c 10:126"},
		"nic":           nil,
	}
	names := map[string][]string{}
	for class := range all {
		claim := togetherBy(class, "", class)
		if !s.allocate(t, claim) {
			t.Fatalf("%s is refused", class)
		}
		for _, d := range r.mustPrepare(t, s.claims[types.UID(class)]) {
			names[class] = append(names[class], d.CDIDeviceIDs...)
		}
	}
	check := func(when string) {
		t.Helper()
		cache, err := cdi.NewCache(cdi.WithSpecDirs(r.cdiDir), cdi.WithAutoRefresh(false))
		if err != nil {
			t.Fatal(err)
		}
		for class, want := range all {
			spec := &specs.Spec{Linux: &specs.Linux{}}
			if unresolved, err := cache.InjectDevices(spec, names[class]...); err != nil {
				t.Fatalf("%s, %s: %v does not resolve: %v", when, class, unresolved, err)
			}
			var got []string
			for _, d := range spec.Linux.Devices {
				got = append(got, fmt.Sprintf("%s %s %d:%d", d.Path, d.Type, d.Major, d.Minor))
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s: nodes -want +got:\n%s", when, class, diff)
			}
		}
	}
	check("prepared")
	devices := r.ledger.Inventory().Devices
	before := r.disk(t)
	r.start(t)
	r.ledger.ReplaceDevices(devices)
	if err := r.cdi.reset(r.ledger.Grants()); err != nil {
		t.Fatal(err)
	}
	check("after a restart")
	if diff := cmp.Diff(before, r.disk(t)); diff != "" {
		t.Errorf("files -before +after:\n%s", diff)
	}
	for class := range all {
		if err := r.unprepare(t, types.UID(class)); err != nil {
			t.Error(err)
		}
	}
	if left := r.ledger.Grants(); len(left) > 0 {
		t.Errorf("grants %+v are left", left)
	}
}

func TestParametersOfDevices(t *testing.T) {
	r, _ := hardwareRig(t)
	prepare := func(uid, name, parameters string) error {
		claim := allocated(uid, resourceapi.DeviceRequestAllocationResult{Request: "dev", Driver: DriverName, Pool: nodeName, Device: name})
		claim.Status.Allocation.Devices.Config = []resourceapi.DeviceAllocationConfiguration{{
			Source: resourceapi.AllocationConfigSourceClaim,
			DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
				Driver: DriverName, Parameters: runtime.RawExtension{Raw: []byte(parameters)},
			}},
		}}
		return r.prepare(t, claim).Err
	}
	if err := prepare("render", "gpu-0000-10-01-0", `{"apiVersion":"topolet.dev/v1alpha1","kind":"GPUConfig","accessMode":"Render","byPath":"None"}`); err != nil {
		t.Fatal(err)
	}
	held := r.ledger.Grants()[0].HardwareOf("dev")
	if len(held) != 1 || len(held[0].Links) != 0 || len(held[0].Nodes) != 1 || held[0].Nodes[0].Path != "/dev/dri/renderD128" {
		t.Errorf("a claim that renders only has %+v", held)
	}
	const legacy = `{"apiVersion":"topolet.dev/v1alpha1","kind":"PCIConfig","legacyEnv":true}`
	if err := prepare("old-names", "qat-0000-13-00-1-vfio", legacy); err != nil {
		t.Fatal(err)
	}
	old := r.ledger.Grants()[0].HardwareOf("dev")[0].Variables
	if len(old) != 1 || old[0].Name != "QAT" || old[0].Value != "0000:13:00.1" {
		t.Errorf("a claim that wants the old names has %+v", old)
	}
	if err := prepare("quotes", "sgx-epc-node0", `{"apiVersion":"topolet.dev/v1alpha1","kind":"SGXConfig","quoteProvider":"AESMDHost"}`); err != nil {
		t.Fatal(err)
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(r.cdiDir), cdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{}
	if _, err := cache.InjectDevices(spec, deviceID("quotes", "dev")); err != nil {
		t.Fatal(err)
	}
	folder := []specs.Mount{unplaced, {Destination: "/var/run/aesmd", Source: "/var/run/aesmd", Options: []string{"rbind", "ro", "nosuid", "nodev", "noexec"}}}
	if diff := cmp.Diff(folder, spec.Mounts); diff != "" {
		t.Errorf("mounts of a claim that has the host's service make quotes -want +got:\n%s", diff)
	}
	if err := prepare("own-driver", "dsa-0000-12-01-0-wq0", legacy); err == nil || !strings.Contains(err.Error(), `legacyEnv: "true" is not valid: leave it out: there are such variables for devices that end in -vfio only`) {
		t.Errorf("the old names for a device with a driver of its own: %v", err)
	}
	for parameters, said := range map[string]string{
		legacy: `PCIConfig field legacyEnv: "true" is not valid: leave it out: there are no such variables for devices of gpu`,
		`{"apiVersion":"topolet.dev/v1alpha1","kind":"GPUConfig","accessMode":"Everything"}`: `GPUConfig field accessMode: "Everything" is not valid: use All (the default) or Render`,
		`{"apiVersion":"topolet.dev/v1alpha1","kind":"GPUConfig","acces":"All"}`:             `unknown field "acces"`,
		`{"apiVersion":"v1","kind":"GPUConfig"}`:                                             `field apiVersion: "v1" is not valid: use topolet.dev/v1alpha1`,
		`{"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig"}`:                           `field kind: "CPUConfig" is not valid: use one of `,
		`{"apiVersion":"topolet.dev/v1alpha1","kind":"SGXConfig"}`:                           `SGXConfig field kind: "SGXConfig" is not valid: it is for devices of sgx, and gpu-0000-20-01-0 is one of gpu`,
		`[]`: `cannot be read`,
	} {
		if err := prepare("refused", "gpu-0000-20-01-0", parameters); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: the driver answers %v, want %q", parameters, err, said)
		}
	}
}

// BenchmarkDevices is the scheduler's search for CPUs and devices of one NUMA node, on an
// empty machine and with no GPU left.
func BenchmarkDevices(b *testing.B) {
	_, s := hardwareRig(b)
	classes := []string{"cpu", "gpu", "nic", "qat"}
	search := func(b *testing.B, want bool) {
		b.Helper()
		by := implementations[len(implementations)-1]
		for b.Loop() {
			a, err := structured.NewAllocator(b.Context(), by.features, s.allocated(), s, s.slices, by.cache)
			if err != nil {
				b.Fatal(err)
			}
			found, err := a.Allocate(b.Context(), s.node, []*resourceapi.ResourceClaim{togetherBy("c", deviceattribute.StandardDeviceAttributeNUMANode, classes...)})
			if err != nil || (len(found) > 0) != want {
				b.Fatalf("allocated %d, %v", len(found), err)
			}
		}
	}
	b.Run("feasible", func(b *testing.B) { search(b, true) })
	for i := range 4 {
		if !s.allocate(b, togetherBy(fmt.Sprintf("c%d", i), deviceattribute.StandardDeviceAttributeNUMANode, classes...)) {
			b.Fatal("refused")
		}
	}
	b.Run("infeasible", func(b *testing.B) { search(b, false) })
}
