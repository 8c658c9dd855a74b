package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// EnsureBridge makes the bridge exist, up and with this address. The bridge is
// the node's own network: it reaches nothing beyond this host.
func EnsureBridge(name string, address netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if notFound(err) {
		if err := addBridge(name, address); err != nil {
			return err
		}
		link, err = netlink.LinkByName(name)
	}
	if err != nil {
		return fmt.Errorf("find the bridge %s: %w", name, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("the interface %s exists and is a %s, not a bridge: remove it, or use another --state folder", name, link.Type())
	}
	want := &netlink.Addr{IPNet: &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), address.Addr().BitLen())}}
	have, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("read the addresses of %s: %w", name, err)
	}
	present := false
	for _, a := range have {
		if a.Equal(*want) {
			present = true
		} else if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove the address %v of %s: %w", a.IPNet, name, err)
		}
	}
	if !present {
		if err := netlink.AddrAdd(link, want); err != nil {
			return fmt.Errorf("give %s the address %v: %w", name, address, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("switch %s on: %w", name, err)
	}
	return nil
}

func addBridge(name string, address netip.Prefix) error {
	used, err := Reaches(address)
	if err != nil {
		return err
	}
	if used {
		return fmt.Errorf("the pod network %v overlaps a network that this host reaches already: choose another with --pod-cidr", address.Masked())
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = name
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add the bridge %s (needs root and the kernel's bridge support: modprobe bridge): %w", name, err)
	}
	return nil
}

// EnsureLocalRoute makes address one of this host's own, so that a program can
// listen there. Who connects to it from this host does so with the bridge's
// address: with address itself, the answers of a virtual machine that has it
// too would stay in the machine. The route goes with the bridge.
func EnsureLocalRoute(bridge string, address, source netip.Addr) error {
	route, err := localRoute(bridge, address, source)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route %v to this host itself: %w", address, err)
	}
	return nil
}

// RemoveLocalRoute takes back what EnsureLocalRoute did, if it did.
func RemoveLocalRoute(bridge string, address, source netip.Addr) error {
	route, err := localRoute(bridge, address, source)
	if notFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := netlink.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the route of %v: %w", address, err)
	}
	return nil
}

func localRoute(bridge string, address, source netip.Addr) (*netlink.Route, error) {
	link, err := netlink.LinkByName(bridge)
	if err != nil {
		return nil, fmt.Errorf("find the bridge %s: %w", bridge, err)
	}
	return &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(32, 32)},
		Src:       source.AsSlice(),
		Type:      unix.RTN_LOCAL,
		Table:     unix.RT_TABLE_LOCAL,
		Scope:     netlink.SCOPE_HOST,
	}, nil
}

// Reaches tells whether the host has a route, other than the default one, into
// the network, or an address of its own in it.
func Reaches(network netip.Prefix) (bool, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return false, fmt.Errorf("read the routes: %w", err)
	}
	local, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return false, fmt.Errorf("read the host's own addresses: %w", err)
	}
	for _, r := range append(routes, local...) {
		if r.Dst == nil {
			continue
		}
		if used, err := netip.ParsePrefix(r.Dst.String()); err == nil && used.Bits() > 0 && used.Overlaps(network.Masked()) {
			return true, nil
		}
	}
	return false, nil
}

// RemoveBridge removes the bridge and what is plugged into it. It returns the
// names of what was removed.
func RemoveBridge(name string) ([]string, error) {
	bridge, err := netlink.LinkByName(name)
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the bridge %s: %w", name, err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	var removed []string
	for _, l := range links {
		// Only what the bridge plugin makes: an interface that somebody
		// else put there is theirs.
		if l.Attrs().MasterIndex != bridge.Attrs().Index || l.Type() != "veth" || !strings.HasPrefix(l.Attrs().Name, "veth") {
			continue
		}
		// The other end goes at the same moment when its network namespace
		// does.
		if err := netlink.LinkDel(l); err != nil && !notFound(err) && !gone(l.Attrs().Index) {
			return removed, fmt.Errorf("remove the interface %s: %w", l.Attrs().Name, err)
		}
		removed = append(removed, l.Attrs().Name)
	}
	if err := netlink.LinkDel(bridge); err != nil && !notFound(err) {
		return removed, fmt.Errorf("remove the bridge %s: %w", name, err)
	}
	return append(removed, name), nil
}

func notFound(err error) bool {
	var e netlink.LinkNotFoundError
	return errors.As(err, &e)
}

func gone(index int) bool {
	_, err := netlink.LinkByIndex(index)
	return notFound(err)
}
