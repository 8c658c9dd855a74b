package profile

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology"
)

// dlb is the family of load balancers, whose physical function divides what it has among
// the virtual ones, by files vf<index>_resources/*. It can do so only before a virtual
// function has its driver, which then locks them.
type dlb struct{ sriov }

func (d dlb) want(f function, p v1alpha1.Profile) (Settings, error) {
	want, err := d.sriov.want(f, p)
	if err != nil || len(p.Resources) == 0 {
		return want, err
	}
	if p.ProbeVirtualFunctions == nil {
		want[autoprobe] = "1" // It is switched off for a while, and not to be forgotten.
	}
	for i := range *p.VirtualFunctions {
		if _, err := d.virtual(f, i); err != nil {
			return nil, err
		}
		for name, n := range p.Resources {
			want[resource(i, name)] = strconv.Itoa(n)
		}
	}
	return want, nil
}

func resource(index int, name string) string { return fmt.Sprintf("vf%d_resources/%s", index, name) }

// virtual is the address that a virtual function has or will have.
func (dlb) virtual(f function, index int) (topology.PCIAddress, error) {
	offset, ok := f.Int(f.dir() + "sriov_offset")
	stride, isKnown := f.Int(f.dir() + "sriov_stride")
	if !ok || !isKnown {
		return topology.PCIAddress{}, &UnfitError{f.address(), f.dir() + "sriov_offset", "the addresses of its virtual functions are not known", "use a newer kernel"}
	}
	a := f.Address
	id := int64(a.Bus)<<8 + int64(a.Device)<<3 + int64(a.Function) + offset + int64(index)*stride
	a.Bus, a.Device, a.Function = uint8(id>>8), uint8(id>>3&0x1f), uint8(id&7) //nolint:gosec // the parts of a number of 16 bits
	return a, nil
}

// read adds the resources of all virtual functions, which are lost with them, and what is
// changed in between.
func (d dlb) read(f function, wanted Settings) Settings {
	s := d.sriov.read(f, wanted)
	if _, counts := wanted[numVFs]; !counts {
		return s
	}
	maps.Copy(s, f.readAll(autoprobe))
	n, _ := f.Int(f.dir() + numVFs)
	for i := range int(n) {
		for _, name := range v1alpha1.LoadBalancerResources {
			if value, ok := f.Read(f.dir() + resource(i, name)); ok {
				s[resource(i, name)] = value
			}
		}
	}
	return s
}

func (dlb) appears(name string) bool { return strings.HasPrefix(name, "vf") }

func (d dlb) writes(f function, now, want Settings) []Write {
	n, _ := strconv.Atoi(want[numVFs])
	var resources writes
	changed := false
	for i := range n {
		for _, name := range v1alpha1.LoadBalancerResources {
			setting := resource(i, name)
			if value, ok := want[setting]; ok {
				resources.add(f.dir()+setting, value, fmt.Sprintf("give virtual function %d its part", i))
				changed = changed || now[setting] != value
			}
		}
	}
	if !changed {
		return d.sriov.writes(f, now, want)
	}
	// Everything is done anew, without a driver in between.
	var list writes
	if now[numVFs] != "0" {
		list.add(f.dir()+numVFs, "0", "switch the virtual functions off")
	}
	if now[autoprobe] != "0" {
		list.add(f.dir()+autoprobe, "0", "give virtual functions no driver yet")
	}
	list.add(f.dir()+numVFs, want[numVFs], "switch the virtual functions on")
	list = append(list, resources...)
	if want[autoprobe] != "1" {
		return list
	}
	list.add(f.dir()+autoprobe, "1", "let drivers take virtual functions")
	for i := range n {
		if vf, err := d.virtual(f, i); err == nil {
			list.add("sys/bus/pci/drivers/"+f.Driver+"/bind", vf.String(), "give the virtual function its driver")
		}
	}
	return list
}
