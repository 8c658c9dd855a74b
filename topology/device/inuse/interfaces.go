package inuse

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// Interfaces returns the directories of the network interfaces of a function, be they
// its own or those of a bus below it, such as virtio's.
func (w *Hardware) Interfaces(f topology.PCIFunction) []string {
	dirs := slices.Clone(w.places()[f.Address].own)
	for _, name := range w.h.Entries(device.Dir(f) + "net") {
		if !slices.Contains(dirs, "sys/class/net/"+name) {
			dirs = append(dirs, device.Dir(f)+"net/"+name)
		}
	}
	return dirs
}

// Interface tells how the host uses a network interface: "eth0 has the default route";
// empty if it does not. The interface is given by its directory.
func (w *Hardware) Interface(dir string) (string, error) {
	dir = strings.TrimSuffix(dir, "/")
	up, err := w.uplinks()
	if err != nil {
		return "", fmt.Errorf("the default routes are not known: %w", err)
	}
	name := base(dir)
	if up[name] {
		return name + " has the default route", nil
	}
	for _, entry := range w.h.Entries(dir) {
		// The kernel links an interface to all that are stacked upon it: bonds and
		// bridges, its masters, but VLANs and the like as well.
		upper, isUpper := strings.CutPrefix(entry, "upper_")
		switch {
		case isUpper:
			return name + " is below " + upper, nil
		case entry == "master", entry == "brport":
			return name + " is a port of another interface", nil
		}
	}
	return "", nil
}

// uplinks are the names of interfaces with a default route.
type uplinks map[string]bool

func (w *Hardware) readUplinks() (uplinks, error) {
	u := uplinks{}
	if err := w.lines("Iface", u.route, "proc/1/net/route", "proc/net/route"); err != nil {
		return nil, err
	}
	// A kernel may be without IPv6.
	if err := w.lines("", u.route6, "proc/1/net/ipv6_route", "proc/net/ipv6_route"); !errors.Is(err, fs.ErrNotExist) {
		return u, err
	}
	return u, nil
}

var (
	hexWord    = regexp.MustCompile(`^[0-9A-Fa-f]{8}$`)
	hexAddress = regexp.MustCompile(`^[0-9a-f]{32}$`)
	hexByte    = regexp.MustCompile(`^[0-9a-f]{2}$`)
)

// route reads a line of route: a table with the interface, the destination and, in the
// eighth column, its mask. Both are zero in a default route.
func (u uplinks) route(line string) bool {
	fields := strings.Fields(line)
	if len(fields) < 8 || !hexWord.MatchString(fields[1]) || !hexWord.MatchString(fields[7]) {
		return false
	}
	if strings.Trim(fields[1]+fields[7], "0") == "" {
		u[fields[0]] = true
	}
	return true
}

// route6 reads a line of ipv6_route: destination, its prefix length, source, its
// prefix length, next hop, metric, two counts, flags, and the interface.
func (u uplinks) route6(line string) bool {
	fields := strings.Fields(line)
	if len(fields) != 10 || !hexAddress.MatchString(fields[0]) || !hexByte.MatchString(fields[1]) {
		return false
	}
	if strings.Trim(fields[0]+fields[1], "0") == "" {
		u[fields[9]] = true
	}
	return true
}
