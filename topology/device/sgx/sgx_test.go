package sgx_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/sgx"
)

const (
	virtual = "/sys/devices/virtual"
	epc0    = "/sys/devices/system/node/node0/x86/sgx_total_bytes"
	epc1    = "/sys/devices/system/node/node1/x86/sgx_total_bytes"
)

// twoSockets is a machine with EPC at both sockets.
func twoSockets(t *testing.T) *devicetest.Host {
	t.Helper()
	h := devicetest.New(t)
	h.File(epc0, "2130706432")
	h.File(epc1, "2134900736")
	h.Char(virtual, "misc/sgx_enclave", "10:125", "sgx_enclave")
	h.Char(virtual, "misc/sgx_provision", "10:126", "sgx_provision")
	h.Char(virtual, "misc/sgx_vepc", "10:124", "sgx_vepc")
	return h
}

func epc(bytes, claim uint64) device.Capacity {
	return device.Capacity{Name: "epc", Amount: bytes, Bytes: true, Default: claim, Min: 4096, Step: 4096}
}

func TestEPCIsSharedByNUMANodeAndProvisioningByAll(t *testing.T) {
	of := func(name, kind string, node int) device.Device {
		return device.Device{
			Name: name, Family: "sgx", Personality: device.Kernel, NUMANode: node, Shared: true,
			Attributes: map[string]device.Value{"sgxKind": device.Text(kind)},
		}
	}
	memory := []device.Device{of("sgx-epc-node0", "epc", 0), of("sgx-epc-node1", "epc", 1)}
	for i, bytes := range []uint64{2130706432, 2134900736} {
		memory[i].Set("vepc", device.Flag(true))
		memory[i].Capacities = []device.Capacity{epc(bytes, 1<<20)}
		memory[i].Nodes = []device.Node{
			{Path: "/dev/sgx_enclave", Major: 10, Minor: 125, Role: sgx.Enclave},
			{Path: "/dev/sgx_vepc", Major: 10, Minor: 124, Role: sgx.VirtualEPC},
		}
		memory[i].Variables = []device.Variable{{Name: "SGX_AESM_ADDR", Value: "1", Role: sgx.AESM}}
		memory[i].Mounts = []device.Mount{{Path: "/var/run/aesmd", Role: sgx.AESMHost}}
	}
	provision := of("sgx-provision", "provision", topology.None)
	provision.Nodes = []device.Node{{Path: "/dev/sgx_provision", Major: 10, Minor: 126}}
	if diff := cmp.Diff(append(memory, provision), twoSockets(t).Discover(sgx.Family{}), cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

func TestAMachineHasTheDevicesThatItsKernelTellsOf(t *testing.T) {
	const memory, other, right = "sgx-epc-node0", "sgx-epc-node1", "sgx-provision"
	for name, test := range map[string]struct {
		change      func(*devicetest.Host)
		want        []string
		wantProblem bool
	}{
		"no node for enclaves":   {func(h *devicetest.Host) { h.Remove("/sys/class/misc/sgx_enclave") }, nil, false},
		"a garbled node":         {func(h *devicetest.Host) { h.File(virtual+"/misc/sgx_enclave/dev", "none") }, nil, false},
		"a node outside of /dev": {func(h *devicetest.Host) { h.File(virtual+"/misc/sgx_enclave/uevent", "DEVNAME=../sgx_enclave") }, nil, false},
		"no provisioning":        {func(h *devicetest.Host) { h.Remove("/sys/class/misc/sgx_provision") }, []string{memory, other}, false},
		"one socket's EPC":       {func(h *devicetest.Host) { h.Remove(epc0) }, []string{other, right}, false},
		"no EPC at one socket":   {func(h *devicetest.Host) { h.File(epc0, "0") }, []string{other, right}, false},
		"no EPC at all": {func(h *devicetest.Host) {
			h.File(epc0, "0")
			h.File(epc1, "0")
		}, []string{right}, false},
		"garbled EPC":            {func(h *devicetest.Host) { h.File(epc0, "\xff\x00-1") }, []string{other, right}, true},
		"EPC in other units":     {func(h *devicetest.Host) { h.File(epc0, "2 GB") }, []string{other, right}, true},
		"endless EPC":            {func(h *devicetest.Host) { h.File(epc0, strings.Repeat("1", 70000)) }, []string{other, right}, true},
		"more EPC than memories": {func(h *devicetest.Host) { h.File(epc0, "18446744073709551615") }, []string{other, right}, true},
		"an older kernel": {func(h *devicetest.Host) {
			h.Remove(epc0)
			h.Remove(epc1)
		}, []string{"sgx-epc", right}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := twoSockets(t)
			test.change(h)
			devices, problems := device.Discover(h.Open(), sgx.Family{})
			if len(problems) > 1 || (len(problems) == 1) != test.wantProblem {
				t.Errorf("problems %v, want one: %v", problems, test.wantProblem)
			}
			var got []string
			for _, d := range devices {
				got = append(got, d.Name)
			}
			if !cmp.Equal(test.want, got) {
				t.Errorf("devices %v, want %v", got, test.want)
			}
		})
	}
}

func TestWhereTheKernelDoesNotTellTheProcessorsDo(t *testing.T) {
	for name, test := range map[string]struct {
		family sgx.Family
		want   []device.Capacity
	}{
		"a known amount":                {sgx.Family{EPC: 1 << 30}, []device.Capacity{epc(1<<30, 1<<20)}},
		"an unknown amount":             {sgx.Family{}, nil},
		"an unknown amount for so many": {sgx.Family{Tenants: 2}, []device.Capacity{{Name: "tenants", Amount: 2, Default: 1, Min: 1, Step: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := twoSockets(t)
			h.Remove(epc0)
			h.Remove(epc1)
			devices := h.Discover(test.family)
			if len(devices) != 2 || devices[0].Name != "sgx-epc" || devices[0].NUMANode != topology.None || !devices[0].Shared {
				t.Fatalf("devices %+v, want shared EPC of the machine and provisioning", devices)
			}
			if diff := cmp.Diff(test.want, devices[0].Capacities); diff != "" {
				t.Errorf("capacities -want +got:\n%s", diff)
			}
		})
	}
}

func TestEPCIsSharedByPages(t *testing.T) {
	for bytes, want := range map[string][]device.Capacity{
		"2097152": {epc(2097152, 1<<20)},
		"2097159": {epc(2097152, 1<<20)},
		"65536":   {epc(65536, 65536)},
		"4096":    {epc(4096, 4096)},
	} {
		t.Run(bytes, func(t *testing.T) {
			h := twoSockets(t)
			h.File(epc0, bytes)
			// What the processors tell does not count here.
			devices := h.Discover(sgx.Family{EPC: 1 << 40})
			if len(devices) != 3 {
				t.Fatalf("devices %+v, want three", devices)
			}
			if diff := cmp.Diff(want, devices[0].Capacities); diff != "" {
				t.Errorf("capacities -want +got:\n%s", diff)
			}
		})
	}
}

func TestTenantsAreCountedAtEachNUMANode(t *testing.T) {
	devices := twoSockets(t).Discover(sgx.Family{Tenants: 110})
	if len(devices) != 3 {
		t.Fatalf("devices %+v, want three", devices)
	}
	for _, d := range devices[:2] {
		if len(d.Capacities) != 2 || d.Capacities[1] != (device.Capacity{Name: "tenants", Amount: 110, Default: 1, Min: 1, Step: 1}) {
			t.Errorf("capacities of %s are %+v", d.Name, d.Capacities)
		}
	}
	if len(devices[2].Capacities) != 0 {
		t.Errorf("capacities of %s are %+v, want none", devices[2].Name, devices[2].Capacities)
	}
}

func TestVirtualMachinesGetEPCOnlyWhereTheKernelHasItForThem(t *testing.T) {
	h := twoSockets(t)
	h.Remove("/sys/class/misc/sgx_vepc")
	devices := h.Discover(sgx.Family{})
	want := []device.Node{{Path: "/dev/sgx_enclave", Major: 10, Minor: 125, Role: sgx.Enclave}}
	if len(devices) != 3 || devices[0].Attributes["vepc"] != device.Flag(false) || !cmp.Equal(want, devices[0].Nodes) {
		t.Errorf("devices %+v, want EPC without that for virtual machines", devices)
	}
}

func TestOlderDriversHaveADirectoryOfNodes(t *testing.T) {
	for name, test := range map[string]struct {
		enclave string
		want    int
	}{
		"theirs":             {"sgx/enclave", 2},
		"somebody's enclave": {"enclave", 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			h.Char(virtual, "misc/enclave", "10:125", test.enclave)
			h.Char(virtual, "misc/provision", "10:126", "sgx/provision")
			devices := h.Discover(sgx.Family{})
			if len(devices) != test.want {
				t.Fatalf("devices %+v, want %d", devices, test.want)
			}
			for i, path := range []string{"/dev/sgx/enclave", "/dev/sgx/provision"}[:test.want] {
				if len(devices[i].Nodes) != 1 || devices[i].Nodes[0].Path != path {
					t.Errorf("nodes of %s are %+v, want %s", devices[i].Name, devices[i].Nodes, path)
				}
			}
		})
	}
}
