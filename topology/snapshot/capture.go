package snapshot

import (
	"errors"
	"io/fs"
	"path"
	"reflect"
	"strings"

	"github.com/topolet/topolet/topology"
)

// errDiffers has no remedy on the user's side, but it names what to look at.
var errDiffers = errors.New("the snapshot would describe another machine than this one: " +
	"one of its files is not as any known kernel writes it; compare the output of topolet topology with lstopo's")

const (
	pciDir    = "sys/bus/pci/devices"
	driverDir = "sys/bus/pci/drivers"
	groupDir  = "sys/kernel/iommu_groups"
)

// Capture returns the part of the machine's files that [topology.Discover] reads.
// Its error is that of discovery, unless a snapshot would not tell the same.
func Capture(root fs.FS) (*Tree, error) {
	r := newRecorder(root)
	seen, err := topology.Discover(r)
	if err != nil {
		return nil, err
	}
	c := capture{recorder: r, tree: NewTree(), places: map[string]string{}}
	c.takePCIEntries()
	c.takeDirs()
	c.takeFiles()
	c.takeLinks()
	again, err := topology.Discover(c.tree)
	if err != nil || !reflect.DeepEqual(seen, again) {
		return nil, errDiffers
	}
	return c.tree, nil
}

// capture is a snapshot in the making.
type capture struct {
	*recorder
	tree *Tree
	// places are where the entries of sys/bus/pci/devices lead, in the snapshot.
	places map[string]string
}

// takePCIEntries writes the entries of the PCI functions. Where one is a link to
// a place in the PCIe tree, it stays one.
func (c *capture) takePCIEntries() {
	for name := range c.exist {
		address, isEntry := strings.CutPrefix(name, pciDir+"/")
		if !isEntry || !isPCIAddress(address) {
			continue
		}
		place, ok := placeOf(c.links[name], address)
		if !ok {
			c.places[name] = name
			c.tree.Dir(name)
			continue
		}
		c.places[name] = place
		c.tree.Dir(place)
		c.link(name, place)
	}
}

// placeOf returns the link's path in the PCIe tree, from the first root on: what
// is before it has names of platforms in it, and the GUIDs of virtual machines.
func placeOf(target, address string) (string, bool) {
	parts := []string{"sys/devices"}
	inTree := false
	for part := range strings.SplitSeq(path.Clean(target), "/") {
		inTree = inTree || isPCIRoot(part)
		if inTree && (isPCIRoot(part) || isPCIAddress(part)) {
			parts = append(parts, part)
		}
	}
	return path.Join(parts...), parts[len(parts)-1] == address && path.Base(target) == address
}

// placed returns the name that a file has in the snapshot.
func (c *capture) placed(name string) string {
	if inside, ok := strings.CutPrefix(name, pciDir+"/"); ok {
		address, file, _ := strings.Cut(inside, "/")
		if place, ok := c.places[pciDir+"/"+address]; ok {
			return path.Join(place, file)
		}
	}
	// The files of a root's bus are below the root, wherever that is.
	if at := strings.Index(name, "/pci_bus/"); at >= 0 {
		if root := path.Base(name[:at]); isPCIRoot(root) {
			return "sys/devices/" + root + name[at:]
		}
	}
	return name
}

// takeDirs writes the directories whose being there counts.
func (c *capture) takeDirs() {
	for name := range c.exist {
		if anyMatch(dirRules(), name) {
			c.tree.Dir(name)
		}
	}
}

// takeFiles writes what the rules understand of the files.
func (c *capture) takeFiles() {
	for name, content := range c.files {
		placed := c.placed(name)
		for _, rule := range fileRules() {
			if !rule.path.MatchString(placed) {
				continue
			}
			if text, ok := rule.clean(trim(content)); ok {
				c.tree.File(placed, text+"\n")
			}
			break
		}
	}
}

// takeLinks writes the links that are read for their last part.
func (c *capture) takeLinks() {
	for name, target := range c.links {
		last := path.Base(target)
		switch file := path.Base(name); {
		case !strings.HasPrefix(name, pciDir+"/") || target == "":
		case file == "driver" && driverName.MatchString(last):
			c.link(c.placed(name), driverDir+"/"+last)
		case file == "iommu_group" && decimal.MatchString(last):
			c.link(c.placed(name), groupDir+"/"+last)
		case file == "physfn" && isPCIAddress(last):
			// A name beside the function's own: the place may be anywhere.
			c.tree.Link(c.placed(name), "../"+last)
		}
	}
}

// link writes a link that leads to another name in the snapshot, and not out of
// it, wherever the snapshot is unpacked.
func (c *capture) link(name, to string) {
	up := strings.Repeat("../", strings.Count(name, "/"))
	c.tree.Link(name, up+to)
}
