package topology_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/render"
	"github.com/topolet/topolet/topology/topologytest"
)

// crookedLinks lead in circles, outside, nowhere, and along ways that the kernel
// does not make: a function behind itself, behind two roots, behind what is not
// there, or at another one's place.
var crookedLinks = []string{
	".", "..", "/", "../../../../../../../..", "/etc/passwd", "\xff\xfe",
	"0000:01:00.0", "../0000:01:00.0", "0000:00:00.0/physfn",
	"../../../devices/pci0000:00", "../../../devices/pci0000:00/0000:01:00.0/0000:00:00.0",
	"../../../devices/pci0000:00/0000:00:00.0/0000:00:00.0/0000:01:00.0",
	"../../../devices/pci0000:00/0000:00:01.0/pci10000:00/0000:01:00.0",
	"../../../devices/pci0000:20/0000:20:00.0/0000:01:00.0",
	"../../../devices/pci0000:00/0000:09:00.0/0000:01:00.0/",
	"../../../devices/pcizzzz:00/0000:01:00.0", "pci0000:00", "pci0000:00/0000:01:00.0",
	strings.Repeat("0000:00:00.0/", 60) + "0000:01:00.0", strings.Repeat("../", 400) + "0000:01:00.0",
}

// damage changes files of a tree as the bytes say, one change for each three of
// them: the file, the kind of change, and its value.
func damage(tree *topologytest.Tree, changes []byte) {
	values := []string{
		"", "\n", "(null)\n", "-1\n", "0\n", "0-3\n", "2\n", "0,2\n", "1-1023\n", "0-16383\n", "0-99999999999\n", "65535\n",
		"3-1\n", "ff,ffffffff\n", "ffffffff,00000000\n", "\xff\xfe\x00", strings.Repeat("0-7,", 30000), "Instruction\n",
		"0x060400\n", "0x010802\n", "0xffffff\n", "0x8086 0x\n", "16.0 GT/s PCIe\n", "1e309 GT/s\n",
	}
	for ; len(changes) >= 3; changes = changes[3:] {
		files := tree.Files()
		if len(files) == 0 {
			return
		}
		// Files of all CPUs look alike, so one byte reaches enough of them.
		file := files[int(changes[0])*len(files)/256]
		value := int(changes[2])
		switch changes[1] % 8 {
		case 0:
			tree.Remove(file)
		case 1:
			tree.Remove(file[:strings.LastIndex(file, "/")])
		case 2:
			tree.Dir(file)
		case 3:
			tree.Link(file, files[value*len(files)/256])
		case 4:
			tree.Link(file, crookedLinks[value%len(crookedLinks)])
		default:
			tree.File(file, values[value%len(values)])
		}
	}
}

// damagedSpecs are the machines that are damaged.
var damagedSpecs = []topologytest.Spec{
	{Sockets: 2, CoresPerL3: 2, Threads: 2, DiesPerSocket: 1, Offline: "3"},
	{CoresPerL3: 2, Threads: 2, EfficiencyCoresPerL3: 4, CoresPerCluster: 2, CoresPerL2: 2},
	{NUMAPerSocket: 2, CoresPerL3: 2, MemoryOnly: []int{9}, Hugepages: []topology.Hugepages{{SizeBytes: 2 << 20, Total: 1}}},
	{CoresPerL3: 2, EfficiencyCoresPerL3: 2, Capacity: true},
	twoSockets(),
	{Sockets: 2, PCI: []topologytest.PCIRoot{{NUMANode: 1, Functions: []topologytest.PCIFunction{
		topologytest.Port(topologytest.Port(topologytest.NVMe())), topologytest.Port(topologytest.NIC(4, 4)),
	}}}},
}

// damagedTree is the tree of one of them, or of one that a kernel wrote.
func damagedTree(spec uint8) *topologytest.Tree {
	n := int(spec) % (len(damagedSpecs) + 1)
	if n == len(damagedSpecs) {
		return topologytest.Captured("four-nodes")
	}
	return topologytest.FS(damagedSpecs[n])
}

// discoverDamaged checks what must hold of any content: no panic, no other error
// than that of a tree without CPUs, and a machine without contradictions.
func discoverDamaged(t *testing.T, spec uint8, changes []byte) {
	t.Helper()
	tree := damagedTree(spec)
	damage(tree, changes)
	m, err := topology.Discover(tree)
	if err != nil {
		if !errors.Is(err, topology.ErrNoCPUs) {
			t.Errorf("got %v", err)
		}
		return
	}
	checkInvariants(t, m)
	if err := render.Tree(io.Discard, m, nil); err != nil {
		t.Error(err)
	}
	if err := render.JSON(io.Discard, m); err != nil {
		t.Error(err)
	}
}

func FuzzDiscover(f *testing.F) {
	for spec := range len(damagedSpecs) + 1 {
		f.Add(uint8(spec), []byte{})
		f.Add(uint8(spec), []byte{10, 0, 0, 60, 5, 8, 200, 3, 7})
	}
	// The entries of PCI functions are the first files in the tree. Each of them
	// gets each of the crooked links once.
	for link := range crookedLinks {
		f.Add(uint8(4), []byte{0, 4, byte(link)})
		f.Add(uint8(5), []byte{0, 4, byte(link), 1, 4, byte(link), 3, 4, byte(link + 1)})
		f.Add(uint8(5), []byte{20, 3, byte(link), 60, 3, byte(link * 7), 100, 6, byte(link), 110, 4, byte(link)})
	}
	f.Fuzz(func(t *testing.T, spec uint8, changes []byte) {
		discoverDamaged(t, spec, changes[:min(len(changes), 3*64)])
	})
}

// What four times as many functions cost is the processor's time, which a busy machine
// does not change: four times as much, and not sixteen times.
func TestThousandsOfFunctionsCostNoMoreThanTheirShare(t *testing.T) {
	few, many := costOfFunctions(t, 2048), costOfFunctions(t, 8192)
	if many > 9*few {
		t.Errorf("2048 functions take %v, 8192 take %v", few, many)
	}
}

// costOfFunctions discovers and draws a machine of so many functions, deep in the tree, and
// returns the processor's time for it.
func costOfFunctions(t *testing.T, count int) time.Duration {
	t.Helper()
	files := topologytest.FS(topologytest.Spec{Sockets: 2, CoresPerL3: 8})
	deep := strings.Repeat("0000:00:1f.0/", 70)
	for n := range count {
		a := topology.PCIAddress{Domain: uint32(n >> 13), Bus: uint8(n >> 5 & 0xff), Device: uint8(n & 0x1f)}
		entry := pciDir + a.String()
		files.Link(entry, "../../../devices/pci0000:00/"+deep+a.String()).
			File("sys/devices/pci0000:00/"+deep+a.String()+"/local_cpulist", fmt.Sprintf("0-7,%d\n", n))
	}
	begin := cpuTime(t)
	m, err := topology.Discover(files)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(m.PCI.Functions); got != count {
		t.Errorf("%d functions, want %d", got, count)
	}
	if err := render.Tree(io.Discard, m, nil); err != nil {
		t.Error(err)
	}
	cost := cpuTime(t) - begin
	checkInvariants(t, m)
	return cost
}

// cpuTime is what the process has used of the processor so far.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func TestDamagedTreesAreReadWithoutContradiction(t *testing.T) {
	random := rand.NewChaCha8([32]byte{}) // the same trees in each run
	for range 300 {
		changes := make([]byte, 1+random.Uint64()%120)
		if _, err := random.Read(changes); err != nil {
			t.Fatal(err)
		}
		if discoverDamaged(t, changes[0], changes[1:]); t.Failed() {
			t.Fatalf("machine %d, changes %v", changes[0], changes[1:])
		}
	}
}
