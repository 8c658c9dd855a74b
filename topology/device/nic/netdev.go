package nic

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/topolet/topolet/topology/device"
)

// linkTypes are by the numbers of the kernel's header if_arp.h.
var linkTypes = map[int64]string{1: "ethernet", 32: "infiniband"}

var hardwareAddress = regexp.MustCompile(`^[0-9a-f]{2}(:[0-9a-f]{2})+$`)

// describeInterfaces adds what there is to know of a function's interfaces, of which the
// first stands for all; ok is false if there is none. The files are described in
// Documentation/ABI/testing/sysfs-class-net.
func (family Family) describeInterfaces(h *device.Host, d *device.Device, dirs []string) (ok bool) {
	dirs = slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool { return isRepresentor(h, dir) })
	if len(dirs) == 0 {
		return false
	}
	slices.SortStableFunc(dirs, func(a, b string) int {
		return cmp.Or(cmp.Compare(port(h, a), port(h, b)), cmp.Compare(path.Base(a), path.Base(b)))
	})
	for _, dir := range dirs {
		d.Interfaces = append(d.Interfaces, path.Base(dir))
	}
	first := dirs[0] + "/"
	d.Set("ifName", device.Text(device.Shorten(path.Base(dirs[0]))))
	if mac, _ := h.Read(first + "address"); hardwareAddress.MatchString(mac) && strings.Trim(mac, "0:") != "" {
		d.Set("mac", device.Text(device.Shorten(mac)))
	}
	if kind, ok := h.Int(first + "type"); ok && linkTypes[kind] != "" {
		d.Set("linkType", device.Text(linkTypes[kind]))
	}
	// Without a link the file says -1, or cannot be read.
	if speed, ok := h.Int(first + "speed"); ok && speed > 0 {
		d.Set("speedMbps", device.Number(speed))
	}
	if id, _ := h.Read(first + "phys_switch_id"); id != "" {
		d.Set("switchID", device.Text(device.Shorten(id)))
	}
	for _, dir := range dirs {
		state, err := h.ReadError(dir + "/operstate")
		switch {
		case device.Resetting(err):
			d.Taint(device.InReset, "")
		case family.TaintDown && (state == "down" || state == "lowerlayerdown"):
			d.Taint(device.Unhealthy, "link-down")
		}
	}
	return true
}

// port is the number of the port on the card, for functions that have several.
func port(h *device.Host, dir string) int64 {
	n, _ := h.Int(dir + "/dev_port")
	return n
}

// portOfVirtual is the name of a port behind which a virtual function, or a part of one,
// is: pf0vf3, c1pf0sf88.
var portOfVirtual = regexp.MustCompile(`^(c\d+)?pf\d+(vf|vfr|sf)\d+$`)

// isRepresentor reports whether an interface is the switch's end of a virtual function's
// cable (Documentation/networking/representors.rst). It belongs to who runs the switch.
func isRepresentor(h *device.Host, dir string) bool {
	id, _ := h.Read(dir + "/phys_switch_id")
	name, _ := h.Read(dir + "/phys_port_name")
	return id != "" && portOfVirtual.MatchString(name)
}
