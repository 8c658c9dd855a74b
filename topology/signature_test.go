package topology_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestTheSignatureChangesWithTheMachine(t *testing.T) {
	signature := func(s topologytest.Spec) string {
		t.Helper()
		text, err := topology.Signature(topologytest.FS(s))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	huge := func(pages uint64) []topology.Hugepages {
		return []topology.Hugepages{{SizeBytes: 2 << 20, Total: 8}, {SizeBytes: 1 << 30, Total: pages}}
	}
	plain := topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 4, Hugepages: huge(1), PCI: []topologytest.PCIRoot{
		{Bus: 0x10, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.NIC(4, 1))}},
	}}
	first := signature(plain)
	if signature(plain) != first {
		t.Error("the same machine has two signatures")
	}
	offline, unplugged, virtual, nodes, pages := plain, plain, plain, plain, plain
	pages.Hugepages = huge(2)
	offline.Offline = "3"
	unplugged.PCI = nil
	virtual.PCI = []topologytest.PCIRoot{{Bus: 0x10, Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.NIC(4, 2))}}}
	nodes.NUMAPerSocket = 4
	for name, other := range map[string]topologytest.Spec{
		"a CPU offline": offline, "a function unplugged": unplugged,
		"a virtual function more": virtual, "other NUMA nodes": nodes, "a huge page more": pages,
	} {
		if signature(other) == first {
			t.Errorf("%s is not in the signature", name)
		}
	}
}

// denied is a file system that lets nobody read one file.
type denied struct {
	fs.FS
	name string
}

func (d denied) Open(name string) (fs.File, error) {
	if name == d.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return d.FS.Open(name)
}

func TestASignatureThatCannotBeReadIsAnError(t *testing.T) {
	tree := topologytest.FS(topologytest.Spec{})
	for _, name := range []string{"sys/devices/system/cpu/online", "sys/bus/pci/devices"} {
		if _, err := topology.Signature(denied{tree, name}); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := topology.Signature(topologytest.NewTree()); err != nil {
		t.Errorf("a machine without any of the files: %v", err)
	}
}
