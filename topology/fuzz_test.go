package topology_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/render"
	"github.com/topolet/topolet/topology/topologytest"
)

// damage changes files of a tree as the bytes say, one change for each three of
// them: the file, the kind of change, and its value.
func damage(tree *topologytest.Tree, changes []byte) {
	values := []string{
		"", "\n", "(null)\n", "-1\n", "0\n", "0-3\n", "2\n", "0,2\n", "1-1023\n", "0-16383\n", "0-99999999999\n", "65535\n",
		"3-1\n", "ff,ffffffff\n", "ffffffff,00000000\n", "\xff\xfe\x00", strings.Repeat("0-7,", 30000), "Instruction\n",
	}
	for ; len(changes) >= 3; changes = changes[3:] {
		files := tree.Files()
		if len(files) == 0 {
			return
		}
		// Files of all CPUs look alike, so one byte reaches enough of them.
		file := files[int(changes[0])*len(files)/256]
		value := int(changes[2])
		switch changes[1] % 6 {
		case 0:
			tree.Remove(file)
		case 1:
			tree.Remove(file[:strings.LastIndex(file, "/")])
		case 2:
			tree.Dir(file)
		case 3:
			tree.Link(file, files[value*len(files)/256])
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
}

// discoverDamaged checks what must hold of any content: no panic, no other error
// than that of a tree without CPUs, and a machine without contradictions.
func discoverDamaged(t *testing.T, spec uint8, changes []byte) {
	t.Helper()
	tree := topologytest.FS(damagedSpecs[int(spec)%len(damagedSpecs)])
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
	for spec := range damagedSpecs {
		f.Add(uint8(spec), []byte{})
		f.Add(uint8(spec), []byte{10, 0, 0, 60, 4, 8, 200, 3, 7})
	}
	f.Fuzz(func(t *testing.T, spec uint8, changes []byte) {
		discoverDamaged(t, spec, changes[:min(len(changes), 3*64)])
	})
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
