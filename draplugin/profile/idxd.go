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
	"github.com/topolet/topolet/topology/device"
)

// idxd is the family of accelerators that are divided into groups of engines and work
// queues (Documentation/ABI/stable/sysfs-driver-dma-idxd), or rather one of the two.
//
// They can only be divided anew while they are disabled, and forget how they were when that
// happens. So a layout is always written as a whole.
type idxd struct {
	// prefix is what the kernel calls the accelerators, with a number behind it.
	prefix string
}

// The settings of the parts, in the order in which they are written. That of a queue is
// enabled, like that of the accelerator itself, by binding a driver.
var (
	groupSettings = []string{"read_buffers_reserved", "read_buffers_allowed", "use_read_buffer_limit", "traffic_class_a", "traffic_class_b"}
	queueSettings = []string{
		"group_id", "mode", "size", "type", "name", "driver_name", "priority", "threshold",
		"max_transfer_size", "max_batch_size", "ats_disable", "prs_disable", "block_on_fault", "op_config",
	}
)

const (
	enabled     = "enabled"
	disabled    = "disabled"
	readLimit   = "read_buffer_limit"
	dsaDrivers  = "sys/bus/dsa/drivers/"
	oldDSA      = 0x200 // up to this version, traffic classes are fixed
	isUnknown   = "unknown"
	isDedicated = v1alpha1.DedicatedQueue
)

// forgotten are the values that settings have after the accelerator was disabled
// (idxd_wqs_clear_state and others in drivers/dma/idxd/device.c); of those that are not
// here, traffic classes apart, it keeps what it had.
var forgotten = map[string]string{
	"engine group_id": "-1", "group read_buffers_reserved": "0", "group read_buffers_allowed": isUnknown, "group use_read_buffer_limit": "0",
	"wq state": disabled, "wq group_id": "-1", "wq mode": v1alpha1.SharedQueue, "wq size": "0", "wq type": "none", "wq name": "",
	"wq priority": "0", "wq threshold": "0", "wq block_on_fault": "0", "wq ats_disable": "0", "wq prs_disable": "0",
	"wq max_transfer_size": "2097152", "wq max_batch_size": "32",
}

// accelerator is the directory of the driver's device, with a slash at the end, and the
// number that its name and those of its parts have.
type accelerator struct {
	function
	dir, number string
}

func (i idxd) of(f function) (accelerator, bool) {
	names := f.Child(f.dir(), i.prefix)
	if len(names) != 1 {
		return accelerator{}, false
	}
	return accelerator{f, f.dir() + names[0] + "/", strings.TrimPrefix(names[0], i.prefix)}, true
}

func (i idxd) has(f function) bool {
	_, ok := i.of(f)
	return ok && f.Driver == "idxd"
}

// parts are the numbers of its queues, engines or groups.
func (a accelerator) parts(kind string) []string {
	prefix := kind + a.number + "."
	names := a.Child(a.dir, prefix)
	for i, name := range names {
		names[i] = strings.TrimPrefix(name, prefix)
	}
	return names
}

// part is the kernel's name of a part: "wq0.3" for "wq3".
func (a accelerator) part(name string) string {
	kind := kindOf(name)
	return kind + a.number + "." + strings.TrimPrefix(name, kind)
}

// kindOf is the part's name without its number.
func kindOf(part string) string { return strings.TrimRight(part, "0123456789") }

// file is the file of a setting.
func (a accelerator) file(name string) string {
	if part, file, ok := strings.Cut(name, "/"); ok {
		return a.dir + a.part(part) + "/" + file
	}
	return a.dir + name
}

func (a accelerator) name() string { return path.Base(a.dir) }

func (i idxd) want(f function, p v1alpha1.Profile) (Settings, error) {
	a, _ := i.of(f)
	queues, engines, groups := a.parts("wq"), a.parts("engine"), a.parts("group")
	no := func(file, reason, remedy string) error { return &UnfitError{a.address(), a.dir + file, reason, remedy} }
	if fixed, _ := a.Read(a.dir + "configurable"); fixed != "1" {
		return nil, no("configurable", "it cannot be divided", "leave it out of the profile")
	}
	if state, _ := a.Read(a.dir + "state"); state != enabled && state != disabled {
		return nil, no("state", "it is "+device.Shorten(state), "reset the accelerator, and see the kernel's log")
	}
	if len(p.Groups) > len(groups) {
		return nil, no("max_groups", fmt.Sprintf("it has %d groups, not %d", len(groups), len(p.Groups)), "use fewer groups")
	}
	want := Settings{"state": enabled}
	engine, queue, size := 0, 0, 0
	for g, group := range p.Groups {
		for range group.Engines {
			if engine == len(engines) {
				return nil, no("max_engines", fmt.Sprintf("it has only %d engines", engine), "use fewer engines")
			}
			want["engine"+engines[engine]+"/group_id"] = groups[g]
			engine++
		}
		if group.ReadBuffers > 0 {
			want["group"+groups[g]+"/read_buffers_allowed"] = strconv.Itoa(group.ReadBuffers)
		}
		for _, q := range group.WorkQueues {
			if queue == len(queues) {
				return nil, no("max_work_queues", fmt.Sprintf("it has only %d queues", queue), "use fewer queues")
			}
			a.wantQueue(want, "wq"+queues[queue], groups[g], q)
			queue, size = queue+1, size+q.Size
		}
	}
	if most, ok := a.Int(a.dir + "max_work_queues_size"); ok && int64(size) > most {
		return nil, no("max_work_queues_size", fmt.Sprintf("its queues have room for %d descriptors, not %d", most, size), "use smaller queues")
	}
	for _, n := range engines[engine:] {
		want["engine"+n+"/group_id"] = "-1"
	}
	for _, n := range queues[queue:] {
		maps.Copy(want, Settings{"wq" + n + "/state": disabled, "wq" + n + "/size": "0", "wq" + n + "/group_id": "-1"})
	}
	return want, nil
}

// wantQueue adds the settings of a queue that is in use.
func (a accelerator) wantQueue(want Settings, part, group string, q v1alpha1.WorkQueue) {
	set := func(file, value string) { want[part+"/"+file] = value }
	set("state", enabled)
	set("group_id", group)
	set("mode", q.Mode)
	set("size", strconv.Itoa(q.Size))
	set("name", q.Name)
	set("priority", strconv.Itoa(q.Priority))
	set("block_on_fault", truth(q.BlockOnFault))
	set("type", "kernel")
	if q.Driver == v1alpha1.UserDriver {
		set("type", "user")
	}
	// Older kernels know by the type.
	if a.Exists(a.file(part + "/driver_name")) {
		set("driver_name", q.Driver)
	}
	if q.Mode == v1alpha1.SharedQueue {
		set("threshold", strconv.Itoa(q.Threshold))
	}
	if q.MaxTransferSize > 0 {
		set("max_transfer_size", strconv.FormatInt(q.MaxTransferSize, 10))
	}
	if q.MaxBatchSize > 0 {
		set("max_batch_size", strconv.FormatInt(q.MaxBatchSize, 10))
	}
}

// read returns everything: it is all lost when anything is changed.
func (i idxd) read(f function, _ Settings) Settings {
	a, _ := i.of(f)
	s := Settings{}
	add := func(name string) {
		if value, ok := a.Read(a.file(name)); ok {
			s[name] = value
		}
	}
	add("state")
	add(readLimit)
	for kind, files := range map[string][]string{"engine": {"group_id"}, "group": groupSettings, "wq": append(slices.Clone(queueSettings), "state")} {
		for _, n := range a.parts(kind) {
			for _, file := range files {
				add(kind + n + "/" + file)
			}
			// The threshold of a dedicated queue has no meaning, and cannot be written.
			if kind == "wq" && s["wq"+n+"/mode"] == isDedicated {
				delete(s, "wq"+n+"/threshold")
			}
		}
	}
	return s
}

func (i idxd) file(f function, name string) string {
	a, _ := i.of(f)
	return a.file(name)
}

// appears says so of what read leaves out.
func (idxd) appears(name string) bool { return strings.HasSuffix(name, "/threshold") }

// layout is an accelerator that is being written to.
type layout struct {
	accelerator
	// now are its settings, as they will be after the writes.
	now, want Settings
	writes    writes
}

func (i idxd) writes(f function, now, want Settings) []Write {
	a, _ := i.of(f)
	l := &layout{accelerator: a, now: maps.Clone(now), want: want}
	for _, n := range a.parts("wq") {
		if l.now["wq"+n+"/mode"] == isDedicated {
			l.now["wq"+n+"/threshold"] = "0"
		}
	}
	l.disable()
	// What others have left in it is in the way of what comes.
	for _, n := range a.parts("wq") {
		if size := "wq" + n + "/size"; l.now[size] != "0" && l.now[size] != want[size] {
			l.write(size, "0", "make room")
		}
	}
	l.set(readLimit, "bound the read buffers")
	for _, n := range a.parts("engine") {
		l.set("engine"+n+"/group_id", "put the engine into its group")
	}
	for _, n := range a.parts("group") {
		for _, file := range groupSettings {
			l.set("group"+n+"/"+file, "set the group up")
		}
	}
	for _, n := range a.parts("wq") {
		l.setQueue("wq" + n)
	}
	l.enable()
	return l.writes
}

func (l *layout) write(name, value, why string) {
	data := value
	if data == "" {
		data = nothing
	}
	l.writes.add(l.file(name), data, why)
	l.now[name] = value
}

// set writes a setting, if it has another value.
func (l *layout) set(name, why string) {
	value, wanted := l.want[name]
	// Not all defaults can be written, so one that is not known counts as one.
	if !wanted || value == l.now[name] || value == "0" && l.now[name] == isUnknown {
		return
	}
	l.write(name, value, why)
}

func (l *layout) setQueue(part string) {
	mode, threshold := part+"/mode", part+"/threshold"
	for _, file := range queueSettings {
		const why = "set the queue up"
		name := part + "/" + file
		if file == "mode" && l.want[mode] == v1alpha1.SharedQueue && l.want[threshold] == "0" && l.now[threshold] != "0" && l.now[mode] == v1alpha1.SharedQueue {
			l.write(mode, isDedicated, "take the threshold away") // It cannot be written.
			l.now[threshold] = "0"
		}
		changes := l.want[name] != l.now[name]
		l.set(name, why)
		switch {
		case file == "mode" && l.now[mode] == isDedicated:
			l.now[threshold] = "0"
		case file == "type" && changes:
			l.now[part+"/name"] = "" // The kernel clears it.
		}
	}
}

// disable disables what is enabled, queues first, and notes what is forgotten.
func (l *layout) disable() {
	for _, n := range l.parts("wq") {
		if part := "wq" + n; l.now[part+"/state"] == enabled {
			l.writes.add(dsaDrivers+driverOf(l.now, part)+"/unbind", l.part(part), "disable the queue")
		}
	}
	if l.now["state"] != enabled {
		return
	}
	l.writes.add(dsaDrivers+"idxd/unbind", l.name(), "disable the accelerator")
	l.now["state"] = disabled
	class := "-1"
	if text, _ := l.Read(l.dir + "version"); isOld(text) {
		class = "1"
	}
	for name := range l.now {
		part, file, _ := strings.Cut(name, "/")
		if value, ok := forgotten[kindOf(part)+" "+file]; ok {
			l.now[name] = value
		}
		if strings.HasPrefix(file, "traffic_class_") {
			l.now[name] = class
		}
	}
}

func isOld(version string) bool {
	n, err := strconv.ParseUint(version, 0, 32)
	return err == nil && n <= oldDSA
}

func (l *layout) enable() {
	if l.want["state"] != enabled {
		return
	}
	l.writes.add(dsaDrivers+"idxd/bind", l.name(), "enable the accelerator")
	for _, n := range l.parts("wq") {
		if part := "wq" + n; l.want[part+"/state"] == enabled {
			l.writes.add(dsaDrivers+driverOf(l.want, part)+"/bind", l.part(part), "enable the queue")
		}
	}
}

// driverOf is the driver of a queue, which older kernels tell by the type.
func driverOf(s Settings, part string) string {
	switch name := s[part+"/driver_name"]; {
	case name != "":
		return name
	case s[part+"/type"] == "user":
		return v1alpha1.UserDriver
	}
	return v1alpha1.DMAEngineDriver
}

// busy asks how many have the queues open. Where the kernel does not tell, somebody may.
func (i idxd) busy(f function) string {
	a, _ := i.of(f)
	for _, n := range a.parts("wq") {
		file := a.file("wq" + n + "/clients")
		if clients, _ := a.Read(file); clients != "0" {
			return fmt.Sprintf("%s clients of work queue %s (/%s)", device.Shorten(clients), a.part("wq"+n), file)
		}
	}
	return ""
}

// missing waits for the nodes of queues for user space.
func (i idxd) missing(f function, want Settings) string {
	a, _ := i.of(f)
	for _, n := range a.parts("wq") {
		part := "wq" + n
		// The kernel writes "!" for the "/" in the name of the node.
		node := a.file(part + "/" + i.prefix + "!" + a.part(part) + "/dev")
		if want[part+"/state"] == enabled && driverOf(want, part) == v1alpha1.UserDriver && !a.Exists(node) {
			return node
		}
	}
	return ""
}

// statuses are what can be done about failures that an accelerator tells (enum
// idxd_scmd_stat in include/uapi/linux/idxd.h).
var statuses = map[uint64]string{
	0x80050000: "shared queues need address spaces of processes: boot with intel_iommu=on,sm_on",
	0x800c0000: "shared queues need address spaces of processes: boot with intel_iommu=on,sm_on",
	0x80110000: "queues for user space need address spaces of processes: boot with intel_iommu=on,sm_on",
	0x80200000: "the driver does not take queues of this kind: choose another one",
}

func (i idxd) explain(f function, w Write, err error) string {
	a, ok := i.of(f)
	switch name := path.Base(w.File); {
	case !ok:
	case name == "bind":
		text, _ := a.Read(a.dir + "cmd_status")
		status, _ := strconv.ParseUint(text, 0, 64)
		if remedy := statuses[status]; remedy != "" || status == 0 {
			return remedy
		}
		return "the accelerator answers " + device.Shorten(text) + ": see /" + a.dir + "cmd_status in the driver's documentation"
	case errors.Is(err, syscall.EPERM):
		return "somebody else has enabled it, or it cannot be set: see the kernel's log"
	case errors.Is(err, syscall.EOPNOTSUPP):
		return "the accelerator does not have this: leave it out"
	case errors.Is(err, syscall.EINVAL):
		return "the accelerator does not take this value: use another one"
	}
	return ""
}
