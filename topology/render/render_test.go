package render_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/render"
	"github.com/topolet/topolet/topology/topologytest"
)

var update = flag.Bool("update", false, "write what is rendered into testdata")

// goldens are the machines in testdata, by the name of the file.
var goldens = map[string]topologytest.Spec{
	"one-cpu": {NoNUMA: true, NoL3: true},
	"two-sockets": {
		Sockets: 2, CoresPerL3: 8, Threads: 2, DiesPerSocket: 1,
		Offline: "5,21", Isolated: "6-7,22-23", NohzFull: "6-7,22-23", NUMAMemory: 96 << 30,
		Hugepages: []topology.Hugepages{{SizeBytes: 2 << 20, Total: 512}, {SizeBytes: 1 << 30, Total: 4}},
	},
	"many-l3-groups":             {Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 2, CoresPerL3: 4, Threads: 2},
	"twelve-l3-groups-in-a-node": {L3PerNUMA: 12, CoresPerL3: 8, Threads: 2},
	"hybrid":                     {CoresPerL3: 8, Threads: 2, EfficiencyCoresPerL3: 8, CoresPerL2: 4, CoresPerCluster: 4},
	"nodes-that-share-an-l3":     {Sockets: 2, NUMAPerSocket: 4, NUMAPerL3: 2, DiesPerSocket: 2, CoresPerL3: 2, Threads: 2},
	"clusters-on-arm":            {NUMAPerSocket: 2, CoresPerL3: 16, CoresPerCluster: 4},
	"sparse-and-memory-only-nodes": {
		Sockets: 2, CoresPerL3: 2, Threads: 8, AdjacentThreads: true,
		NUMAIDs: []int{0, 8}, MemoryOnly: []int{250, 252}, NUMAMemory: 130<<30 + 300<<20,
	},
	"pci-devices": {
		Sockets: 2, NUMAPerSocket: 2, L3PerNUMA: 2, CoresPerL3: 4, Threads: 2, MemoryOnly: []int{4},
		PCI: []topologytest.PCIRoot{
			{NUMANode: 0, Functions: []topologytest.PCIFunction{
				topologytest.HostBridge(), topologytest.Port(topologytest.NVMe()), topologytest.Port(topologytest.NVMe()),
				topologytest.Port(topologytest.NIC(0, 0), nextTo(topologytest.NIC(0, 0))), topologytest.Port(),
				{Class: 0x060100, Vendor: 0x8086, Device: 0x2918}, nextTo(usb), usb, usb,
			}},
			{NUMANode: 1, Bus: 0x40, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.Switch(
				topologytest.GPU(), topologytest.GPU(), topologytest.NIC(64, 8), topologytest.Switch(topologytest.NVMe(), topologytest.NVMe()),
			))}},
			{NUMANode: 2, Bus: 0x80, Functions: []topologytest.PCIFunction{
				topologytest.Port(topologytest.GPU(), topologytest.NVMe()),
			}},
			{NUMANode: 4, Bus: 0xa0, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.GPU())}},
			{NUMANode: 3, NodeOnBusOnly: true, Bus: 0xc0, Functions: []topologytest.PCIFunction{usb, usb}},
			{NoNUMANode: true, Domain: 0x10000, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.NVMe())}},
		},
	},
	"pci-devices-without-numa-nodes": {
		NoNUMA: true, CoresPerL3: 4, PCI: []topologytest.PCIRoot{
			{NoNUMANode: true, Functions: []topologytest.PCIFunction{topologytest.NIC(0, 0), usb}},
		},
	},
}

// usb is of the chipset: counted, but not worth a line.
var usb = topologytest.PCIFunction{Class: 0x0c0330, Vendor: 0x8086, Device: 0xa2af}

// nextTo is one more function of the device before it.
func nextTo(f topologytest.PCIFunction) topologytest.PCIFunction {
	f.SameDevice = true
	return f
}

// names knows some of the devices, and one vendor without the device.
func names(vendor, device int) (vendorName, deviceName string) {
	switch {
	case vendor == 0x8086 && device == 0x10c9:
		return "Intel Corporation", "82576 Gigabit Network Connection"
	case vendor == 0x10de:
		return "NVIDIA Corporation", ""
	}
	return "", ""
}

func TestTree(t *testing.T) {
	for name, spec := range goldens {
		t.Run(name, func(t *testing.T) {
			compareGolden(t, name, topologytest.New(spec))
		})
	}
	t.Run("groups-that-cross", func(t *testing.T) {
		tree := topologytest.FS(topologytest.Spec{CoresPerL3: 8, NUMAPerSocket: 2})
		tree.File("sys/devices/system/node/node0/cpulist", "0-5\n")
		tree.File("sys/devices/system/node/node1/cpulist", "4-11\n")
		m, err := topology.Discover(tree)
		if err != nil {
			t.Fatal(err)
		}
		compareGolden(t, "groups-that-cross", m)
	})
	t.Run("nothing-but-cpus", func(t *testing.T) {
		m, err := topology.Discover(topologytest.NewTree().File("sys/devices/system/cpu/online", "0-3,8\n"))
		if err != nil {
			t.Fatal(err)
		}
		compareGolden(t, "nothing-but-cpus", m)
	})
}

func compareGolden(t *testing.T, name string, m *topology.Machine) {
	t.Helper()
	var got bytes.Buffer
	if err := render.Tree(&got, m, names); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run the test with -update to write it", err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("differs from %s (-want +got); after looking at it, run with -update:\n%s", file, diff)
	}
}

func TestJSONLeavesOutWhatTheMachineDoesNotTell(t *testing.T) {
	tree := topologytest.NewTree().
		File("sys/devices/system/cpu/online", "0\n").
		Dir("sys/devices/system/node/node3")
	m, err := topology.Discover(tree)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := render.JSON(&out, m); err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"onlineCPUs": "0", "offlineCPUs": "", "isolatedCPUs": "", "nohzFullCPUs": "",
		"cpus":       []any{map[string]any{"id": 0.0, "coreType": "standard"}},
		"numaNodes":  []any{map[string]any{"id": 3.0, "cpus": ""}},
		"pciDevices": []any{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJSONTellsWhatTheKernelSaysApartFromWhatFollows(t *testing.T) {
	tree := topologytest.FS(topologytest.Spec{Sockets: 2, PCI: []topologytest.PCIRoot{
		{NUMANode: 1, NodeOnBusOnly: true, Functions: []topologytest.PCIFunction{topologytest.NIC(7, 1)}},
	}})
	m, err := topology.Discover(tree.Dir("sys/bus/pci/devices/0001:00:00.0"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := render.JSON(&out, m); err != nil {
		t.Fatal(err)
	}
	var got struct{ PCIDevices []map[string]any }
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	near := map[string]any{"numaNode": 1.0, "cpus": "1", "from": "root"}
	link := map[string]any{"speed": 5.0, "width": 4.0}
	want := []map[string]any{
		{
			"address": "0000:00:00.0", "kind": "endpoint", "class": "0x020000", "vendor": "0x8086", "device": "0x10c9",
			"subsystemVendor": "0x8086", "subsystemDevice": "0x0001", "driver": "igb", "iommuGroup": 1.0,
			"cpus": "0-1", "locality": near, "pcieRoot": "pci0000:00",
			"sriov": map[string]any{"totalVFs": 7.0, "numVFs": 1.0}, "link": link, "maxLink": link,
		},
		{
			"address": "0000:00:10.0", "kind": "endpoint", "class": "0x020000", "vendor": "0x8086", "device": "0x10ca",
			"subsystemVendor": "0x8086", "subsystemDevice": "0x0001", "driver": "igbvf", "iommuGroup": 2.0,
			"cpus": "0-1", "locality": near, "pcieRoot": "pci0000:00", "physicalFunction": "0000:00:00.0",
		},
		{"address": "0001:00:00.0", "kind": "endpoint"},
	}
	if diff := cmp.Diff(want, got.PCIDevices); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

type fullDisk struct{}

var errFull = errors.New("disk full")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestFailureToWriteIsAnError(t *testing.T) {
	m := topologytest.New(topologytest.Spec{})
	if err := render.Tree(fullDisk{}, m, nil); !errors.Is(err, errFull) {
		t.Errorf("Tree: got %v", err)
	}
	if err := render.JSON(fullDisk{}, m); !errors.Is(err, errFull) {
		t.Errorf("JSON: got %v", err)
	}
}
