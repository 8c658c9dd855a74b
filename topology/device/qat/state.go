package qat

import (
	"fmt"
	"slices"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// state is what a physical function tells of itself and of its virtual functions. The
// zero value tells nothing.
type state struct {
	// services are in ascending order; none are unknown ones.
	services []string
	taints   []device.Taint
}

// kinds are the services that are published as truth values as well.
var kinds = []string{"sym", "asym", "dc", "dcc", "decomp"}

// describe adds the state to a device.
func (s state) describe(d *device.Device) {
	d.Set("services", device.Text(strings.Join(s.services, ";")))
	d.Set("servicesKnown", device.Flag(len(s.services) > 0))
	for _, kind := range kinds {
		d.Set(kind, device.Flag(slices.Contains(s.services, kind)))
	}
	for _, t := range s.taints {
		d.Taint(t.Reason, t.Value)
	}
}

// readState asks a physical function, if it has its driver. The files are described in
// Documentation/ABI/testing: sysfs-driver-qat, sysfs-driver-qat_ras, debugfs-driver-qat.
func readState(h *device.Host, pf topology.PCIFunction, m model, problem func(error)) state {
	var s state
	if pf.Driver != m.driver {
		return s
	}
	dir := device.Dir(pf)
	debug := "sys/kernel/debug/qat_" + m.driver + "_" + pf.Address.String() + "/"

	enabled, ok := h.Read(dir + "qat/cfg_services")
	if !ok {
		config, _ := h.Read(debug + "dev_cfg")
		enabled = configured(config)
	}
	if s.services, ok = parse(enabled); !ok {
		problem(fmt.Errorf("the services of %s are unknown: %.100q is no list of them", pf.Address, enabled))
	}

	up, err := h.ReadError(dir + "qat/state")
	switch {
	case device.Resetting(err):
		s.taints = append(s.taints, device.Taint{Reason: device.InReset})
	case err != nil: // Drivers of older kernels do not tell.
	case up == "down":
		s.taints = append(s.taints, device.Taint{Reason: device.Unhealthy, Value: "state-down"})
	case up != "up":
		s.taints = append(s.taints, device.Taint{Reason: device.Unhealthy, Value: "state-unknown"})
	}
	// The driver counts from 0 whenever it starts the device: what it has counted, no
	// reset has cured.
	if n, _ := h.Uint(dir + "qat_ras/errors_fatal"); n > 0 {
		s.taints = append(s.taints, device.Taint{Reason: device.Unhealthy, Value: "fatal-errors"})
	}
	if heartbeatLost(h, debug+"heartbeat/") {
		s.taints = append(s.taints, device.Taint{Reason: device.Unhealthy, Value: "heartbeat"})
	}
	return s
}

// heartbeatLost asks whether the firmware has stopped. The driver answers -1 if it has, but
// also if somebody has asked less than a heartbeat ago, as when two programs watch the
// device. Only answers that it has looked for are counted, so without a failed one
// there is nothing wrong.
func heartbeatLost(h *device.Host, dir string) bool {
	if answer, ok := h.Int(dir + "status"); !ok || answer != -1 {
		return false
	}
	failed, counted := h.Uint(dir + "queries_failed")
	return !counted || failed > 0
}

// configured finds the services in a device's configuration, which is in sections of
// lines "key = value".
func configured(config string) string {
	for line := range strings.Lines(config) {
		if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == "ServicesEnabled" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// parse reads "sym;asym". The order has no meaning, and a word need not be one of
// [kinds]: newer devices have more services.
func parse(text string) (services []string, ok bool) {
	for word := range strings.SplitSeq(text, ";") {
		word = strings.TrimSpace(word)
		if strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			return nil, false
		}
		if word != "" {
			services = append(services, word)
		}
	}
	slices.Sort(services)
	services = slices.Compact(services)
	// A part of the list would be another list.
	if joined := strings.Join(services, ";"); device.Shorten(joined) != joined {
		return nil, false
	}
	return services, true
}
