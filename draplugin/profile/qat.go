package profile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/topolet/topolet/draplugin/v1alpha1"
)

// The files of QAT's physical functions (Documentation/ABI/testing/sysfs-driver-qat).
const (
	qatState    = "qat/state"
	qatServices = "qat/cfg_services"
	qatReset    = "qat/auto_reset"
	qatPMIdle   = "qat/pm_idle_enabled"
)

// qat is the family of QuickAssist accelerators, which have services beside virtual
// functions.
type qat struct{ sriov }

func (q qat) want(f function, p v1alpha1.Profile) (Settings, error) {
	want, err := q.sriov.want(f, p)
	if err != nil {
		return nil, err
	}
	// The driver takes any other number for all of them.
	if total, _ := f.Int(f.dir() + totalVFs); p.VirtualFunctions != nil && *p.VirtualFunctions != 0 && int64(*p.VirtualFunctions) != total {
		return nil, &UnfitError{f.address(), f.dir() + totalVFs, "it has all of its virtual functions or none", fmt.Sprintf("ask for %d or 0", total)}
	}
	if len(p.Services) > 0 {
		want[qatServices], want[qatState] = strings.Join(p.Services, ";"), "up"
	}
	if p.PMIdle != nil {
		want[qatPMIdle], want[qatState] = truth(*p.PMIdle), "up"
	}
	if p.AutoReset != nil {
		want[qatReset] = map[bool]string{true: "on", false: "off"}[*p.AutoReset]
	}
	return want, nil
}

// writes changes services and the saving of power while the accelerator is down, which is
// when it has no virtual functions, and puts these up after it.
func (q qat) writes(f function, now, want Settings) []Write {
	var list writes
	differs := func(name string) bool {
		_, differs := now.differs(pick(want, name))
		return differs
	}
	services, pmIdle := differs(qatServices), differs(qatPMIdle)
	goesDown := want[qatState] == "down" && now[qatState] != "down"
	if services || pmIdle || goesDown {
		if n, _ := strconv.Atoi(now[numVFs]); n > 0 {
			list.add(f.dir()+numVFs, "0", "switch the virtual functions off")
			now = with(now, numVFs, "0")
		}
		if now[qatState] != "down" {
			list.add(f.dir()+qatState, "down", "stop the accelerator")
			now = with(now, qatState, "down")
		}
	}
	if services {
		list.add(f.dir()+qatServices, want[qatServices], "choose its services")
	}
	if pmIdle {
		list.add(f.dir()+qatPMIdle, want[qatPMIdle], "choose whether it saves power while idle")
	}
	if want[qatState] == "up" && now[qatState] != "up" {
		list.add(f.dir()+qatState, "up", "start it again")
	}
	list = append(list, q.sriov.writes(f, now, want)...)
	if reset, ok := want[qatReset]; ok && reset != now[qatReset] {
		list.add(f.dir()+qatReset, reset, "choose whether it is reset after a failure")
	}
	return list
}

func (q qat) explain(f function, w Write, err error) string {
	switch {
	case w.File == f.dir()+qatServices && errors.Is(err, syscall.EINVAL):
		return "the accelerator does not offer these services together: ask for others"
	case w.File == f.dir()+qatState && errors.Is(err, syscall.EBUSY):
		return "the kernel's own algorithms use it, or it is being reset: it is tried again"
	}
	return q.sriov.explain(f, w, err)
}

// pick returns those of the settings that are named.
func pick(s Settings, names ...string) Settings {
	some := Settings{}
	for _, name := range names {
		if value, ok := s[name]; ok {
			some[name] = value
		}
	}
	return some
}
