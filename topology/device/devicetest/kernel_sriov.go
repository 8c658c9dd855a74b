package devicetest

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/topolet/topolet/topology"
)

// SR-IOV (drivers/pci/iov.c, and of QAT qat_common/adf_sriov.c).

func (k *Kernel) storeVFs(pf Function, text string) error {
	n, err := strconv.ParseUint(text, 0, 16)
	if err != nil {
		return syscall.EINVAL
	}
	have := k.number(pf.Path+"/sriov_numvfs", 0)
	want, total := int(n), k.number(pf.Path+"/sriov_totalvfs", 0)
	d, ok := k.loaded(pf.Driver)
	switch {
	case want > total:
		return syscall.ERANGE
	case want == have:
		return nil
	case !ok || !d.VFs:
		return syscall.ENOENT
	case want > 0 && have > 0:
		return syscall.EBUSY
	}
	isQAT := k.exists(pf.Path + "/qat/state")
	switch {
	case want == 0:
		k.removeVFs(pf, pf.Address())
	case isQAT && pf.Group < 0:
		return syscall.EINVAL
	case isQAT: // all or none, by the design of the hardware
		err = k.addVFs(pf, total)
	default:
		err = k.addVFs(pf, want)
	}
	if err == nil && isQAT {
		k.set(pf.Path+"/qat/state", "up") // it restarts the device
	}
	return err
}

// addVFs switches virtual functions on. Each is bound to a driver that is for it.
func (k *Kernel) addVFs(pf Function, n int) error {
	first, err := topology.ParsePCIAddress(pf.Address())
	if err != nil {
		return syscall.EIO
	}
	offset, stride := k.number(pf.Path+"/sriov_offset", 1), k.number(pf.Path+"/sriov_stride", 1)
	k.set(pf.Path+"/sriov_numvfs", strconv.Itoa(n))
	for i := range n {
		vf := pf
		vf.Path = path.Dir(pf.Path) + "/" + routed(first, offset+stride*i).String()
		vf.Driver = ""
		if id, err := strconv.ParseUint(k.get(pf.Path+"/sriov_vf_device"), 16, 16); err == nil {
			vf.Device = uint16(id)
		}
		if pf.Group >= 0 {
			vf.Group = k.freeGroup()
		}
		k.Add(vf)
		if k.exists(pf.Path + "/reset") {
			k.File(vf.Path+"/reset", "")
		}
		k.Virtual(pf, vf, i)
		for _, d := range k.drivers {
			if k.matches(d.Name, vf) && k.probe(d.Name, vf) == nil {
				break
			}
		}
	}
	return nil
}

// routed is the address that many functions further: the bus is counted on.
func routed(a topology.PCIAddress, by int) topology.PCIAddress {
	id := int(a.Bus)<<8 | int(a.Device)<<3 | int(a.Function)
	id += by
	a.Bus, a.Device, a.Function = uint8(id>>8), uint8(id>>3&0x1f), uint8(id&7) //nolint:gosec // cut on purpose
	return a
}

func (k *Kernel) freeGroup() int {
	n := 0
	for k.exists(fmt.Sprintf("/sys/kernel/iommu_groups/%d", n)) {
		n++
	}
	return n
}

// removeVFs switches all virtual functions off, one after the other. It blocks while a
// vfio driver does not let go of one; locked are the functions that are locked as well.
func (k *Kernel) removeVFs(pf Function, locked ...string) {
	links := slices.DeleteFunc(k.entries(pf.Path), func(name string) bool { return !strings.HasPrefix(name, "virtfn") })
	slices.SortFunc(links, func(a, b string) int {
		return number(strings.TrimPrefix(a, "virtfn"), 0) - number(strings.TrimPrefix(b, "virtfn"), 0)
	})
	for _, name := range links {
		vf, ok := k.settled(path.Base(k.link(pf.Path + "/" + name)))
		k.Remove(pf.Path + "/" + name)
		if !ok {
			continue
		}
		k.Remove(vf.Path + "/physfn")
		if vf.Driver != "" {
			k.release(vf, locked...)
		}
		k.Remove("/sys/bus/pci/devices/" + vf.Address())
		if vf.Group >= 0 {
			group := fmt.Sprintf("/sys/kernel/iommu_groups/%d", vf.Group)
			k.Remove(group + "/devices/" + vf.Address())
			if len(k.entries(group+"/devices")) == 0 {
				k.Remove(group)
			}
		}
		k.Remove(vf.Path)
	}
	if k.exists(pf.Path + "/sriov_numvfs") {
		k.set(pf.Path+"/sriov_numvfs", "0")
	}
}
