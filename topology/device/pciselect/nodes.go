package pciselect

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/inuse"
)

// maxDepth is how far below a function device nodes are looked for. Drivers put them two
// or three directories deep; buses between driver and device need some more.
const maxDepth = 6

// nodesBelow returns the device nodes of what is below a function: character devices, and
// the block devices that are allowed. It is an error if there are none, or if the host
// uses one of the disks, be it allowed or not.
func nodesBelow(h *device.Host, hardware *inuse.Hardware, dir string, allowed []string) ([]device.Node, error) {
	var found []device.Node
	for _, dir := range childrenOf(h, dir, maxDepth) {
		block := isBlock(h, dir)
		n, ok := h.Node(dir, block)
		if block {
			switch use, err := hardware.Disk(dir); {
			case err != nil:
				return nil, fmt.Errorf("the host may use it: %w", err)
			case use != "":
				return nil, fmt.Errorf("the host uses it: %s", use)
			}
		}
		if ok && (!block || isAllowed(n, allowed)) {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("its driver has made no device nodes, or none that are allowed")
	}
	return found, nil
}

// childrenOf returns the directories of devices with a node below one. What is below
// another function is not the function's, and links lead away from it.
func childrenOf(h *device.Host, dir string, depth int) []string {
	if depth == 0 {
		return nil
	}
	var found []string
	for _, entry := range h.Entries(dir) {
		child := dir + "/" + entry
		if _, err := topology.ParsePCIAddress(entry); err == nil {
			continue
		}
		if _, isLink := h.Link(child); isLink {
			continue
		}
		if h.Exists(child + "/dev") {
			found = append(found, child)
		}
		found = append(found, childrenOf(h, child, depth-1)...)
	}
	return found
}

// isBlock tells block devices from character devices, by their class or, as all of them
// are of one of two types, by that.
func isBlock(h *device.Host, dir string) bool {
	if class, ok := h.Link(dir + "/subsystem"); ok {
		return path.Base(class) == "block"
	}
	uevent, _ := h.Read(dir + "/uevent")
	for line := range strings.Lines(uevent) {
		switch strings.TrimSpace(line) {
		case "DEVTYPE=disk", "DEVTYPE=partition":
			return true
		}
	}
	return false
}

func isAllowed(n device.Node, allowed []string) bool {
	for _, pattern := range allowed {
		if ok, err := path.Match(pattern, strings.TrimPrefix(n.Path, "/dev/")); ok && err == nil {
			return true
		}
	}
	return false
}
