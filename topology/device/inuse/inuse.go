// Package inuse tells which disks and network interfaces the host uses itself, so that
// nobody is given the hardware behind them.
//
// The kernel has no list of that. What there is are signs: a disk is mounted, swapped to
// or a part of another block device; an interface has the default route or belongs to
// another interface. Most of them are in files below proc. Where those cannot be read or
// understood there is no answer but an error, and whoever asks has to take the hardware
// for used.
//
// Not every use leaves a sign in a file. A program that has opened a disk, a ZFS pool
// and an inactive LVM volume leave none, and the second path of a default route with
// several is shown for IPv6 only.
package inuse

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"sync"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// Hardware is a host's. Files are read when they are first needed, and once. It is not
// safe for concurrent use.
type Hardware struct {
	h       *device.Host
	mounts  func() (mounts, error)
	uplinks func() (uplinks, error)
	places  func() map[topology.PCIAddress]place
}

// place is what is reached through a PCI function: directories of block devices and of
// network interfaces.
type place struct {
	disks, interfaces []string
	// own are the interfaces without those of functions behind this one.
	own []string
}

// Of returns the hardware of a host.
func Of(h *device.Host) *Hardware {
	w := &Hardware{h: h}
	w.mounts = sync.OnceValues(w.readMounts)
	w.uplinks = sync.OnceValues(w.readUplinks)
	w.places = sync.OnceValue(w.findPlaces)
	return w
}

// Function tells how the host uses a PCI function, functions behind it or its virtual
// functions: "sda1 is mounted". It is empty if the host does not use them, or has
// neither disks nor interfaces there.
func (w *Hardware) Function(f topology.PCIFunction) (string, error) {
	functions := []topology.PCIFunction{f}
	if f.SRIOV != nil {
		for _, vf := range f.SRIOV.VFs {
			functions = append(functions, w.h.Machine.PCI.Functions[vf])
		}
	}
	for _, f := range functions {
		for _, dir := range w.places()[f.Address].disks {
			if use, err := w.Disk(dir); use != "" || err != nil {
				return use, err
			}
		}
		for _, dir := range append(w.Interfaces(f), w.places()[f.Address].interfaces...) {
			if use, err := w.Interface(dir); use != "" || err != nil {
				return use, err
			}
		}
	}
	return "", nil
}

// findPlaces sorts the entries of the classes block and net by the functions that their
// links lead through: ../../devices/pci0000:00/0000:00:17.0/ata1/…/block/sda.
func (w *Hardware) findPlaces() map[topology.PCIAddress]place {
	places := map[topology.PCIAddress]place{}
	for _, name := range w.h.Entries("sys/class/block") {
		dir := "sys/class/block/" + name
		// What is hidden has no node, so it cannot be used; a path to an NVMe namespace
		// that has several is such.
		if hidden, _ := w.h.Read(dir + "/hidden"); hidden == "1" {
			continue
		}
		target, _ := w.h.Link(dir)
		for _, a := range append(functionsOn(target), w.controllersOf(target)...) {
			p := places[a]
			p.disks = append(p.disks, dir)
			places[a] = p
		}
	}
	for _, name := range w.h.Entries("sys/class/net") {
		dir := "sys/class/net/" + name
		target, _ := w.h.Link(dir)
		on := functionsOn(target)
		for i, a := range on {
			p := places[a]
			p.interfaces = append(p.interfaces, dir)
			if i == len(on)-1 {
				p.own = append(p.own, dir)
			}
			places[a] = p
		}
	}
	return places
}

// functionsOn returns the addresses on a path, bridges' too.
func functionsOn(target string) []topology.PCIAddress {
	var found []topology.PCIAddress
	for name := range strings.SplitSeq(target, "/") {
		if a, err := topology.ParsePCIAddress(name); err == nil {
			found = append(found, a)
		}
	}
	return found
}

// head is the disk of an NVMe namespace with several paths, or a partition of it.
var head = regexp.MustCompile(`/nvme-subsystem/nvme-subsys(\d+)/nvme\d+n(\d+)(/|$)`)

// controllersOf returns the functions on the paths to such a namespace. The disk's own
// place in the tree of devices does not tell, but its subsystem has links to the
// controllers, and those that have the namespace have a hidden disk of it.
func (w *Hardware) controllersOf(target string) []topology.PCIAddress {
	m := head.FindStringSubmatch(target)
	if m == nil {
		return nil
	}
	var found []topology.PCIAddress
	subsystem := "sys/devices/virtual/nvme-subsystem/nvme-subsys" + m[1]
	for _, controller := range w.h.Child(subsystem, "nvme") {
		link := subsystem + "/" + controller
		way := fmt.Sprintf("%s/nvme%sc%sn%s", link, m[1], strings.TrimPrefix(controller, "nvme"), m[2])
		if target, isLink := w.h.Link(link); isLink && w.h.Exists(way) {
			found = append(found, functionsOn(target)...)
		}
	}
	return found
}

// lines has a file parsed line by line, of which there are several views: that of the
// host's first process, and that of this one, which may see other mounts and networks.
// What is in either counts. A view that is missing or not for us does not, unless it is
// the only one; the error is fs.ErrNotExist if there is none. A file that should have a
// heading and has none is not the kernel's: container runtimes hide files by empty ones.
func (w *Hardware) lines(heading string, parse func(line string) bool, names ...string) error {
	var trouble error
	seen := false
	for _, name := range names {
		text, err := w.h.ReadLong(name)
		switch {
		case err == nil:
			seen = true
		case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist) && trouble == nil:
			trouble = err
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if err == nil && !strings.HasPrefix(text, heading) {
			return fmt.Errorf("%s does not begin with %q", name, heading)
		}
		for line := range strings.Lines(text) {
			if isHeading := heading != "" && strings.HasPrefix(line, heading); !isHeading && !parse(line) {
				return fmt.Errorf("%s has the line %q", name, strings.TrimSpace(line))
			}
		}
	}
	if !seen {
		return fmt.Errorf("none of %s can be read: %w", strings.Join(names, ", "), trouble)
	}
	return nil
}

func base(dir string) string { return path.Base(strings.TrimSuffix(dir, "/")) }
