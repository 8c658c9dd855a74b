package snapshot_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/snapshot"
	"github.com/topolet/topolet/topology/topologytest"
)

// machines are of all the kinds that topologytest can make.
var machines = map[string]topologytest.Spec{
	"one CPU":     {NoNUMA: true, NoL3: true},
	"two sockets": {Sockets: 2, CoresPerL3: 4, Threads: 2, DiesPerSocket: 1, Offline: "5", Isolated: "6-7", NohzFull: "6"},
	"hybrid":      {CoresPerL3: 4, Threads: 2, EfficiencyCoresPerL3: 4, CoresPerL2: 4, CoresPerCluster: 4},
	"capacities":  {CoresPerL3: 2, EfficiencyCoresPerL3: 2, Capacity: true},
	"memory": {
		NUMAIDs: []int{8}, MemoryOnly: []int{250, 252},
		Hugepages: []topology.Hugepages{{SizeBytes: 2 << 20, Total: 512}, {SizeBytes: 1 << 30}},
	},
	"PCI devices": {Sockets: 2, CoresPerL3: 2, PCI: []topologytest.PCIRoot{
		{NUMANode: 0, Functions: []topologytest.PCIFunction{topologytest.HostBridge(), topologytest.Port(topologytest.NVMe())}},
		{NUMANode: 1, NodeOnBusOnly: true, Bus: 0x40, Functions: []topologytest.PCIFunction{
			topologytest.Port(topologytest.Switch(topologytest.GPU(), topologytest.NIC(8, 4))),
		}},
		{NoNUMANode: true, Domain: 0x10000, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.NVMe())}},
	}},
}

// pack captures the machine and returns the archive.
func pack(t testing.TB, root fs.FS) []byte {
	t.Helper()
	tree, err := snapshot.Capture(root)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := tree.Archive(&archive); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

func discover(t testing.TB, root fs.FS) *topology.Machine {
	t.Helper()
	m, err := topology.Discover(root)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// checkRoundTrip compares what is discovered with and without a snapshot between.
func checkRoundTrip(t *testing.T, root fs.FS) *snapshot.Tree {
	t.Helper()
	want := discover(t, root)
	archive := pack(t, root)
	tree, err := snapshot.Read(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(discover(t, tree), want) {
		t.Error("the snapshot is of another machine")
	}
	if !bytes.Equal(pack(t, tree), archive) {
		t.Error("a snapshot of the snapshot has other bytes")
	}
	return tree
}

func TestASnapshotIsOfTheSameMachine(t *testing.T) {
	for name, spec := range machines {
		t.Run(name, func(t *testing.T) {
			root := topologytest.FS(spec)
			tree := checkRoundTrip(t, root)
			dir := t.TempDir()
			if err := tree.Write(dir); err != nil {
				t.Fatal(err)
			}
			unpacked, err := snapshot.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer unpacked.Close()
			if !reflect.DeepEqual(discover(t, unpacked), discover(t, root)) {
				t.Error("the unpacked snapshot is of another machine")
			}
		})
	}
}

func TestASnapshotOfACapturedMachineIsOfTheSameMachine(t *testing.T) {
	for _, name := range topologytest.CapturedMachines() {
		t.Run(name, func(t *testing.T) { checkRoundTrip(t, topologytest.Captured(name)) })
	}
}

func TestASnapshotOfARealMachineIsOfTheSameMachine(t *testing.T) {
	archives := topologytest.RealMachines()
	if len(archives) == 0 {
		t.Skip("no collection of real machines here")
	}
	for _, archive := range archives {
		t.Run(filepath.Base(archive), func(t *testing.T) {
			t.Parallel()
			root, err := snapshot.Open(archive)
			if err != nil {
				t.Fatal(err)
			}
			checkRoundTrip(t, root)
		})
	}
}

func TestASnapshotOfThisHostIsOfThisHost(t *testing.T) {
	root, err := snapshot.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := topology.Discover(root); err != nil {
		t.Skip(err)
	}
	checkRoundTrip(t, root)
}

// secrets are what must never leave a machine.
var secrets = []string{
	"52:54:00:ab:cd:ef", "525400abcdef", "SN-PHM1234567", "db07.prod.corp.example", "4c4c4544-0042-3510",
	"R740-ASSET-77", "00000003-4d53-0001-0001-9e6ddf3d4c42", "hunter2", "eth-db07", "MemFree", "AnonPages",
}

// planted puts the secrets wherever a tree has a place for one: in files that
// discovery does not read, beside those it reads, within those it reads, and in
// names.
func planted() *topologytest.Tree {
	tree := topologytest.FS(topologytest.Spec{CoresPerL3: 2, PCI: []topologytest.PCIRoot{
		{Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.NIC(2, 1), topologytest.NVMe())}},
	}})
	const nic = "sys/devices/pci0000:00/0000:00:00.0/0000:01:00.0/"
	const node = "sys/devices/system/node/node0/"
	tree.File("etc/hostname", "db07.prod.corp.example\n").
		File("proc/sys/kernel/hostname", "db07.prod.corp.example\n").
		File("proc/cmdline", "password=hunter2\n").
		File("sys/class/dmi/id/product_serial", "SN-PHM1234567\n").
		File("sys/class/dmi/id/product_uuid", "4c4c4544-0042-3510\n").
		File("sys/class/dmi/id/chassis_asset_tag", "R740-ASSET-77\n").
		File("sys/devices/virtual/dmi/id/product_uuid", "4c4c4544-0042-3510\n").
		File(nic+"net/eth-db07/address", "52:54:00:ab:cd:ef\n").
		File(nic+"vpd", "SN-PHM1234567").
		File(nic+"config", "SN-PHM1234567").
		File(nic+"serial_number", "SN-PHM1234567\n").
		File(nic+"current_link_speed", "52:54:00:ab:cd:ef\n").
		File(nic+"local_cpulist", "SN-PHM1234567\n").
		File(nic+"odd_driver_file", "hunter2\n").
		File("sys/devices/system/cpu/cpu0/cache/index3/type", "SN-PHM1234567\n").
		File("sys/devices/system/cpu/cpu0/topology/core_cpus_list", "db07.prod.corp.example\n").
		File("sys/devices/system/cpu/nohz_full", "hunter2\n").
		File("sys/devices/system/cpu/cpu0/microcode/serial", "SN-PHM1234567\n").
		Dir("sys/devices/system/cpu/cpu-db07.prod.corp.example").
		Dir("sys/bus/pci/devices/525400abcdef").
		Dir(node+"hugepages/hugepages-hunter2").
		File(node+"meminfo", "Node 0 MemTotal: 1024 kB\nNode 0 MemFree: 1000 kB\nNode 0 AnonPages: 525400abcdef kB\n").
		// Where the platform's bus names its devices, and a virtual machine's.
		Link("sys/bus/pci/devices/4d53:00:00.0", "../../../devices/LNXSYSTM:00/00000003-4d53-0001-0001-9e6ddf3d4c42/pci4d53:00/4d53:00:00.0").
		File("sys/devices/LNXSYSTM:00/00000003-4d53-0001-0001-9e6ddf3d4c42/pci4d53:00/4d53:00:00.0/class", "0x010802\n").
		File("sys/devices/LNXSYSTM:00/00000003-4d53-0001-0001-9e6ddf3d4c42/pci4d53:00/pci_bus/4d53:00/cpulistaffinity", "0\n").
		Link("sys/bus/pci/devices/0000:01:01.0/physfn", "../SN-PHM1234567").
		Link(nic+"iommu_group", "../../../kernel/iommu_groups/SN-PHM1234567")
	return tree
}

func TestNothingPrivateIsInASnapshot(t *testing.T) {
	root := planted()
	unzipped, err := gzip.NewReader(bytes.NewReader(pack(t, root)))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range secrets {
		if bytes.Contains(content, []byte(secret)) {
			t.Errorf("%q is in the snapshot", secret)
		}
	}
	for _, wanted := range []string{"4d53:00:00.0", "MemTotal: 1024 kB", "drivers/igb"} {
		if !bytes.Contains(content, []byte(wanted)) {
			t.Errorf("%q is missing", wanted)
		}
	}
	checkRoundTrip(t, root)
}

func TestASnapshotThatWouldLieIsRefused(t *testing.T) {
	root := topologytest.FS(machines["PCI devices"])
	root.Link("sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/driver", "../../../bus/pci/drivers/52:54:00:ab:cd:ef")
	if _, err := snapshot.Capture(root); err == nil || !strings.Contains(err.Error(), "another machine") {
		t.Errorf("got %v", err)
	}
}

func TestNothingIsWrittenOfARootWithoutAMachine(t *testing.T) {
	if _, err := snapshot.Capture(os.DirFS(t.TempDir())); err == nil {
		t.Error("no error")
	}
}
