package profile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"

	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology/device"
)

// The files of SR-IOV (Documentation/ABI/testing/sysfs-bus-pci).
const (
	numVFs    = "sriov_numvfs"
	autoprobe = "sriov_drivers_autoprobe"
	totalVFs  = "sriov_totalvfs"
)

// sriov is the family of functions that can have virtual ones, and no more settings than
// that: those with one of the drivers, or of a class with any driver of the kernel's.
type sriov struct {
	drivers []string
	class   int
}

func (s sriov) has(f function) bool {
	if f.SRIOV == nil || f.SRIOV.TotalVFs == 0 || f.Driver == "" || device.IsVFIODriver(f.Driver) {
		return false
	}
	return slices.Contains(s.drivers, f.Driver) || s.class != 0 && f.Class>>16 == s.class
}

func (sriov) want(f function, p v1alpha1.Profile) (Settings, error) {
	want := Settings{}
	if p.VirtualFunctions != nil {
		n := *p.VirtualFunctions
		if total, _ := f.Int(f.dir() + totalVFs); int64(n) > total {
			return nil, &UnfitError{f.address(), f.dir() + totalVFs, fmt.Sprintf("it can have %d virtual functions, not %d", total, n), "ask for fewer"}
		}
		want[numVFs] = strconv.Itoa(n)
	}
	if p.ProbeVirtualFunctions != nil {
		want[autoprobe] = truth(*p.ProbeVirtualFunctions)
	}
	return want, nil
}

func (sriov) read(f function, wanted Settings) Settings { return f.readAll(wanted.names()...) }

func (sriov) file(f function, name string) string { return f.dir() + name }

func (sriov) appears(string) bool { return false }

// writes has the number go through 0, without which the kernel refuses another one, and
// decides on drivers before there are functions to be bound.
func (sriov) writes(f function, now, want Settings) []Write {
	var list writes
	n, counts := want[numVFs]
	counts = counts && n != now[numVFs]
	if counts && now[numVFs] != "0" {
		list.add(f.dir()+numVFs, "0", "switch the virtual functions off")
	}
	if probe, ok := want[autoprobe]; ok && probe != now[autoprobe] {
		list.add(f.dir()+autoprobe, probe, map[string]string{"0": "give virtual functions no driver", "1": "let drivers take virtual functions"}[probe])
	}
	if counts && n != "0" {
		list.add(f.dir()+numVFs, n, "switch the virtual functions on")
	}
	return list
}

// busy has no answer: what virtual functions are used for is known to the ledger and to
// those who look after the host's own use.
func (sriov) busy(function) string { return "" }

// missing waits for the virtual functions, and for the groups by which they are handed over.
func (sriov) missing(f function, want Settings) string {
	n, _ := strconv.Atoi(want[numVFs])
	for i := range n {
		link := fmt.Sprintf("%svirtfn%d", f.dir(), i)
		if !f.Exists(link) {
			return link
		}
		if group := link + "/iommu_group"; f.Exists(f.dir()+"iommu_group") && !f.Exists(group) {
			return group
		}
	}
	return ""
}

func (sriov) explain(f function, w Write, err error) string {
	if w.File != f.dir()+numVFs {
		return ""
	}
	switch {
	case errors.Is(err, syscall.ENOENT):
		return "the driver " + f.Driver + " cannot make virtual functions on this kernel"
	case errors.Is(err, syscall.ERANGE):
		return "ask for fewer virtual functions"
	case errors.Is(err, syscall.EINVAL):
		return "see that the IOMMU is on"
	case errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EIO):
		return "ask for fewer virtual functions, or see that SR-IOV is on in the firmware"
	}
	return ""
}

func truth(on bool) string {
	if on {
		return "1"
	}
	return "0"
}
