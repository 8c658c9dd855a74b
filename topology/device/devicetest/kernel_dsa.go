package devicetest

import (
	"fmt"
	"math/bits"
	"path"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// The accelerators of DSA and IAA with their work queues, engines and groups, which are a
// bus of their own below the PCI function (drivers/dma/idxd/sysfs.c, device.c and cdev.c).

// dsaDevice is an accelerator: a directory dsa0 or iax1 in that of a function.
type dsaDevice struct {
	*Kernel
	dir string
}

const dsaPrefix = "/sys/bus/dsa/devices/"

var (
	dsaName = regexp.MustCompile(`^(dsa|iax)\d+$`)
	dsaPart = regexp.MustCompile(`^(wq|engine|group)\d+\.\d+$`)
)

// What cmd_status says of a bind that failed (enum idxd_scmd_stat in
// include/uapi/linux/idxd.h).
const (
	statusEnabled        = "0x80000010" // the device is not in a state to be enabled
	statusNoGroup        = "0x80030000"
	statusNoName         = "0x80040000"
	statusNoPASID        = "0x80050000" // a shared queue without address spaces of processes
	statusNoThreshold    = "0x80060000"
	statusNoShared       = "0x800c0000"
	statusNoneConfigured = "0x800d0000"
	statusNoSize         = "0x800e0000"
	statusNoSVA          = "0x80110000"
	statusNoDriverName   = "0x80200000"
	statusFine           = "0x0"
)

// dsaDevice returns the accelerator that a directory is of: its own, or that of a part.
func (k *Kernel) dsaDevice(dir string) (dsaDevice, bool) {
	if dsaPart.MatchString(path.Base(dir)) {
		dir = path.Dir(dir)
	}
	return dsaDevice{k, dir}, dsaName.MatchString(path.Base(dir)) && k.exists(dir)
}

func (d dsaDevice) is(file, value string) bool { return d.get(d.dir+"/"+file) == value }

func (d dsaDevice) enabled() bool { return d.is("state", "enabled") }

func (d dsaDevice) isIAA() bool { return d.kind() == "iax" }

// parts are the directories of its queues, engines or groups.
func (d dsaDevice) parts(kind string) []string {
	var dirs []string
	for _, name := range d.entries(d.dir) {
		if dsaPart.MatchString(name) && strings.HasPrefix(name, kind) {
			dirs = append(dirs, d.dir+"/"+name)
		}
	}
	return dirs
}

// storeDSA writes a setting of an accelerator or of one of its parts.
func (k *Kernel) storeDSA(d dsaDevice, dir, file, text string) error {
	kind, _, _ := strings.Cut(path.Base(dir), ".")
	kind = strings.TrimRight(kind, "0123456789")
	setting, ok := dsaSettings[kind+" "+file]
	if !ok && (kind == "dsa" || kind == "iax") {
		setting, ok = dsaSettings["device "+file]
	}
	enabled := d.enabled()
	if setting.queue {
		enabled = k.get(dir+"/state") == "enabled"
	}
	switch {
	case !ok:
		return syscall.EACCES
	case setting.notIAA && d.isIAA():
		return syscall.EOPNOTSUPP
	case setting.configurable && !d.is("configurable", "1"):
		return syscall.EPERM
	case setting.enabled != 0 && enabled:
		return setting.enabled
	}
	value, err := setting.parse(d, dir, text)
	if err == nil {
		k.set(dir+"/"+file, value)
		d.list()
	}
	return err
}

// list brings the groups' lists of members up to date.
func (d dsaDevice) list() {
	for _, g := range d.parts("group") {
		for file, kind := range map[string]string{"work_queues": "wq", "engines": "engine"} {
			if d.exists(g + "/" + file) {
				d.set(g+"/"+file, strings.Join(d.members(g, kind), " "))
			}
		}
	}
}

// members are the names of a group's queues or engines.
func (d dsaDevice) members(group, kind string) []string {
	_, id, _ := strings.Cut(path.Base(group), ".")
	var names []string
	for _, dir := range d.parts(kind) {
		if d.get(dir+"/group_id") == id {
			names = append(names, path.Base(dir))
		}
	}
	return names
}

// dsaSetting is a file that can be written.
type dsaSetting struct {
	// configurable says that devices whose settings are fixed refuse it, notIAA that IAA
	// has no such thing.
	configurable, notIAA bool
	// enabled is the error while the device is enabled, or with queue while the queue is.
	enabled syscall.Errno
	queue   bool
	// parse returns what the file reads afterwards.
	parse func(d dsaDevice, dir, text string) (string, error)
}

// dsaSettings are by the kind of the part and the file.
var dsaSettings = map[string]dsaSetting{
	"device cmd_status":        {parse: func(dsaDevice, string, string) (string, error) { return statusFine, nil }},
	"device read_buffer_limit": {configurable: true, notIAA: true, enabled: syscall.EPERM, parse: between(0, "max_read_buffers")},
	"device event_log_size":    {configurable: true, enabled: syscall.EPERM, parse: between(64, "")},

	"engine group_id": {configurable: true, parse: dsaGroup},

	"group read_buffers_allowed":  {configurable: true, notIAA: true, enabled: syscall.EPERM, parse: dsaBuffers},
	"group read_buffers_reserved": {configurable: true, notIAA: true, enabled: syscall.EPERM, parse: between(0, "max_read_buffers")},
	"group use_read_buffer_limit": {configurable: true, notIAA: true, enabled: syscall.EPERM, parse: func(d dsaDevice, _, text string) (string, error) {
		if d.is("read_buffer_limit", "0") {
			return "", syscall.EPERM
		}
		return truth(d, "", text)
	}},
	"group traffic_class_a": {configurable: true, enabled: syscall.EPERM, parse: trafficClass},
	"group traffic_class_b": {configurable: true, enabled: syscall.EPERM, parse: trafficClass},

	"wq group_id": {configurable: true, enabled: syscall.EPERM, queue: true, parse: dsaGroup},
	"wq mode": {configurable: true, enabled: syscall.EPERM, queue: true, parse: func(d dsaDevice, dir, text string) (string, error) {
		if text == "dedicated" {
			d.set(dir+"/threshold", "0")
		}
		return oneOf("dedicated", "shared")(d, dir, text)
	}},
	// The size is the one thing of a queue that the device must be disabled for.
	"wq size": {configurable: true, enabled: syscall.EPERM, parse: func(d dsaDevice, dir, text string) (string, error) {
		left := d.number(d.dir+"/max_work_queues_size", 0)
		for _, other := range d.parts("wq") {
			if other != dir {
				left -= d.number(other+"/size", 0)
			}
		}
		return within(text, 0, left)
	}},
	"wq priority": {configurable: true, enabled: syscall.EPERM, queue: true, parse: func(_ dsaDevice, _, text string) (string, error) { return within(text, 0, 15) }},
	"wq threshold": {configurable: true, enabled: syscall.ENXIO, queue: true, parse: func(d dsaDevice, dir, text string) (string, error) {
		if d.get(dir+"/mode") == "dedicated" {
			return "", syscall.EINVAL
		}
		return within(text, 1, d.number(dir+"/size", 0))
	}},
	"wq block_on_fault": {configurable: true, enabled: syscall.ENXIO, queue: true, parse: func(d dsaDevice, dir, text string) (string, error) {
		if d.exists(d.dir+"/gen_cap") && d.number(d.dir+"/gen_cap", 0)&1 == 0 {
			return "", syscall.EOPNOTSUPP
		}
		value, err := truth(d, dir, text)
		if value == "1" && d.get(dir+"/prs_disable") == "1" {
			return "", syscall.EOPNOTSUPP
		}
		return value, err
	}},
	"wq type": {enabled: syscall.EPERM, queue: true, parse: func(d dsaDevice, dir, text string) (string, error) {
		value, err := oneOf("none", "kernel", "user")(d, dir, text)
		if err == nil && value != d.get(dir+"/type") {
			d.set(dir+"/name", "")
		}
		return value, err
	}},
	"wq name":              {enabled: syscall.EPERM, queue: true, parse: dsaText},
	"wq driver_name":       {enabled: syscall.EPERM, queue: true, parse: dsaText},
	"wq max_transfer_size": {configurable: true, enabled: syscall.EPERM, queue: true, parse: roundedUp("max_transfer_size")},
	"wq max_batch_size":    {configurable: true, notIAA: true, enabled: syscall.EPERM, queue: true, parse: roundedUp("max_batch_size")},
	"wq ats_disable":       {configurable: true, enabled: syscall.EPERM, queue: true, parse: truth},
	"wq prs_disable": {enabled: syscall.EPERM, queue: true, parse: func(d dsaDevice, dir, text string) (string, error) {
		value, err := truth(d, dir, text)
		if value == "1" {
			d.set(dir+"/block_on_fault", "0")
		}
		return value, err
	}},
	"wq op_config": {enabled: syscall.EPERM, queue: true, parse: dsaText},
}

func within(text string, least, most int) (string, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return "", syscall.EINVAL
	}
	return strconv.Itoa(n), nil
}

// between takes a number up to that in a file of the device.
func between(least int, most string) func(dsaDevice, string, string) (string, error) {
	return func(d dsaDevice, _, text string) (string, error) {
		limit := 0xffff
		if most != "" {
			limit = d.number(d.dir+"/"+most, 0)
		}
		return within(text, least, limit)
	}
}

func oneOf(words ...string) func(dsaDevice, string, string) (string, error) {
	return func(_ dsaDevice, _, text string) (string, error) {
		for _, word := range words {
			if text == word {
				return word, nil
			}
		}
		return "", syscall.EINVAL
	}
}

func truth(_ dsaDevice, _, text string) (string, error) {
	on, err := flag(text)
	return digit(on), err
}

func dsaText(_ dsaDevice, _, text string) (string, error) {
	if len(text) > 1024 {
		return "", syscall.EINVAL
	}
	return strings.TrimSpace(text), nil
}

func dsaGroup(d dsaDevice, _, text string) (string, error) {
	return within(text, -1, d.number(d.dir+"/max_groups", 0)-1)
}

// dsaBuffers are at least four for each engine, and at most what other groups have not
// reserved.
func dsaBuffers(d dsaDevice, dir, text string) (string, error) {
	free := d.number(d.dir+"/max_read_buffers", 0)
	for _, other := range d.parts("group") {
		if other != dir {
			free -= d.number(other+"/read_buffers_reserved", 0)
		}
	}
	return within(text, 4*len(d.members(dir, "engine")), free)
}

func trafficClass(d dsaDevice, _, text string) (string, error) {
	if d.number(d.dir+"/version", 0) <= 0x200 {
		return "", syscall.EPERM
	}
	return within(text, 0, 7)
}

// roundedUp takes a size, of which the device can do the next power of two.
func roundedUp(most string) func(dsaDevice, string, string) (string, error) {
	return func(d dsaDevice, _, text string) (string, error) {
		n, err := strconv.ParseUint(text, 0, 63)
		if err != nil || n == 0 {
			return "", syscall.EINVAL
		}
		n = 1 << bits.Len64(n-1)
		return within(strconv.FormatUint(n, 10), 1, d.number(d.dir+"/"+most, 0))
	}
}

// storeDSADriver binds devices and queues to the drivers of the bus, which enables them,
// and unbinds them.
func (k *Kernel) storeDSADriver(driver, file, text string) error {
	if strings.Contains(text, "/") || !k.exists(dsaPrefix+text) {
		return syscall.ENODEV
	}
	target, err := k.resolve(dsaPrefix + text + "/state")
	if err != nil {
		return syscall.ENODEV
	}
	dir := path.Dir(target)
	d, ok := k.dsaDevice(dir)
	isQueue := strings.HasPrefix(path.Base(dir), "wq")
	if !ok || isQueue != (driver != "idxd") {
		return syscall.ENODEV
	}
	enabled := k.get(dir+"/state") == "enabled"
	switch {
	case file == "unbind" && (!enabled || isQueue && d.driverOf(dir) != driver):
		return syscall.ENODEV
	case file == "unbind" && isQueue:
		d.disableQueue(dir)
		return nil
	case file == "unbind":
		d.disable()
		return nil
	case file != "bind":
		return syscall.EACCES
	case enabled:
		return syscall.EBUSY
	case isQueue:
		return d.enableQueue(dir, driver)
	}
	return d.enable()
}

// driverOf is the driver that an enabled queue is bound to, which follows from its type
// where nobody has named one.
func (d dsaDevice) driverOf(wq string) string {
	if name := d.get(wq + "/driver_name"); name != "" {
		return name
	}
	if d.get(wq+"/type") == "user" {
		return "user"
	}
	return "dmaengine"
}

// fail leaves a status behind.
func (d dsaDevice) fail(status string, errno syscall.Errno) error {
	d.set(d.dir+"/cmd_status", status)
	return errno
}

func (d dsaDevice) enable() error {
	if !d.is("state", "disabled") {
		return d.fail(statusEnabled, syscall.ENXIO)
	}
	if d.configured() != nil {
		return syscall.ENXIO
	}
	d.set(d.dir+"/state", "enabled")
	d.set(d.dir+"/cmd_status", statusFine)
	return nil
}

// configured returns an error if the device would not take its settings.
func (d dsaDevice) configured() error {
	if !d.is("configurable", "1") {
		return nil
	}
	queues, engines := 0, 0
	for _, wq := range d.parts("wq") {
		if d.get(wq+"/group_id") == "-1" {
			continue
		}
		queues++
		if d.get(wq+"/mode") == "shared" && !d.is("pasid_enabled", "1") {
			return d.fail(statusNoShared, syscall.EINVAL)
		}
		if d.get(wq+"/size") == "0" && d.get(wq+"/type") != "none" {
			return d.fail(statusNoSize, syscall.EINVAL)
		}
	}
	if queues == 0 {
		return d.fail(statusNoneConfigured, syscall.EINVAL)
	}
	for _, engine := range d.parts("engine") {
		if d.get(engine+"/group_id") != "-1" {
			engines++
		}
	}
	if engines == 0 {
		return syscall.EINVAL
	}
	return nil
}

func (d dsaDevice) enableQueue(wq, driver string) error {
	isUser := driver == "user"
	switch {
	case !d.enabled():
		return syscall.ENXIO
	case d.exists(wq+"/driver_name") && d.get(wq+"/driver_name") != driver:
		return d.fail(statusNoDriverName, syscall.ENODEV)
	case isUser && !d.is("pasid_enabled", "1"):
		return d.fail(statusNoSVA, syscall.EOPNOTSUPP)
	}
	if err := d.ready(wq); err != nil {
		d.set(wq+"/type", "none")
		return err
	}
	d.set(wq+"/type", map[bool]string{true: "user", false: "kernel"}[isUser])
	d.set(wq+"/state", "enabled")
	d.set(wq+"/clients", "0")
	if isUser {
		d.addNode(wq)
	}
	d.set(d.dir+"/cmd_status", statusFine)
	return nil
}

// ready returns an error if something is missing that a queue needs.
func (d dsaDevice) ready(wq string) error {
	switch shared := d.get(wq+"/mode") == "shared"; {
	case d.get(wq+"/group_id") == "-1":
		return d.fail(statusNoGroup, syscall.ENXIO)
	case d.get(wq+"/name") == "":
		return d.fail(statusNoName, syscall.ENXIO)
	case shared && !d.is("pasid_enabled", "1"):
		return d.fail(statusNoPASID, syscall.ENXIO)
	case shared && d.get(wq+"/threshold") == "0":
		return d.fail(statusNoThreshold, syscall.ENXIO)
	}
	return d.configured()
}

// node is the directory of a queue's device node.
func (d dsaDevice) node(wq string) string { return wq + "/" + d.kind() + "!" + path.Base(wq) }

// kind is dsa or iax.
func (d dsaDevice) kind() string { return dsaName.FindStringSubmatch(path.Base(d.dir))[1] }

// addNode makes a queue's device node. The numbers of either kind are counted apart.
func (d dsaDevice) addNode(wq string) {
	taken := map[string]bool{}
	for _, name := range d.entries(dsaPrefix) {
		if owner := path.Dir(d.link(dsaPrefix + name)); strings.HasPrefix(path.Base(owner), d.kind()) {
			taken[d.get(dsaPrefix+name+"/cdev_minor")] = true
		}
	}
	minor := 0
	for taken[strconv.Itoa(minor)] {
		minor++
	}
	node := d.node(wq)
	d.Host.node(node, fmt.Sprintf("%d:%d", d.number(d.dir+"/cdev_major", 0), minor), d.kind()+"/"+path.Base(wq))
	d.File(wq+"/cdev_minor", strconv.Itoa(minor))
}

// wiped are the settings that a queue loses when it is disabled; its size and its group
// it loses with the device.
var wiped = map[string]string{
	"state": "disabled", "type": "none", "name": "", "mode": "shared", "threshold": "0", "priority": "0",
	"block_on_fault": "0", "ats_disable": "0", "prs_disable": "0",
	"max_transfer_size": "2097152", "max_batch_size": "32", "clients": "0",
}

func (d dsaDevice) disableQueue(wq string) {
	d.reset(wq, wiped)
	d.Remove(d.node(wq))
	d.Remove(wq + "/cdev_minor")
}

// reset gives those files other content that there are.
func (d dsaDevice) reset(dir string, contents map[string]string) {
	for file, content := range contents {
		if d.exists(dir + "/" + file) {
			d.set(dir+"/"+file, content)
		}
	}
}

func (d dsaDevice) disable() {
	for _, wq := range d.parts("wq") {
		if d.get(wq+"/state") == "enabled" {
			d.disableQueue(wq)
		}
	}
	d.set(d.dir+"/state", "disabled")
	if !d.is("configurable", "1") {
		return
	}
	for _, wq := range d.parts("wq") {
		d.disableQueue(wq)
		d.reset(wq, map[string]string{"size": "0", "group_id": "-1"})
	}
	for _, engine := range d.parts("engine") {
		d.reset(engine, map[string]string{"group_id": "-1"})
	}
	class := "-1"
	if d.number(d.dir+"/version", 0) <= 0x200 {
		class = "1"
	}
	for _, g := range d.parts("group") {
		d.reset(g, map[string]string{
			"use_read_buffer_limit": "0", "read_buffers_allowed": "0", "read_buffers_reserved": "0",
			"traffic_class_a": class, "traffic_class_b": class,
		})
	}
	d.list()
}
