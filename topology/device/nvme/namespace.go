package nvme

import (
	"fmt"
	"path"
	"regexp"

	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/inuse"
)

// namespace is one of a controller's.
type namespace struct {
	// name is the disk's, as the controller's directory has it.
	name string
	// id is its number on the controller, from 1 (nsid); 0 if it is not known.
	id int64
	// identity is the same for all ways to the namespace and for no other one; it may be
	// unknown, and is empty then.
	identity string
	// size and blockSize are in bytes; 0 if they are not known.
	size, blockSize int64
	// wwid is the name that it has all over the world, or empty.
	wwid string
	// nodes are that of the disk, without a role, and the generic one.
	nodes []device.Node
	// used says that the host uses it or may do so, and err why it is not published if
	// that is not the host's use.
	used bool
	err  error
}

// Names below a controller: nvme0n1 is a disk, nvme0c1n1 is the way through controller 1
// to a disk of subsystem 0. The first number of a disk is not the controller's when the
// kernel counts by subsystems.
var (
	diskName    = regexp.MustCompile(`^nvme\d+n(\d+)$`)
	wayName     = regexp.MustCompile(`^nvme(\d+)c\d+n(\d+)$`)
	genericName = regexp.MustCompile(`^ng\d+n(\d+)$`)
)

// readNamespaces reads the namespaces of the controller in a directory.
func readNamespaces(h *device.Host, hardware *inuse.Hardware, controller string) []namespace {
	subsystem, _ := h.Read(controller + "/subsysnqn")
	var found []namespace
	for _, entry := range h.Entries(controller) {
		place, disk, number := locate(controller, entry)
		if disk == "" {
			continue
		}
		n := namespace{name: disk}
		if !hasController(h, place, controller) {
			n.used, n.err = true, fmt.Errorf("%s has no %s", place, path.Base(controller))
			found = append(found, n)
			continue
		}
		n.read(h, hardware, place+"/"+disk, subsystem)
		for _, sibling := range h.Entries(place) {
			if m := genericName.FindStringSubmatch(sibling); m != nil && m[1] == number {
				n.addNode(h, place+"/"+sibling, false, Generic)
			}
		}
		found = append(found, n)
	}
	return found
}

// locate returns the directory that has the disk of an entry below a controller, the
// disk's name and the number at its end; the name is empty for what is no disk.
func locate(controller, entry string) (place, disk, number string) {
	if m := diskName.FindStringSubmatch(entry); m != nil {
		return controller, entry, m[1]
	}
	if m := wayName.FindStringSubmatch(entry); m != nil {
		return "sys/devices/virtual/nvme-subsystem/nvme-subsys" + m[1], "nvme" + m[1] + "n" + m[2], m[2]
	}
	return "", "", ""
}

// hasController reports whether a directory is the controller's own, or that of its
// subsystem, which has a link to it.
func hasController(h *device.Host, place, controller string) bool {
	target, _ := h.Link(place + "/" + path.Base(controller))
	return place == controller || path.Base(target) == path.Base(controller)
}

// read reads the disk in a directory. One that is hidden has no node: the kernel does
// not know how to make blocks of what is stored there.
func (n *namespace) read(h *device.Host, hardware *inuse.Hardware, dir, subsystem string) {
	if hidden, _ := h.Read(dir + "/hidden"); hidden == "1" {
		return
	}
	n.wwid, _ = h.Read(dir + "/wwid")
	if subsystem != "" && n.wwid != "" {
		n.identity = subsystem + " " + n.wwid
	}
	if !n.addNode(h, dir, true, "") {
		n.used, n.err = true, fmt.Errorf("%s does not tell its node", dir)
		return
	}
	use, err := hardware.Disk(dir)
	n.used, n.err = use != "" || err != nil, err
	n.id = positive(h, dir+"/nsid", 1<<32-2)
	if n.id == 0 && err == nil {
		n.err = fmt.Errorf("%s/nsid is not the number of a namespace", dir)
	}
	n.size = positive(h, dir+"/size", 1<<50) * 512 // in units of 512 bytes, whatever the blocks
	n.blockSize = positive(h, dir+"/queue/logical_block_size", 1<<30)
}

// positive reads a number of at least 1; 0 is for what is none.
func positive(h *device.Host, name string, most int64) int64 {
	if v, ok := h.Int(name); ok && v > 0 && v <= most {
		return v
	}
	return 0
}

func (n *namespace) addNode(h *device.Host, dir string, block bool, role string) bool {
	node, ok := h.Node(dir, block)
	if ok {
		node.Role = role
		n.nodes = append(n.nodes, node)
	}
	return ok
}

// describe makes the controller's device one of the namespace alone.
func (n namespace) describe(d *device.Device) {
	for _, node := range n.nodes {
		if node.Block {
			d.Nodes = append(d.Nodes, node)
		}
	}
	if n.size > 0 {
		d.Capacities = []device.Capacity{{Name: "size", Amount: uint64(n.size), Bytes: true}}
	}
	if n.blockSize > 0 {
		d.Set("blockSize", device.Number(n.blockSize))
	}
	// Cut off it would no longer be unique: the number of the namespace is at its end.
	if n.wwid != "" && device.Shorten(n.wwid) == n.wwid {
		d.Set("wwid", device.Text(n.wwid))
	}
}
