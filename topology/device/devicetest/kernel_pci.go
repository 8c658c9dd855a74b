package devicetest

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/topolet/topolet/topology/device"
)

// The settings of PCI functions and drivers, as drivers/pci/pci-sysfs.c,
// drivers/pci/pci-driver.c and drivers/base/bus.c have them.

// unset is what a driver_override reads without one.
const unset = "(null)"

// pageSize bounds a driver_override, which is printed into one page.
const pageSize = 4096

func (k *Kernel) storeFunction(f Function, file, data string) error {
	text := strings.TrimSuffix(data, "\n")
	switch file {
	case "driver_override":
		return k.storeOverride(f, data)
	case "reset":
		if number(text, 0) != 1 {
			return syscall.EINVAL
		}
		return nil
	case "sriov_numvfs":
		return k.storeVFs(f, text)
	case "sriov_drivers_autoprobe":
		on, err := flag(text)
		if err == nil {
			k.set(f.Path+"/sriov_drivers_autoprobe", digit(on))
		}
		return err
	}
	return syscall.EACCES
}

func (k *Kernel) storeOverride(f Function, data string) error {
	if len(data) >= pageSize-1 {
		return syscall.EINVAL
	}
	name, _, _ := strings.Cut(data, "\n")
	if name == "" {
		name = unset
	}
	k.set(f.Path+"/driver_override", name)
	return nil
}

// override is the driver that alone may be bound to the function; empty if any may.
func (k *Kernel) override(f Function) string {
	if name := k.get(f.Path + "/driver_override"); name != unset {
		return name
	}
	return ""
}

func (k *Kernel) storeDriver(driver, file, text string) error {
	f, ok := k.settled(text)
	switch file {
	case "bind":
		switch {
		case !ok || !k.matches(driver, f):
			return syscall.ENODEV
		case f.Driver != "":
			return syscall.EBUSY
		}
		return k.probe(driver, f)
	case "unbind":
		if !ok || f.Driver != driver {
			return syscall.ENODEV
		}
		k.release(f)
		return nil
	}
	return syscall.EACCES
}

// matches reports whether a driver is for a function. Those for vfio are for none but by
// override.
func (k *Kernel) matches(driver string, f Function) bool {
	if name := k.override(f); name != "" {
		return name == driver
	}
	d, ok := k.loaded(driver)
	return ok && slices.Contains(d.IDs, f.id())
}

func (k *Kernel) loaded(driver string) (Driver, bool) {
	i := slices.IndexFunc(k.drivers, func(d Driver) bool { return d.Name == driver })
	if i < 0 {
		return Driver{}, false
	}
	return k.drivers[i], true
}

// probe binds a driver to a function that has none.
func (k *Kernel) probe(driver string, f Function) error {
	pf, isVF := k.physical(f)
	if isVF && k.get(pf.Path+"/sriov_drivers_autoprobe") == "0" && k.override(f) == "" {
		return syscall.ENODEV
	}
	if device.IsVFIODriver(driver) {
		if err := k.probeVFIO(driver, f); err != nil {
			return err
		}
	} else if d, ok := k.loaded(driver); ok && d.Probe != nil {
		if err := d.Probe(f); err != nil {
			k.clear(f)
			return err
		}
	}
	f.Driver = driver
	k.bind(f)
	return nil
}

// release takes a function from its driver. While a driver for vfio waits for a process,
// the links to it are gone already; others are those whose lock is held as well.
func (k *Kernel) release(f Function, others ...string) {
	others = append(others, f.Address())
	if k.number(f.Path+"/sriov_numvfs", 0) > 0 {
		k.removeVFs(f, others...)
	}
	k.Remove(f.Path + "/driver")
	k.Remove("/sys/bus/pci/drivers/" + f.Driver + "/" + f.Address())
	if device.IsVFIODriver(f.Driver) {
		k.releaseVFIO(f, others)
	}
	k.clear(f)
}

// block waits, with functions locked, until a channel is closed.
func (k *Kernel) block(ch chan struct{}, addresses []string) {
	done := make(chan struct{})
	for _, address := range addresses {
		k.locked[address] = done
	}
	k.mu.Unlock()
	<-ch
	k.mu.Lock()
	for _, address := range addresses {
		delete(k.locked, address)
	}
	close(done)
}

// core are the files of a function that are there without a driver, beside those with
// the prefixes aer_ and virtfn.
var core = strings.Fields(`
	vendor device class revision subsystem_vendor subsystem_device subsystem modalias uevent
	numa_node local_cpulist local_cpus driver_override reset reset_method remove rescan enable
	irq config resource power power_state msi_bus msi_irqs rom link
	current_link_speed current_link_width max_link_speed max_link_width
	iommu_group physfn sriov_totalvfs sriov_numvfs sriov_offset sriov_stride sriov_vf_device
	sriov_vf_total_msix sriov_drivers_autoprobe`)

// clear removes what a driver has made in the directory of a function, and what links to
// it from the classes and buses.
func (k *Kernel) clear(f Function) {
	for _, name := range k.entries(f.Path) {
		_, isFunction := k.function(name)
		if !isFunction && !slices.Contains(core, name) && !strings.HasPrefix(name, "aer_") && !strings.HasPrefix(name, "virtfn") {
			k.Remove(f.Path + "/" + name)
		}
	}
	k.sweep()
}

// sweep removes the links in classes and buses that lead nowhere.
func (k *Kernel) sweep() {
	for _, pattern := range []string{"/sys/class/*/*", "/sys/bus/*/devices/*", "/sys/bus/*/drivers/*/*"} {
		links, err := filepath.Glob(k.at(pattern))
		if err != nil {
			k.t.Error(err)
		}
		for _, file := range links {
			if _, err := filepath.EvalSymlinks(file); err != nil {
				name, _ := filepath.Rel(k.Dir, file)
				k.Remove("/" + filepath.ToSlash(name))
			}
		}
	}
}

// physical returns the physical function of a virtual one.
func (k *Kernel) physical(vf Function) (Function, bool) {
	target := k.link(vf.Path + "/physfn")
	if target == "" {
		return Function{}, false
	}
	return k.function(path.Base(target))
}
