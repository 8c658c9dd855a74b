package profile

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/topolet/topolet/draplugin/v1alpha1"
)

// gpu is the family of graphics cards. The driver xe divides their time and memory among the
// virtual functions, by files sriov_admin/vf<number>/profile/* that are there whether the
// functions are or not (Documentation/ABI/testing/sysfs-driver-intel-xe-sriov, Linux 6.19).
type gpu struct{ sriov }

// The names of these files. The driver forgets the memory when the functions are switched
// off, and takes it only then.
const (
	quotaDir      = "sriov_admin/"
	execQuantum   = "exec_quantum_ms"
	preemptLimit  = "preempt_timeout_us"
	schedPriority = "sched_priority"
	vramQuota     = "vram_quota"
)

func (g gpu) want(f function, p v1alpha1.Profile) (Settings, error) {
	want, err := g.sriov.want(f, p)
	if err != nil || p.Quota == nil {
		return want, err
	}
	quota := Settings{}
	number := func(name string, n *int64) {
		if n != nil {
			quota[name] = strconv.FormatInt(*n, 10)
		}
	}
	number(execQuantum, p.Quota.ExecQuantumMS)
	number(preemptLimit, p.Quota.PreemptTimeoutUS)
	number(vramQuota, p.Quota.VRAMBytes)
	if p.Quota.SchedPriority != "" {
		quota[schedPriority] = p.Quota.SchedPriority
	}
	for i := range *p.VirtualFunctions {
		for name, value := range quota {
			// The driver counts virtual functions from 1.
			want[fmt.Sprintf("%svf%d/profile/%s", quotaDir, i+1, name)] = value
		}
	}
	return want, nil
}

func (g gpu) read(f function, wanted Settings) Settings {
	s := g.sriov.read(f, wanted)
	maps.Copy(s, f.readAll(numVFs))
	for name, value := range s {
		s[name] = chosen(value)
	}
	return s
}

func (g gpu) writes(f function, now, want Settings) []Write {
	isQuota := func(name string) bool { return strings.HasPrefix(name, quotaDir) }
	isMemory := func(name string) bool { return path.Base(name) == vramQuota }
	differs := func(name string) bool { return isQuota(name) && now[name] != want[name] }
	var list, quotas writes
	names := want.names()
	if now[numVFs] != "0" && want[numVFs] == now[numVFs] && slices.ContainsFunc(names, func(name string) bool { return isMemory(name) && differs(name) }) {
		list.add(f.dir()+numVFs, "0", "switch the virtual functions off")
		now = with(now, numVFs, "0")
	}
	off := len(list) > 0 || now[numVFs] != want[numVFs]
	for _, name := range names {
		if differs(name) || isMemory(name) && off {
			quotas.add(f.dir()+name, want[name], "give a virtual function its part")
		}
	}
	rest := g.sriov.writes(f, now, want)
	on := slices.IndexFunc(rest, func(w Write) bool { return w.File == f.dir()+numVFs && w.Data != "0" })
	if on < 0 {
		on = len(rest)
	}
	return slices.Concat(list, rest[:on], quotas, rest[on:])
}

func (g gpu) explain(f function, w Write, err error) string {
	if !strings.HasPrefix(w.File, f.dir()+quotaDir) {
		return g.sriov.explain(f, w, err)
	}
	switch {
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EPERM):
		return "the driver does not take this value: ask for another one"
	case errors.Is(err, syscall.EIO):
		return "the card's firmware refuses it: ask for less, or for fewer virtual functions"
	}
	return ""
}

// chosen is the one of a list that the kernel shows in brackets, "low [normal] high", or the
// text itself if it is no such list.
func chosen(text string) string {
	if _, after, ok := strings.Cut(text, "["); ok {
		if word, _, ok := strings.Cut(after, "]"); ok {
			return word
		}
	}
	return text
}
