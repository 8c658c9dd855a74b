package devicetest

import (
	"slices"
	"strings"
	"syscall"
)

// storeQAT knows the settings of QAT's physical functions
// (qat_common/adf_sysfs.c and adf_cfg_services.c).
func (k *Kernel) storeQAT(pf Function, file, text string) error {
	dir := pf.Path + "/qat/"
	up := k.get(dir+"state") == "up"
	switch file {
	case "state":
		switch text {
		case "up":
		case "down":
			if up {
				k.removeVFs(pf, pf.Address())
			}
		default:
			return syscall.EINVAL
		}
		k.set(dir+file, text)
	case "cfg_services":
		if up || !services(text, pf.Driver == "6xxx") {
			return syscall.EINVAL
		}
		k.set(dir+file, text)
	case "pm_idle_enabled":
		on, err := flag(text)
		if err != nil || up {
			return syscall.EINVAL
		}
		k.set(dir+file, digit(on))
	case "auto_reset":
		on, err := flag(text)
		if err != nil {
			return err
		}
		k.set(dir+file, map[bool]string{true: "on", false: "off"}[on])
	default:
		return syscall.EACCES
	}
	return nil
}

// services reports whether a device can serve these together, in any order: at most two,
// three in generation 6, and dcc only alone.
func services(text string, gen6 bool) bool {
	known, most := []string{"sym", "asym", "dc"}, 2
	if gen6 {
		known, most = append(known, "decomp"), 3
	}
	words := strings.Split(text, ";")
	if text == "dcc" {
		return true
	}
	for i, word := range words {
		if !slices.Contains(known, word) || slices.Contains(words[:i], word) {
			return false
		}
	}
	return len(words) <= most
}
