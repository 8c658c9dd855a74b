package profile_test

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/topolet/topolet/draplugin/profile"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device/devicetest"
)

const (
	gpu = "0000:3a:00.0"
	nic = "0000:3b:00.0"
	qat = "0000:6b:00.0"
	dsa = "0000:6a:01.0"
	iaa = "0000:6a:02.0"
	dlb = "0000:6d:00.0"
	// xe is a graphics card whose virtual functions have quotas.
	xe = "0000:3e:00.0"

	devices  = "/sys/bus/pci/devices/"
	bootFile = "/proc/sys/kernel/random/boot_id"
)

var (
	patient = profile.Limits{Write: time.Minute, Wait: time.Minute, Retry: time.Hour}
	// hasty is for writes that block; those that do not need far less.
	hasty = profile.Limits{Write: time.Second, Wait: time.Minute, Retry: time.Hour}
)

// rig is a host with a function of each family, and all that happens to it.
type rig struct {
	*testing.T
	*devicetest.Kernel
	*profile.Engine

	mu      sync.Mutex
	journal []string
	// users are who has functions, by address; held are the addresses that are withheld.
	users map[string]string
	held  map[string]bool
	saves [][]profile.State
	// meanwhile is called before a write is made, and failSave before a state is saved.
	meanwhile func(n int, file, data string) error
	failSave  error
	// after is called after a write that was made.
	after    func(file, data string)
	writes   int
	profiles []profile.Profile
}

// newRig has the functions at these addresses, or all but the second graphics card.
func newRig(t *testing.T, only ...string) *rig {
	t.Helper()
	h := devicetest.At(t, devicetest.Dir(t))
	h.Files("/sys/devices/system", map[string]string{"cpu/online": "0-1", "node/online": "0", "node/node0/cpulist": "0-1"})
	h.File(bootFile, "6f1c1f6e-8f0a-4d4b-9d38-6a4f3a1f2f10")
	g := &rig{T: t, Kernel: devicetest.NewKernel(h), users: map[string]string{}, held: map[string]bool{}}
	for name, ids := range map[string][]int{"i915": {0x808656c0}, "mlx5_core": {0x15b3101d}, "4xxx": {0x80864940}, "dlb2": {0x80862710, 0x80862711}, "xe": {0x8086e20b}} {
		g.Load(devicetest.Driver{Name: name, IDs: ids, VFs: true, Probe: g.lock})
	}
	has := func(address string) bool { return slices.Contains(only, address) || len(only) == 0 && address != xe }
	add := func(f devicetest.Function, vf string, total int) {
		if !has(f.Address()) {
			return
		}
		h.Add(f)
		h.Files(f.Path, map[string]string{
			"sriov_totalvfs": fmt.Sprint(total), "sriov_numvfs": "0", "sriov_vf_device": vf, "sriov_drivers_autoprobe": "1",
			"sriov_offset": "1", "sriov_stride": "1",
		})
	}
	add(devicetest.Function{Path: "/sys/devices/pci0000:37/" + gpu, Vendor: 0x8086, Device: 0x56c0, Class: 0x038000, Group: 42, Driver: "i915"}, "56c0", 31)
	add(devicetest.Function{Path: "/sys/devices/pci0000:37/" + nic, Vendor: 0x15b3, Device: 0x101d, Class: 0x020000, Group: 50, Driver: "mlx5_core"}, "101e", 8)
	add(devicetest.Function{Path: "/sys/devices/pci0000:6b/" + qat, Vendor: 0x8086, Device: 0x4940, Class: 0x0b4000, Group: 120, Driver: "4xxx"}, "4941", 4)
	add(devicetest.Function{Path: "/sys/devices/pci0000:6d/" + dlb, Vendor: 0x8086, Device: 0x2710, Class: 0x0b4000, Group: 140, Driver: "dlb2"}, "2711", 16)
	add(devicetest.Function{Path: "/sys/devices/pci0000:37/" + xe, Vendor: 0x8086, Device: 0xe20b, Class: 0x030000, Group: 60, Driver: "xe"}, "e20b", 2)
	if has(xe) {
		for _, vf := range []string{"vf1", "vf2"} {
			h.Files("/sys/devices/pci0000:37/"+xe+"/sriov_admin/"+vf+"/profile", map[string]string{
				"exec_quantum_ms": "0", "preempt_timeout_us": "0", "sched_priority": "[low] normal high", "vram_quota": "0",
			})
		}
	}
	if has(qat) {
		h.Files("/sys/devices/pci0000:6b/"+qat+"/qat", map[string]string{"state": "up", "cfg_services": "sym;asym", "auto_reset": "off", "pm_idle_enabled": "1"})
	}
	h.Files("/proc/self", map[string]string{"mountinfo": "22 1 0:21 / /sys rw - sysfs sysfs rw", "net/route": "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT", "net/ipv6_route": ""})
	h.Link("/proc/net", "/proc/self/net")
	if has(dsa) {
		g.accelerator(dsa, 0x0b25, "dsa0", "0")
	}
	if has(iaa) {
		g.accelerator(iaa, 0x0cfe, "iax1", "1")
	}
	h.Files("/sys/bus/dsa/drivers/idxd", map[string]string{"bind": "", "unbind": ""})
	h.Files("/sys/bus/dsa/drivers/user", map[string]string{"bind": "", "unbind": ""})
	h.Files("/sys/bus/dsa/drivers/dmaengine", map[string]string{"bind": "", "unbind": ""})
	g.open(patient, nil)
	return g
}

// accelerator puts a disabled one on the host, as it is after a start of the machine.
func (g *rig) accelerator(address string, id uint16, name, number string) {
	g.Helper()
	f := devicetest.Function{Path: "/sys/devices/pci0000:6a/" + address, Vendor: 0x8086, Device: id, Class: 0x088000, Group: int(id), Driver: "idxd"}
	g.Add(f)
	dir := f.Path + "/" + name
	isDSA := strings.HasPrefix(name, "dsa")
	g.Files(dir, map[string]string{
		"version": "0x100", "max_groups": "4", "max_engines": "4", "max_work_queues": "4", "max_work_queues_size": "128",
		"max_transfer_size": "2147483648", "configurable": "1", "pasid_enabled": "1", "state": "disabled", "clients": "0", "cmd_status": "0x0",
		"cdev_major": "511", "gen_cap": "0x40915f0107",
	})
	if isDSA {
		g.Files(dir, map[string]string{"max_batch_size": "1024", "max_read_buffers": "96", "read_buffer_limit": "0"})
	}
	g.Link("/sys/bus/dsa/devices/"+name, dir)
	for i := range 4 {
		part := fmt.Sprintf("%s.%d", number, i)
		g.Files(dir+"/wq"+part, map[string]string{
			"state": "disabled", "group_id": "-1", "mode": "shared", "size": "0", "type": "none", "name": "", "driver_name": "", "priority": "0",
			"threshold": "0", "clients": "0", "max_transfer_size": "2097152", "ats_disable": "0", "prs_disable": "0", "block_on_fault": "0", "op_config": "ff",
		})
		g.File(dir+"/engine"+part+"/group_id", "-1")
		g.Files(dir+"/group"+part, map[string]string{"engines": "", "work_queues": "", "traffic_class_a": "1", "traffic_class_b": "1"})
		if isDSA {
			g.File(dir+"/wq"+part+"/max_batch_size", "32")
			g.Files(dir+"/group"+part, map[string]string{"read_buffers_allowed": "0", "read_buffers_reserved": "0", "use_read_buffer_limit": "0"})
		}
		for _, kind := range []string{"wq", "engine", "group"} {
			g.Link("/sys/bus/dsa/devices/"+kind+part, dir+"/"+kind+part)
		}
	}
}

// open starts anew, as another process does, with the configuration of these families.
func (g *rig) open(limits profile.Limits, config map[string]string) {
	g.Helper()
	text := "apiVersion: topolet.dev/v1alpha1\nkind: Configuration\ndevices:\n"
	for _, family := range slices.Sorted(maps.Keys(config)) {
		text += fmt.Sprintf("- {family: %s, profiles: %s}\n", family, config[family])
	}
	c, err := v1alpha1.DecodeConfiguration([]byte(text))
	if err != nil {
		g.Fatal(err)
	}
	root, err := topology.OpenRoot(g.Dir)
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { root.Close() }) //nolint:errcheck // only read
	g.Engine = profile.New(root, g, g, limits, profile.Of(c), g.states(), g.save)
	g.profiles = profile.Of(c)
}

// plans are the writes that a dry run shows.
func (g *rig) plans() []string {
	g.Helper()
	var list []string
	for _, p := range profile.Plans(g.Open(), g.profiles, g.states()) {
		for _, w := range p.Writes {
			list = append(list, event(w.File, w.Data))
		}
	}
	return list
}

// apply returns the results, by address.
func (g *rig) apply() map[string]profile.Result {
	g.Helper()
	results := map[string]profile.Result{}
	for _, r := range g.Apply(g.Context(), g.Open().Machine) {
		results[r.Address] = r
	}
	return results
}

// want applies, which must come out so.
func (g *rig) want(address string, outcome profile.Outcome) profile.Result {
	g.Helper()
	r := g.apply()[address]
	if r.Outcome != outcome {
		g.Fatalf("%s: %s (%v, %s), want %s", address, r.Outcome, r.Err, r.Holder, outcome)
	}
	return r
}

// event is a write for people: of a file only what is needed to tell it.
func event(file, data string) string {
	file = strings.TrimPrefix(file, "sys/bus/pci/devices/")
	return strings.TrimPrefix(file, "sys/bus/") + " " + strings.ReplaceAll(data, "\n", `\n`)
}

// happened returns the writes since it was last asked.
func (g *rig) happened() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.journal
	g.journal = nil
	return list
}

// Write implements [sysfs.Writer].
func (g *rig) Write(_ context.Context, name, data string) error {
	g.mu.Lock()
	g.writes++
	n, meanwhile := g.writes, g.meanwhile
	g.journal = append(g.journal, event(name, data))
	g.mu.Unlock()
	if meanwhile != nil {
		if err := meanwhile(n, name, data); err != nil {
			return err
		}
	}
	if strings.Contains(name, "_resources/") {
		return g.storeResource("/"+name, data)
	}
	if strings.Contains(name, "/sriov_admin/") {
		return g.storeQuota("/"+name, data)
	}
	err := g.Kernel.Write("/"+name, data)
	if strings.HasSuffix(name, xe+"/sriov_numvfs") && err == nil && data == "0" {
		for _, vf := range []string{"vf1", "vf2"} {
			g.File("/sys/devices/pci0000:37/"+xe+"/sriov_admin/"+vf+"/profile/vram_quota", "0")
		}
	}
	if strings.HasSuffix(name, dlb+"/sriov_numvfs") {
		g.showResources()
	}
	if err == nil && g.after != nil {
		g.after("/"+name, data)
	}
	return err
}

// storeQuota is what the driver xe does.
func (g *rig) storeQuota(name, data string) error {
	tree := g.Tree()
	file := strings.Replace(name, devices, "/sys/devices/pci0000:37/", 1)
	if _, ok := tree[file]; !ok {
		return syscall.ENOENT
	}
	n, err := strconv.ParseUint(data, 10, 64)
	switch path.Base(name) {
	case "sched_priority":
		all := []string{"low", "normal", "high"}
		i := slices.Index(all, data)
		if i < 0 {
			return syscall.EINVAL
		}
		all[i] = "[" + data + "]"
		data = strings.Join(all, " ")
	case "vram_quota":
		if err != nil || n > 1<<33 {
			return syscall.EINVAL
		}
		if tree["/sys/devices/pci0000:37/"+xe+"/sriov_numvfs"] != "0" {
			return syscall.EBUSY
		}
	default:
		if err != nil {
			return syscall.EINVAL
		}
	}
	g.File(file, data)
	return nil
}

// storeResource is what the driver dlb2 does.
func (g *rig) storeResource(name, data string) error {
	locked, ok := g.Tree()[strings.Replace(path.Dir(name), devices, "/sys/devices/pci0000:6d/", 1)+"/locked"]
	switch {
	case !ok:
		return syscall.ENOENT
	case locked == "1":
		return syscall.EPERM
	}
	g.File(name, data)
	return nil
}

// showResources shows what virtual functions have, which is nothing while they are new.
func (g *rig) showResources() {
	tree := g.Tree()
	dir := "/sys/devices/pci0000:6d/" + dlb
	for i := range 16 {
		vf := fmt.Sprintf("%s/vf%d_resources", dir, i)
		switch _, ok := tree[fmt.Sprintf("%s/virtfn%d", dir, i)]; {
		case !ok:
			g.Remove(vf)
		case tree[vf+"/locked"] == "":
			for _, name := range v1alpha1.LoadBalancerResources {
				g.File(vf+"/"+name, "0")
			}
			g.File(vf+"/locked", "0")
		}
	}
}

// lock locks a virtual function's resources when it gets its driver.
func (g *rig) lock(f devicetest.Function) error {
	if f.Device == 0x2711 {
		index := int(f.Path[len(f.Path)-1]-'0') - 1
		g.File(fmt.Sprintf("/sys/devices/pci0000:6d/%s/vf%d_resources/locked", dlb, index), "1")
	}
	return nil
}

// Withhold implements [profile.Users].
func (g *rig) Withhold(_ context.Context, address string) (release func(), holder string) {
	if holder := g.users[address]; holder != "" {
		return nil, holder
	}
	g.held[address] = true
	return func() { delete(g.held, address) }, ""
}

func (g *rig) save(states []profile.State) error {
	if g.failSave != nil {
		return g.failSave
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.journal = append(g.journal, "save "+strings.Join(addresses(states), " "))
	g.saves = append(g.saves, slices.Clone(states))
	return nil
}

func addresses(states []profile.State) []string {
	var list []string
	for _, s := range states {
		list = append(list, s.Address)
	}
	return list
}

// states are those that were saved last.
func (g *rig) states() []profile.State {
	if len(g.saves) == 0 {
		return nil
	}
	return g.saves[len(g.saves)-1]
}

// tree is the host without what tells of the past.
func (g *rig) tree() map[string]string {
	g.Helper()
	tree := g.Tree()
	maps.DeleteFunc(tree, func(name, _ string) bool { return path.Base(name) == "cmd_status" })
	return tree
}

// must writes as an administrator does.
func (g *rig) must(name, data string) {
	g.Helper()
	if err := g.Kernel.Write(name, data); err != nil {
		g.Fatal(err)
	}
}
