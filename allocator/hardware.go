package allocator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/topolet/topolet/topology/device"
)

// Hardware is what a part of a grant has of a device other than CPUs and memory. It is
// kept with the grant: what a claim holds does not depend on whether the machine shows
// the device at the moment.
type Hardware struct {
	Family string `json:"family"`
	// Address is the PCI function's; empty for what has none.
	Address string     `json:"address,omitempty"`
	Use     device.Use `json:"use,omitzero"`
	// Nodes and Links are those that the claim's containers get.
	Nodes []device.Node `json:"nodes,omitempty"`
	Links []device.Link `json:"links,omitempty"`
	// Mounts are the host's folders that they see.
	Mounts []device.Mount `json:"mounts,omitempty"`
	// Hooks are the programs that are run before they start.
	Hooks []device.Hook `json:"hooks,omitempty"`
	// Variables are those of the containers' environment.
	Variables []device.Variable `json:"variables,omitempty"`
	// Interfaces are the network interfaces, by the host's names, that are theirs alone.
	Interfaces []string `json:"interfaces,omitempty"`
	// Handover is there for a function that changes its driver for the claim.
	Handover *Handover `json:"handover,omitempty"`
}

// Amount is how much a request takes of a capacity of a shared device.
type Amount struct {
	Name   string `json:"name"`
	Amount uint64 `json:"amount"`
}

// IsCPUs tells the name of a domain of CPUs from those of memory and of other devices,
// also where the machine no longer has it.
func IsCPUs(domain string) bool {
	for _, l := range []Level{NUMALevel, L3Level, SocketLevel} {
		if strings.HasPrefix(domain, string(l)+"-") {
			return true
		}
	}
	return domain == string(MachineLevel) || strings.HasPrefix(domain, string(MachineLevel)+"-")
}

// Device returns the device of that name, which is neither CPUs nor memory.
func (inv *Inventory) Device(name string) (*device.Device, bool) {
	i := slices.IndexFunc(inv.Devices, func(d device.Device) bool { return d.Name == name })
	if i < 0 {
		return nil, false
	}
	return &inv.Devices[i], true
}

// withDevices is the inventory with other devices beside its CPUs and memory.
func (inv *Inventory) withDevices(devices []device.Device) *Inventory {
	with := *inv
	with.Devices = devices
	return &with
}

// ReplaceDevices puts the devices that the machine has now in the place of those it had.
// Grants keep what they hold.
func (l *Ledger) ReplaceDevices(devices []device.Device) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inventory = l.inventory.withDevices(devices)
}

// hardware is what a request gets of a device.
func hardware(d *device.Device, r Request) *Hardware {
	h := &Hardware{Family: d.Family, Address: d.Address}
	if !r.Admin {
		h.Use, h.Interfaces = d.Use, d.Interfaces
		h.Hooks = ofRoles(d.Hooks, func(k device.Hook) string { return k.Role }, r)
		if d.Managed {
			h.Handover = &Handover{}
		}
	}
	h.Nodes = wanted(d.Nodes, r)
	h.Links = ofRoles(d.Links, func(l device.Link) string { return l.Role }, r)
	h.Mounts = ofRoles(d.Mounts, func(m device.Mount) string { return m.Role }, r)
	h.Variables = ofRoles(d.Variables, func(v device.Variable) string { return v.Role }, r)
	return h
}

// wanted are the nodes that a request gets.
func wanted(nodes []device.Node, r Request) []device.Node {
	return ofRoles(nodes, func(n device.Node) string { return n.Role }, r)
}

// ofRoles are those of a device's things that every request gets, and those of the
// request's roles.
func ofRoles[T any](all []T, role func(T) string, r Request) []T {
	var list []T
	for _, thing := range all {
		if name := role(thing); name == "" || slices.Contains(r.Roles, name) {
			list = append(list, thing)
		}
	}
	return list
}

// environment is that of a container with this hardware, which may come from several
// claims.
func environment(hardware []*Hardware) []device.Variable {
	slices.SortStableFunc(hardware, func(a, b *Hardware) int { return cmp.Compare(a.Address, b.Address) })
	var all []device.Variable
	for _, h := range hardware {
		all = append(all, h.Variables...)
	}
	return device.Environment(all)
}

// takes returns an error unless the device can be given to the request beside what the
// parts hold.
func takes(d *device.Device, r Request, held []Part) error {
	switch {
	case r.Admin:
		return nil
	case d.Personality == device.Monitor:
		return &MonitorError{Device: d.Name}
	case d.Tainted(device.DriverLost):
		// Who tolerates the taint would get a container without the device.
		return &DriverLostError{Device: d.Name, Driver: d.Driver}
	}
	for _, p := range held {
		switch {
		case p.Hardware == nil || p.Admin:
		case p.Domain == d.Name && d.Shared:
		case p.Domain == d.Name || p.Hardware.Use.Excludes(d.Use):
			return &DeviceInUseError{Device: d.Name, Holder: p.Domain}
		}
	}
	for _, wanted := range r.Amounts {
		free := uint64(0)
		for _, c := range d.Capacities {
			if c.Name == wanted.Name {
				free = c.Amount
			}
		}
		for _, p := range held {
			if p.Domain == d.Name && !p.Admin {
				free -= min(free, amountOf(p.Amounts, wanted.Name))
			}
		}
		if wanted.Amount > free && d.Shared {
			return &InsufficientCapacityError{Device: d.Name, Requested: wanted, Free: free}
		}
	}
	return nil
}

func amountOf(amounts []Amount, name string) uint64 {
	for _, a := range amounts {
		if a.Name == name {
			return a.Amount
		}
	}
	return 0
}

// refreshed is a grant with the nodes that its devices have now: after a boot the kernel
// may number them in another way. What is not there stays as it was, and what changes its
// driver for the claim has the nodes that it had when it did.
func (inv *Inventory) refreshed(g Grant) (Grant, bool) {
	changed := false
	for i, p := range g.Parts {
		d, ok := inv.Device(p.Domain)
		if p.Hardware == nil || !ok || p.Hardware.Handover != nil {
			continue
		}
		now := hardware(d, p.Request)
		now.Handover = nil // the claim is from before its family was managed
		if len(now.Interfaces) == 0 {
			now.Interfaces = p.Hardware.Interfaces // they are with the claim's pod
		}
		if len(now.Nodes) == 0 {
			// Its driver is lost at the moment: nodes that cannot be opened are better than a
			// container that does not know.
			now.Nodes, now.Links, now.Mounts, now.Variables = p.Hardware.Nodes, p.Hardware.Links, p.Hardware.Mounts, p.Hardware.Variables
			now.Hooks = p.Hardware.Hooks
		}
		if slices.Equal(now.Nodes, p.Hardware.Nodes) && slices.Equal(now.Links, p.Hardware.Links) &&
			slices.Equal(now.Mounts, p.Hardware.Mounts) && slices.Equal(now.Hooks, p.Hardware.Hooks) && slices.Equal(now.Variables, p.Hardware.Variables) && slices.Equal(now.Interfaces, p.Hardware.Interfaces) {
			continue
		}
		if !changed {
			g.Parts = slices.Clone(g.Parts)
			changed = true
		}
		g.Parts[i].Hardware = now
	}
	return g, changed
}

// Interfaces returns the network interfaces of a container's claims, by the host's names.
func (l *Ledger) Interfaces(id ContainerID) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.containers.get(id)
	if !ok {
		return nil
	}
	var names []string
	for p := range l.parts(&c.Container) {
		if p.Hardware != nil {
			names = append(names, p.Hardware.Interfaces...)
		}
	}
	return names
}

// HardwareOf returns what the grant has of devices for one request, or for all of them
// with the empty name.
func (g Grant) HardwareOf(request string) []Hardware {
	var list []Hardware
	for _, p := range g.Parts {
		if p.Hardware != nil && (request == "" || p.Name == request) {
			list = append(list, *p.Hardware)
		}
	}
	return list
}

// DeviceInUseError says that a device, or another face of the same hardware, belongs to
// a claim already.
type DeviceInUseError struct {
	Device string
	// Holder is the device that the other claim has.
	Holder string
}

func (e *DeviceInUseError) Error() string {
	return fmt.Sprintf("device %s cannot be given away: another claim has device %s, which is the same hardware: "+
		"delete the pod, so that the scheduler allocates anew", e.Device, e.Holder)
}

// InsufficientCapacityError says that a shared device has too little of a capacity left.
type InsufficientCapacityError struct {
	Device    string
	Requested Amount
	Free      uint64
}

func (e *InsufficientCapacityError) Error() string {
	return fmt.Sprintf("device %s: %d of %s requested, %d free", e.Device, e.Requested.Amount, e.Requested.Name, e.Free)
}

// DriverLostError says that a device cannot be used, because its driver is not bound or
// not working.
type DriverLostError struct {
	Device, Driver string
}

func (e *DriverLostError) Error() string {
	return fmt.Sprintf("device %s cannot be given away: driver %s does not serve it: bind the driver, or look into the kernel's log; it is tried again",
		e.Device, e.Driver)
}

// MonitorError says that a claim without admin access got a device that is for looking at.
type MonitorError struct {
	Device string
}

func (e *MonitorError) Error() string {
	return fmt.Sprintf("device %s is for monitoring: ask for it with adminAccess", e.Device)
}
