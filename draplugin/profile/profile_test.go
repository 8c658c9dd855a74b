package profile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/draplugin/profile"
	"github.com/topolet/topolet/draplugin/sysfs"
	"github.com/topolet/topolet/topology/device/devicetest"
)

// twoQueues are a layout of a DSA device, and oneQueue of an IAA.
const (
	twoQueues = `[{groups: [
		{engines: 2, readBuffers: 8, workQueues: [{name: app1, size: 16, blockOnFault: true}]},
		{engines: 1, workQueues: [{name: app2, mode: shared, size: 32, threshold: 24, priority: 5, maxTransferSize: 4194304, maxBatchSize: 64}]},
	]}]`
	oneQueue    = `[{groups: [{engines: 1, workQueues: [{name: zip, size: 128}]}]}]`
	kernelQueue = `[{groups: [{engines: 4, workQueues: [{name: copy, size: 128, driver: dmaengine}]}]}]`
)

// scenario is a machine that a profile changes.
type scenario struct {
	family, profile string
	address         string
	prepare         func(*rig)
	// writes bring it to the profile, and restore brings it back.
	writes, restore []string
}

// lines are events, one a line, with the function's directory left out of the first ones.
func lines(address, text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case strings.HasPrefix(line, "dsa/drivers/"), strings.HasPrefix(line, "pci/drivers/"):
			list = append(list, line)
		default:
			list = append(list, address+"/"+line)
		}
	}
	return list
}

func scenarios() map[string]scenario {
	return map[string]scenario{
		"virtual functions": {
			"gpu", "[{virtualFunctions: 2}]", gpu, nil,
			lines(gpu, "sriov_numvfs 2"), lines(gpu, "sriov_numvfs 0"),
		},
		"virtual functions without drivers": {
			"gpu", "[{virtualFunctions: 2, probeVirtualFunctions: false}]", gpu, nil,
			lines(gpu, `sriov_drivers_autoprobe 0
				sriov_numvfs 2`),
			lines(gpu, `sriov_numvfs 0
				sriov_drivers_autoprobe 1`),
		},
		"another number": {
			"nic", "[{virtualFunctions: 4, probeVirtualFunctions: false}]", nic,
			func(g *rig) { g.must(devices+nic+"/sriov_numvfs", "2") },
			lines(nic, `sriov_numvfs 0
				sriov_drivers_autoprobe 0
				sriov_numvfs 4`),
			lines(nic, `sriov_numvfs 0
				sriov_drivers_autoprobe 1
				sriov_numvfs 2`),
		},
		"quotas": {
			"gpu", "[{virtualFunctions: 2, probeVirtualFunctions: false, quota: {execQuantumMs: 20, preemptTimeoutUs: 5000, schedPriority: normal, vramBytes: 1073741824}}]", xe, nil,
			lines(xe, `sriov_drivers_autoprobe 0
				sriov_admin/vf1/profile/exec_quantum_ms 20
				sriov_admin/vf1/profile/preempt_timeout_us 5000
				sriov_admin/vf1/profile/sched_priority normal
				sriov_admin/vf1/profile/vram_quota 1073741824
				sriov_admin/vf2/profile/exec_quantum_ms 20
				sriov_admin/vf2/profile/preempt_timeout_us 5000
				sriov_admin/vf2/profile/sched_priority normal
				sriov_admin/vf2/profile/vram_quota 1073741824
				sriov_numvfs 2`),
			lines(xe, `sriov_numvfs 0
				sriov_drivers_autoprobe 1
				sriov_admin/vf1/profile/exec_quantum_ms 0
				sriov_admin/vf1/profile/preempt_timeout_us 0
				sriov_admin/vf1/profile/sched_priority low
				sriov_admin/vf1/profile/vram_quota 0
				sriov_admin/vf2/profile/exec_quantum_ms 0
				sriov_admin/vf2/profile/preempt_timeout_us 0
				sriov_admin/vf2/profile/sched_priority low
				sriov_admin/vf2/profile/vram_quota 0`),
		},
		"time of virtual functions that there are": {
			"gpu", "[{virtualFunctions: 1, quota: {execQuantumMs: 20}}]", xe,
			func(g *rig) { g.must(devices+xe+"/sriov_numvfs", "1") },
			lines(xe, "sriov_admin/vf1/profile/exec_quantum_ms 20"),
			lines(xe, "sriov_admin/vf1/profile/exec_quantum_ms 0"),
		},
		"memory of virtual functions that there are": {
			"gpu", "[{virtualFunctions: 1, quota: {vramBytes: 4096}}]", xe,
			func(g *rig) { g.must(devices+xe+"/sriov_numvfs", "1") },
			lines(xe, `sriov_numvfs 0
				sriov_admin/vf1/profile/vram_quota 4096
				sriov_numvfs 1`),
			lines(xe, `sriov_numvfs 0
				sriov_admin/vf1/profile/vram_quota 0
				sriov_numvfs 1`),
		},
		"memory that one of them has already": {
			"gpu", "[{virtualFunctions: 2, quota: {vramBytes: 4096}}]", xe,
			func(g *rig) {
				g.File("/sys/devices/pci0000:37/"+xe+"/sriov_admin/vf1/profile/vram_quota", "4096")
				g.must(devices+xe+"/sriov_numvfs", "2")
			},
			lines(xe, `sriov_numvfs 0
				sriov_admin/vf1/profile/vram_quota 4096
				sriov_admin/vf2/profile/vram_quota 4096
				sriov_numvfs 2`),
			lines(xe, `sriov_numvfs 0
				sriov_admin/vf1/profile/vram_quota 4096
				sriov_admin/vf2/profile/vram_quota 0
				sriov_numvfs 2`),
		},
		"no virtual functions": {
			"gpu", "[{virtualFunctions: 0}]", gpu,
			func(g *rig) { g.must(devices+gpu+"/sriov_numvfs", "3") },
			lines(gpu, "sriov_numvfs 0"), lines(gpu, "sriov_numvfs 3"),
		},
		"services": {
			"qat", "[{services: [dc, sym], virtualFunctions: 4, probeVirtualFunctions: false, autoReset: true}]", qat, nil,
			lines(qat, `qat/state down
				qat/cfg_services dc;sym
				qat/state up
				sriov_drivers_autoprobe 0
				sriov_numvfs 4
				qat/auto_reset on`),
			lines(qat, `sriov_numvfs 0
				qat/state down
				qat/cfg_services sym;asym
				qat/state up
				sriov_drivers_autoprobe 1
				qat/auto_reset off`),
		},
		"services of an accelerator with virtual functions": {
			"qat", "[{services: [dcc], virtualFunctions: 4}]", qat,
			func(g *rig) { g.must(devices+qat+"/sriov_numvfs", "4") },
			lines(qat, `sriov_numvfs 0
				qat/state down
				qat/cfg_services dcc
				qat/state up
				sriov_numvfs 4`),
			lines(qat, `sriov_numvfs 0
				qat/state down
				qat/cfg_services sym;asym
				qat/state up
				sriov_numvfs 4`),
		},
		"services of an accelerator that is down": {
			"qat", "[{services: [asym, sym], virtualFunctions: 0}]", qat,
			func(g *rig) { g.must(devices+qat+"/qat/state", "down") },
			lines(qat, "qat/state up"), lines(qat, "qat/state down"),
		},
		"other services of an accelerator that is down": {
			"qat", "[{services: [dc], virtualFunctions: 4}]", qat,
			func(g *rig) { g.must(devices+qat+"/qat/state", "down") },
			lines(qat, `qat/cfg_services dc
				qat/state up
				sriov_numvfs 4`),
			lines(qat, `sriov_numvfs 0
				qat/state down
				qat/cfg_services sym;asym`),
		},
		"saving power": {
			"qat", "[{pmIdle: false, virtualFunctions: 4}]", qat,
			func(g *rig) { g.must(devices+qat+"/sriov_numvfs", "4") },
			lines(qat, `sriov_numvfs 0
				qat/state down
				qat/pm_idle_enabled 0
				qat/state up
				sriov_numvfs 4`),
			lines(qat, `sriov_numvfs 0
				qat/state down
				qat/pm_idle_enabled 1
				qat/state up
				sriov_numvfs 4`),
		},
		"services and saving power": {
			"qat", "[{services: [dc], pmIdle: false, virtualFunctions: 0}]", qat, nil,
			lines(qat, `qat/state down
				qat/cfg_services dc
				qat/pm_idle_enabled 0
				qat/state up`),
			lines(qat, `qat/state down
				qat/cfg_services sym;asym
				qat/pm_idle_enabled 1
				qat/state up`),
		},
		"resets": {
			"qat", "[{autoReset: true}]", qat,
			func(g *rig) { g.must(devices+qat+"/sriov_numvfs", "4") },
			lines(qat, "qat/auto_reset on"), lines(qat, "qat/auto_reset off"),
		},
		"queues": {
			"dsa", twoQueues, dsa, nil,
			lines(dsa, `dsa0/engine0.0/group_id 0
				dsa0/engine0.1/group_id 0
				dsa0/engine0.2/group_id 1
				dsa0/group0.0/read_buffers_allowed 8
				dsa0/wq0.0/group_id 0
				dsa0/wq0.0/mode dedicated
				dsa0/wq0.0/size 16
				dsa0/wq0.0/type user
				dsa0/wq0.0/name app1
				dsa0/wq0.0/driver_name user
				dsa0/wq0.0/priority 10
				dsa0/wq0.0/block_on_fault 1
				dsa0/wq0.1/group_id 1
				dsa0/wq0.1/size 32
				dsa0/wq0.1/type user
				dsa0/wq0.1/name app2
				dsa0/wq0.1/driver_name user
				dsa0/wq0.1/priority 5
				dsa0/wq0.1/threshold 24
				dsa0/wq0.1/max_transfer_size 4194304
				dsa0/wq0.1/max_batch_size 64
				dsa/drivers/idxd/bind dsa0
				dsa/drivers/user/bind wq0.0
				dsa/drivers/user/bind wq0.1`),
			lines(dsa, `dsa/drivers/user/unbind wq0.0
				dsa/drivers/user/unbind wq0.1
				dsa/drivers/idxd/unbind dsa0
				dsa0/wq0.0/driver_name \n
				dsa0/wq0.1/driver_name \n`),
		},
		"a queue for compression": {
			"iaa", oneQueue, iaa, nil,
			lines(iaa, `iax1/engine1.0/group_id 0
				iax1/wq1.0/group_id 0
				iax1/wq1.0/mode dedicated
				iax1/wq1.0/size 128
				iax1/wq1.0/type user
				iax1/wq1.0/name zip
				iax1/wq1.0/driver_name user
				iax1/wq1.0/priority 10
				dsa/drivers/idxd/bind iax1
				dsa/drivers/user/bind wq1.0`),
			lines(iaa, `dsa/drivers/user/unbind wq1.0
				dsa/drivers/idxd/unbind iax1
				iax1/wq1.0/driver_name \n`),
		},
		"other queues": {
			"dsa", kernelQueue, dsa, func(g *rig) { divide(g, twoQueues) },
			lines(dsa, `dsa/drivers/user/unbind wq0.0
				dsa/drivers/user/unbind wq0.1
				dsa/drivers/idxd/unbind dsa0
				dsa0/engine0.0/group_id 0
				dsa0/engine0.1/group_id 0
				dsa0/engine0.2/group_id 0
				dsa0/engine0.3/group_id 0
				dsa0/wq0.0/group_id 0
				dsa0/wq0.0/mode dedicated
				dsa0/wq0.0/size 128
				dsa0/wq0.0/type kernel
				dsa0/wq0.0/name copy
				dsa0/wq0.0/driver_name dmaengine
				dsa0/wq0.0/priority 10
				dsa/drivers/idxd/bind dsa0
				dsa/drivers/dmaengine/bind wq0.0`),
			append(lines(dsa, `dsa/drivers/dmaengine/unbind wq0.0
				dsa/drivers/idxd/unbind dsa0`), scenarioQueues()...),
		},
		"queues that somebody has left half done": {
			"dsa", `[{groups: [{engines: 1, workQueues: [{name: app1, size: 100}]}]}]`, dsa,
			func(g *rig) {
				for _, w := range []string{"wq0.1/size 64", "wq0.2/size 64", "wq0.1/threshold 8", "wq0.1/group_id 3", "engine0.3/group_id 3", "wq0.0/type kernel", "wq0.0/name app1"} {
					file, data, _ := strings.Cut(w, " ")
					g.must("/sys/bus/dsa/devices/dsa0/"+file, data)
				}
			},
			lines(dsa, `dsa0/wq0.1/size 0
				dsa0/wq0.2/size 0
				dsa0/engine0.0/group_id 0
				dsa0/engine0.3/group_id -1
				dsa0/wq0.0/group_id 0
				dsa0/wq0.0/mode dedicated
				dsa0/wq0.0/size 100
				dsa0/wq0.0/type user
				dsa0/wq0.0/name app1
				dsa0/wq0.0/driver_name user
				dsa0/wq0.0/priority 10
				dsa0/wq0.1/group_id -1
				dsa/drivers/idxd/bind dsa0
				dsa/drivers/user/bind wq0.0`),
			lines(dsa, `dsa/drivers/user/unbind wq0.0
				dsa/drivers/idxd/unbind dsa0
				dsa0/engine0.3/group_id 3
				dsa0/wq0.0/type kernel
				dsa0/wq0.0/name app1
				dsa0/wq0.0/driver_name \n
				dsa0/wq0.1/group_id 3
				dsa0/wq0.1/size 64
				dsa0/wq0.1/threshold 8
				dsa0/wq0.2/size 64`),
		},
		"resources": {
			"dlb", "[{virtualFunctions: 2, resources: {num_sched_domains: 4, num_ldb_ports: 8}}]", dlb, nil,
			lines(dlb, `sriov_drivers_autoprobe 0
				sriov_numvfs 2
				vf0_resources/num_sched_domains 4
				vf0_resources/num_ldb_ports 8
				vf1_resources/num_sched_domains 4
				vf1_resources/num_ldb_ports 8
				sriov_drivers_autoprobe 1
				pci/drivers/dlb2/bind 0000:6d:00.1
				pci/drivers/dlb2/bind 0000:6d:00.2`),
			lines(dlb, "sriov_numvfs 0"),
		},
		"resources without drivers": {
			"dlb", "[{virtualFunctions: 1, probeVirtualFunctions: false, resources: {num_sn1_slots: 1}}]", dlb,
			func(g *rig) { g.must(devices+dlb+"/sriov_drivers_autoprobe", "0") },
			lines(dlb, `sriov_numvfs 1
				vf0_resources/num_sn1_slots 1`),
			lines(dlb, "sriov_numvfs 0"),
		},
	}
}

// scenarioQueues are the writes that make two queues out of what has been disabled.
func scenarioQueues() []string {
	return lines(dsa, `dsa0/engine0.0/group_id 0
		dsa0/engine0.1/group_id 0
		dsa0/engine0.2/group_id 1
		dsa0/group0.0/read_buffers_allowed 8
		dsa0/wq0.0/group_id 0
		dsa0/wq0.0/mode dedicated
		dsa0/wq0.0/size 16
		dsa0/wq0.0/type user
		dsa0/wq0.0/name app1
		dsa0/wq0.0/driver_name user
		dsa0/wq0.0/priority 10
		dsa0/wq0.0/block_on_fault 1
		dsa0/wq0.1/group_id 1
		dsa0/wq0.1/size 32
		dsa0/wq0.1/type user
		dsa0/wq0.1/name app2
		dsa0/wq0.1/priority 5
		dsa0/wq0.1/threshold 24
		dsa0/wq0.1/max_transfer_size 4194304
		dsa0/wq0.1/max_batch_size 64
		dsa/drivers/idxd/bind dsa0
		dsa/drivers/user/bind wq0.0
		dsa/drivers/user/bind wq0.1`)
}

// divide has an administrator divide the DSA device.
func divide(g *rig, layout string) {
	g.Helper()
	g.open(patient, map[string]string{"dsa": layout})
	g.want(dsa, profile.Changed)
	g.saves = nil
	g.happened()
}

// begin prepares a scenario and returns what the host is like.
func (s scenario) begin(t *testing.T) (*rig, map[string]string) {
	t.Helper()
	g := newRig(t, s.address)
	if s.prepare != nil {
		s.prepare(g)
	}
	g.open(patient, map[string]string{s.family: s.profile})
	return g, g.tree()
}

func TestAFunctionIsChangedAndRestoredInThisOrder(t *testing.T) {
	for name, s := range scenarios() {
		t.Run(name, func(t *testing.T) {
			g, before := s.begin(t)
			if diff := cmp.Diff(s.writes, g.plans()); diff != "" {
				t.Errorf("the dry run -want +got:\n%s", diff)
			}
			g.want(s.address, profile.Changed)
			if diff := cmp.Diff(append([]string{"save " + s.address}, s.writes...), g.happened()); diff != "" {
				t.Errorf("changing it -want +got:\n%s", diff)
			}
			if len(g.held) != 0 {
				t.Errorf("%v are withheld for ever", g.held)
			}
			after := g.tree()
			g.want(s.address, profile.Applied)
			if events := g.happened(); len(events) != 0 {
				t.Errorf("applying it again: %q", events)
			}
			// Another process finds all as it should be.
			g.open(patient, map[string]string{s.family: s.profile})
			g.want(s.address, profile.Applied)
			if diff := cmp.Diff(after, g.tree()); diff != "" || len(g.happened()) != 0 {
				t.Errorf("another process changes something:\n%s", diff)
			}

			g.open(patient, nil)
			g.want(s.address, profile.Restored)
			if diff := cmp.Diff(append(s.restore, "save "), g.happened()); diff != "" {
				t.Errorf("restoring it -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(before, g.tree()); diff != "" {
				t.Errorf("the host -before +after:\n%s", diff)
			}
			if r := g.apply(); len(r) != 0 || len(g.happened()) != 0 {
				t.Errorf("after it was restored: %v", r)
			}
		})
	}
}

func TestWithoutProfilesNothingIsWritten(t *testing.T) {
	g := newRig(t)
	if r := g.apply(); len(r) != 0 || len(g.happened()) != 0 {
		t.Errorf("results %v", r)
	}
}

func TestAFailureLeavesAFunctionAsItWas(t *testing.T) {
	for name, s := range scenarios() {
		t.Run(name, func(t *testing.T) {
			g, before := s.begin(t)
			for k := range s.writes {
				last := g.writes + k + 1
				g.meanwhile = func(n int, _, _ string) error {
					if n == last {
						return syscall.EIO
					}
					return nil
				}
				g.open(patient, map[string]string{s.family: s.profile})
				r := g.want(s.address, profile.Failed)
				failed, ok := errors.AsType[*sysfs.WriteError](r.Err)
				if !ok || !errors.Is(failed, syscall.EIO) || event(failed.File, failed.Data) != s.writes[k] || failed.Remedy == "" {
					t.Errorf("write %d: error %v, want the file, the kernel's number and what to do", k+1, r.Err)
				}
				if diff := cmp.Diff(before, g.tree()); diff != "" {
					t.Fatalf("write %d: the host -before +after:\n%s", k+1, diff)
				}
				if states := g.states(); len(states) != 0 || len(g.held) != 0 {
					t.Errorf("write %d: there is something to restore: %v, %d states; held %v", k+1, r.Err, len(states), g.held)
				}
				g.happened()
				// It is not tried all the time.
				if again := g.want(s.address, profile.Failed); !errors.Is(again.Err, r.Err) || len(g.happened()) != 0 {
					t.Errorf("write %d: it is tried again: %v", k+1, again.Err)
				}
			}
			g.open(patient, map[string]string{s.family: s.profile})
			g.want(s.address, profile.Changed)
		})
	}
}

func TestAFailedFunctionIsTriedAgainLater(t *testing.T) {
	g := newRig(t)
	limits := patient
	limits.Retry = 0
	g.open(limits, map[string]string{"gpu": "[{virtualFunctions: 2}]"})
	g.meanwhile = func(int, string, string) error { return syscall.ENOMEM }
	g.want(gpu, profile.Failed)
	g.meanwhile = nil
	g.want(gpu, profile.Changed)
}

func TestAFailedFunctionIsTriedAgainWhenItHasChanged(t *testing.T) {
	g := newRig(t)
	g.open(patient, map[string]string{"gpu": "[{virtualFunctions: 2}]"})
	g.meanwhile = func(int, string, string) error { return syscall.ENOMEM }
	g.want(gpu, profile.Failed)
	g.meanwhile = nil
	g.must(devices+gpu+"/sriov_numvfs", "1")
	g.want(gpu, profile.Changed)
}

func TestAFunctionInUseIsLeftAlone(t *testing.T) {
	for name, s := range scenarios() {
		t.Run(name, func(t *testing.T) {
			g, before := s.begin(t)
			g.users[s.address] = "claim prod/db"
			if r := g.want(s.address, profile.Pending); r.Holder != "claim prod/db" {
				t.Errorf("the holder is %q", r.Holder)
			}
			if diff := cmp.Diff(before, g.tree()); diff != "" || len(g.happened()) != 0 {
				t.Errorf("something is written:\n%s", diff)
			}
			delete(g.users, s.address)
			g.want(s.address, profile.Changed)
			after := g.tree()
			g.happened()

			// The same holds for the way back.
			g.users[s.address] = "claim prod/db"
			g.open(patient, nil)
			g.want(s.address, profile.Pending)
			if diff := cmp.Diff(after, g.tree()); diff != "" || len(g.happened()) != 0 {
				t.Errorf("something is restored:\n%s", diff)
			}
		})
	}
}

func TestTheKernelAndTheHostAreUsersToo(t *testing.T) {
	for name, test := range map[string]struct {
		family, profile, address string
		use                      func(*rig)
		holder                   string
	}{
		"a queue is open": {"dsa", twoQueues, dsa, func(g *rig) {
			divide(g, kernelQueue)
			g.open(patient, map[string]string{"dsa": twoQueues})
			g.File("/sys/devices/pci0000:6a/"+dsa+"/dsa0/wq0.0/clients", "2")
		}, "2 clients of work queue wq0.0"},
		"clients cannot be counted": {"dsa", twoQueues, dsa, func(g *rig) { g.Remove("/sys/devices/pci0000:6a/" + dsa + "/dsa0/wq0.3/clients") }, "clients of work queue wq0.3"},
		"the default route": {"nic", "[{virtualFunctions: 2}]", nic, func(g *rig) {
			g.File("/sys/devices/pci0000:37/"+nic+"/net/eth0/address", "52:54:00:00:00:01")
			g.Link("/sys/class/net/eth0", "/sys/devices/pci0000:37/"+nic+"/net/eth0")
			g.File("/proc/self/net/route", g.tree()["/proc/self/net/route"]+"\neth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0")
		}, "eth0 has the default route"},
		"a bridge over a virtual function": {"nic", "[{virtualFunctions: 0}]", nic, func(g *rig) {
			g.must(devices+nic+"/sriov_numvfs", "1")
			const vf = "/sys/devices/pci0000:37/0000:3b:00.1/net/eth1"
			g.File(vf+"/brport/port_no", "0x1")
			g.Link("/sys/class/net/eth1", vf)
		}, "eth1 is a port of another interface"},
		"routes cannot be read": {"nic", "[{virtualFunctions: 2}]", nic, func(g *rig) {
			g.File("/sys/devices/pci0000:37/"+nic+"/net/eth0/address", "52:54:00:00:00:01")
			g.Link("/sys/class/net/eth0", "/sys/devices/pci0000:37/"+nic+"/net/eth0")
			g.Remove("/proc/self/net/route")
		}, "perhaps the host itself"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.open(patient, map[string]string{test.family: test.profile})
			test.use(g)
			before := g.tree()
			if r := g.want(test.address, profile.Pending); !strings.Contains(r.Holder, test.holder) {
				t.Errorf("the holder is %q, want %q", r.Holder, test.holder)
			}
			if diff := cmp.Diff(before, g.tree()); diff != "" || len(g.happened()) != 0 || len(g.held) != 0 {
				t.Errorf("something is written or withheld (%v):\n%s", g.held, diff)
			}
		})
	}
}

func TestWhatCannotBeHadIsRefusedBeforeTheFirstWrite(t *testing.T) {
	for name, test := range map[string]struct {
		family, profile, address string
		change                   func(*rig)
		want                     string
	}{
		"too many virtual functions":    {"gpu", "[{virtualFunctions: 32}]", gpu, nil, "it can have 31 virtual functions, not 32"},
		"some virtual functions of QAT": {"qat", "[{virtualFunctions: 3}]", qat, nil, "all of its virtual functions or none"},
		"a driver without resets": {"qat", "[{autoReset: true}]", qat, func(g *rig) {
			g.Remove("/sys/devices/pci0000:6b/" + qat + "/qat/auto_reset")
		}, qat + "/qat/auto_reset): leave it out"},
		"a driver without quotas": {"gpu", "[{virtualFunctions: 1, quota: {execQuantumMs: 1}}]", gpu, nil, gpu + "/sriov_admin/vf1/profile/exec_quantum_ms): leave it out"},
		"a driver that always saves power": {"qat", "[{pmIdle: false, virtualFunctions: 0}]", qat, func(g *rig) {
			g.Remove("/sys/devices/pci0000:6b/" + qat + "/qat/pm_idle_enabled")
		}, qat + "/qat/pm_idle_enabled): leave it out"},
		"a device that cannot be divided": {"dsa", twoQueues, dsa, func(g *rig) {
			g.File("/sys/devices/pci0000:6a/"+dsa+"/dsa0/configurable", "0")
		}, "it cannot be divided"},
		"a device that has stopped": {"dsa", twoQueues, dsa, func(g *rig) {
			g.File("/sys/devices/pci0000:6a/"+dsa+"/dsa0/state", "halted")
		}, "it is halted"},
		"too many engines": {"dsa", "[{groups: [{engines: 5, workQueues: [{name: a, size: 1}]}]}]", dsa, nil, "it has only 4 engines"},
		"too many groups":  {"dsa", "[{groups: [" + strings.Repeat("{engines: 1, workQueues: [{name: a, size: 1}]},", 5) + "]}]", dsa, nil, "it has 4 groups, not 5"},
		"too many queues":  {"dsa", "[{groups: [{engines: 1, workQueues: [" + strings.Repeat("{name: a, size: 1},", 5) + "]}]}]", dsa, nil, "it has only 4 queues"},
		"too large queues": {"dsa", "[{groups: [{engines: 1, workQueues: [{name: a, size: 100}, {name: b, size: 29}]}]}]", dsa, nil, "room for 128 descriptors, not 129"},
		"two profiles": {"gpu", `[{match: {busIDs: ["` + gpu + `"]}, virtualFunctions: 1}, {match: {deviceIDs: ["0x4940"]}, virtualFunctions: 1}, {match: {deviceIDs: ["0x56c0"]}, virtualFunctions: 2}]`, gpu, nil,
			"matches both devices[0].profiles[0] and devices[0].profiles[2]"},
		"addresses that are not known": {"dlb", "[{virtualFunctions: 1, resources: {num_sn1_slots: 1}}]", dlb, func(g *rig) {
			g.Remove("/sys/devices/pci0000:6d/" + dlb + "/sriov_offset")
		}, "addresses of its virtual functions"},
		"a boot that is not known":     {"gpu", "[{virtualFunctions: 1}]", gpu, func(g *rig) { g.Remove(bootFile) }, "boot_id cannot be read"},
		"a state that cannot be saved": {"gpu", "[{virtualFunctions: 1}]", gpu, func(g *rig) { g.failSave = syscall.ENOSPC }, "stays as it is: saving that: no space"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			if test.change != nil {
				test.change(g)
			}
			g.open(patient, map[string]string{test.family: test.profile, "iaa": oneQueue})
			results := g.apply()
			r := results[test.address]
			if r.Outcome != profile.Failed || r.Err == nil || !strings.Contains(r.Err.Error(), test.want) || !strings.Contains(r.Err.Error(), test.address) {
				t.Errorf("%v, want %q", r, test.want)
			}
			for _, e := range g.happened() {
				if strings.Contains(e, test.address+"/") {
					t.Errorf("it is written: %s", e)
				}
			}
			// Other functions are not affected.
			if other := results[iaa]; other.Outcome != profile.Changed && g.failSave == nil && test.family != "gpu" {
				t.Errorf("another function: %v", other)
			}
		})
	}
}

func TestOneFunctionThatFailsDoesNotStopOthers(t *testing.T) {
	g := newRig(t)
	g.open(patient, map[string]string{"gpu": "[{virtualFunctions: 1}]", "qat": "[{virtualFunctions: 4}]", "nic": "[{virtualFunctions: 2}]"})
	g.users[nic] = "claim prod/db"
	g.Refuse(devicetest.Matching(gpu+"/sriov_numvfs"), syscall.ENOMEM)
	r := g.apply()
	if r[gpu].Outcome != profile.Failed || r[nic].Outcome != profile.Pending || r[qat].Outcome != profile.Changed {
		t.Errorf("results %v", r)
	}
}

func TestRefusalsSayWhatCanBeDone(t *testing.T) {
	for name, test := range map[string]struct {
		family, profile, address, file string
		errno                          syscall.Errno
		want                           string
	}{
		"no virtual functions": {"gpu", "[{virtualFunctions: 1}]", gpu, "sriov_numvfs", syscall.ENOENT, "the driver i915 cannot make virtual functions"},
		"no memory":            {"gpu", "[{virtualFunctions: 1}]", gpu, "sriov_numvfs", syscall.ENOMEM, "ask for fewer"},
		"no IOMMU":             {"qat", "[{virtualFunctions: 4}]", qat, "sriov_numvfs", syscall.EINVAL, "see that the IOMMU is on"},
		"not together":         {"qat", "[{services: [dc, asym], virtualFunctions: 0}]", qat, "cfg_services", syscall.EINVAL, "does not offer these services together"},
		"in use":               {"qat", "[{services: [dc, asym], virtualFunctions: 0}]", qat, "state", syscall.EBUSY, "it is tried again"},
		"not to be set":        {"dsa", twoQueues, dsa, "size", syscall.EPERM, "somebody else has enabled it"},
		"not to be had":        {"dsa", twoQueues, dsa, "block_on_fault", syscall.EOPNOTSUPP, "does not have this"},
		"read-only":            {"gpu", "[{virtualFunctions: 1}]", gpu, "sriov_numvfs", syscall.EROFS, "let topolet write to the host's /sys"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.open(patient, map[string]string{test.family: test.profile})
			g.meanwhile = func(_ int, name, _ string) error {
				if strings.HasSuffix(name, "/"+test.file) {
					return test.errno
				}
				return nil
			}
			r := g.want(test.address, profile.Failed)
			if failed, ok := errors.AsType[*sysfs.WriteError](r.Err); !ok || !strings.Contains(failed.Remedy, test.want) {
				t.Errorf("error %v, want %q", r.Err, test.want)
			}
		})
	}
}

func TestAnAcceleratorTellsWhyItCannotBeEnabled(t *testing.T) {
	g := newRig(t)
	g.File("/sys/devices/pci0000:6a/"+dsa+"/dsa0/pasid_enabled", "0")
	before := g.tree()
	g.open(patient, map[string]string{"dsa": "[{groups: [{engines: 1, workQueues: [{name: app, size: 16}]}]}]"})
	r := g.want(dsa, profile.Failed)
	if !strings.Contains(r.Err.Error(), "boot with intel_iommu=on,sm_on") {
		t.Errorf("error %v", r.Err)
	}
	if diff := cmp.Diff(before, g.tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}
}

func TestWhatTheKernelMakesOfAWriteIsReadBack(t *testing.T) {
	for name, test := range map[string]struct {
		family, profile, address, file, got string
		// next is what would be written next, and times how often it is on the way back.
		next  string
		times int
	}{
		"another number of virtual functions": {"gpu", "[{virtualFunctions: 3}]", gpu, "/sys/devices/pci0000:37/" + gpu + "/sriov_numvfs", "2", "numvfs 0", 1},
		"other services":                      {"qat", "[{services: [dc], virtualFunctions: 4}]", qat, "/sys/devices/pci0000:6b/" + qat + "/qat/cfg_services", "sym", "state up", 1},
		"another name":                        {"dsa", twoQueues, dsa, "/sys/devices/pci0000:6a/" + dsa + "/dsa0/wq0.0/name", "other", "bind dsa0", 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.open(patient, map[string]string{test.family: test.profile})
			before := g.tree()
			g.after = func(file, data string) {
				if strings.HasSuffix(test.file, file[strings.LastIndex(file, "/"):]) && data != "0" && data != before[test.file] && data != "\n" {
					g.File(test.file, test.got)
				}
			}
			r := g.want(test.address, profile.Failed)
			mismatch, ok := errors.AsType[*profile.MismatchError](r.Err)
			if !ok || mismatch.Got != test.got || !strings.HasSuffix(test.file, mismatch.File[strings.LastIndex(mismatch.File, "/"):]) {
				t.Fatalf("error %v", r.Err)
			}
			// It was found out at once, and not when all was written.
			count := 0
			for _, e := range g.happened() {
				if strings.HasSuffix(e, test.next) {
					count++
				}
			}
			if count != test.times {
				t.Errorf("%q is written %d times, want %d", test.next, count, test.times)
			}
			if g.tree()[test.file] != before[test.file] {
				t.Errorf("%s is %q now", test.file, g.tree()[test.file])
			}
		})
	}
}

func TestAQueueThatIsNotEnabledIsFoundOut(t *testing.T) {
	g := newRig(t, iaa)
	g.open(patient, map[string]string{"iaa": oneQueue})
	before := g.tree()
	g.after = func(file, _ string) {
		if strings.HasSuffix(file, "user/bind") {
			g.File("/sys/devices/pci0000:6a/"+iaa+"/iax1/wq1.0/state", "disabled")
		}
	}
	r := g.want(iaa, profile.Failed)
	if mismatch, ok := errors.AsType[*profile.MismatchError](r.Err); !ok || mismatch.Got != "disabled" || !strings.HasSuffix(mismatch.File, "wq1.0/state") {
		t.Errorf("error %v", r.Err)
	}
	after := g.tree()
	for name := range before {
		if strings.Contains(name, "/iax1/") && before[name] != after[name] {
			t.Errorf("%s is %q, want %q", name, after[name], before[name])
		}
	}
}

func TestAStateIsOfOneRunOfTheMachine(t *testing.T) {
	g := newRig(t)
	g.open(patient, map[string]string{"gpu": "[{virtualFunctions: 2}]"})
	g.want(gpu, profile.Changed)
	g.File(bootFile, "another")
	g.happened()
	g.open(patient, nil)
	if r := g.apply(); len(r) != 0 || len(g.happened()) != 0 {
		t.Errorf("results %v", r)
	}
	// What is saved now is what the function is like now.
	g.open(patient, map[string]string{"gpu": "[{virtualFunctions: 5}]"})
	g.want(gpu, profile.Changed)
	want := []profile.State{{BootID: "another", Address: gpu, Family: "gpu", Before: profile.Settings{"sriov_numvfs": "2"}}}
	if diff := cmp.Diff(want, g.states()); diff != "" {
		t.Errorf("states -want +got:\n%s", diff)
	}
}

func TestTheFirstStateIsKept(t *testing.T) {
	g := newRig(t)
	before := g.tree()
	for _, p := range []string{"[{virtualFunctions: 2}]", "[{virtualFunctions: 4, probeVirtualFunctions: false}]", "[{virtualFunctions: 1}]"} {
		g.open(patient, map[string]string{"gpu": p})
		g.want(gpu, profile.Changed)
	}
	data, err := json.Marshal(g.states())
	const want = `[{"bootID":"6f1c1f6e-8f0a-4d4b-9d38-6a4f3a1f2f10","address":"0000:3a:00.0","family":"gpu","before":{"sriov_drivers_autoprobe":"1","sriov_numvfs":"0"}}]`
	if err != nil || string(data) != want {
		t.Errorf("states %s, %v, want %s", data, err, want)
	}
	g.open(patient, nil)
	g.want(gpu, profile.Restored)
	if diff := cmp.Diff(before, g.tree()); diff != "" {
		t.Errorf("the host -before +after:\n%s", diff)
	}
}

func TestACrashAtAnyWriteIsOvercome(t *testing.T) {
	for name, s := range scenarios() {
		t.Run(name, func(t *testing.T) {
			g, before := s.begin(t)
			for k := range s.writes {
				config := map[string]string{s.family: s.profile}
				g.open(patient, config)
				// Where nothing more is written, all is as if the process had ended.
				last := g.writes + k + 1
				g.meanwhile = func(n int, _, _ string) error {
					if n > last {
						return syscall.EIO
					}
					return nil
				}
				g.apply()
				g.meanwhile = nil
				if len(g.states()) != 1 {
					t.Fatalf("after write %d: %d states", k+1, len(g.states()))
				}
				// Every other time, the next process has no profile any more.
				if k%2 == 0 {
					g.open(patient, config)
					if r := g.apply()[s.address]; r.Outcome != profile.Changed && r.Outcome != profile.Applied {
						t.Fatalf("going on after write %d: %v", k+1, r)
					}
				}
				g.open(patient, nil)
				g.want(s.address, profile.Restored)
				if diff := cmp.Diff(before, g.tree()); diff != "" {
					t.Fatalf("after write %d: the host -before +after:\n%s", k+1, diff)
				}
			}
		})
	}
}

func TestAWriteThatIsNotAnsweredHoldsUpNobody(t *testing.T) {
	g := newRig(t)
	g.must(devices+gpu+"/sriov_numvfs", "2")
	const vf = "0000:3a:00.2"
	g.must(devices+vf+"/driver_override", "vfio-pci")
	g.must("/sys/bus/pci/drivers/i915/unbind", vf)
	g.must("/sys/bus/pci/drivers/vfio-pci/bind", vf)
	var group int
	if _, err := fmt.Sscanf(g.Tree()["/sys/devices/pci0000:37/"+vf+"/iommu_group"], "-> ../../../kernel/iommu_groups/%d", &group); err != nil {
		t.Fatal(err)
	}
	release := g.Hold(group)
	g.open(hasty, map[string]string{"gpu": "[{virtualFunctions: 3}]", "nic": "[{virtualFunctions: 1}]"})
	r := g.apply()
	stuck, ok := errors.AsType[*sysfs.StuckError](r[gpu].Err)
	if !ok || r[gpu].Outcome != profile.Failed || !strings.HasSuffix(stuck.File, gpu+"/sriov_numvfs") || r[nic].Outcome != profile.Changed {
		t.Fatalf("results %v", r)
	}
	g.happened()
	if again := g.want(gpu, profile.Failed); !errors.Is(again.Err, stuck) || len(g.happened()) != 0 {
		t.Errorf("before it is answered: %v", again)
	}
	release()
	for end := time.Now().Add(time.Minute); g.Tree()["/sys/devices/pci0000:37/"+gpu+"/sriov_numvfs"] != "0"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the write is never answered")
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if r := g.apply()[gpu]; r.Outcome == profile.Changed {
			break
		} else if time.Now().After(end) {
			t.Fatal(r)
		}
	}
	if n := g.Tree()["/sys/devices/pci0000:37/"+gpu+"/sriov_numvfs"]; n != "3" {
		t.Errorf("%s virtual functions", n)
	}
	// What there was before is still known.
	if s := g.states(); len(s) != 2 || s[0].Before["sriov_numvfs"] != "2" {
		t.Errorf("states %+v", s)
	}
}

func TestVirtualFunctionsAndNodesAreWaitedFor(t *testing.T) {
	for name, test := range map[string]struct{ family, profile, address, file, target string }{
		"a virtual function": {"gpu", "[{virtualFunctions: 2}]", gpu, "/sys/devices/pci0000:37/" + gpu + "/virtfn1", "/sys/devices/pci0000:37/0000:3a:00.2"},
		"its group":          {"gpu", "[{virtualFunctions: 2}]", gpu, "/sys/devices/pci0000:37/0000:3a:00.2/iommu_group", "/sys/kernel/iommu_groups/1"},
		"a node":             {"iaa", oneQueue, iaa, "/sys/devices/pci0000:6a/" + iaa + "/iax1/wq1.0/iax!wq1.0/dev", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			late := func() {
				if test.target != "" {
					g.Link(test.file, test.target)
				} else {
					g.File(test.file, "511:0")
				}
			}
			hide := func(wait bool) func(string, string) {
				return func(string, string) {
					if _, ok := g.Tree()[test.file]; ok {
						g.Remove(test.file)
						if wait {
							go func() { time.Sleep(50 * time.Millisecond); late() }()
						}
					}
				}
			}
			g.after = hide(true)
			g.open(patient, map[string]string{test.family: test.profile})
			g.want(test.address, profile.Changed)
			if _, ok := g.Tree()[test.file]; !ok {
				t.Error("it was not waited for")
			}
			g.after = nil
			g.open(patient, nil)
			g.want(test.address, profile.Restored)

			g.after = hide(false)
			g.open(profile.Limits{Write: time.Minute, Wait: 30 * time.Millisecond}, map[string]string{test.family: test.profile})
			r := g.want(test.address, profile.Failed)
			if _, ok := errors.AsType[*profile.WaitError](r.Err); !ok {
				t.Errorf("error %v", r.Err)
			}
		})
	}
}

func TestAFunctionThatHasLostItsDriverKeepsItsState(t *testing.T) {
	g := newRig(t)
	g.open(patient, map[string]string{"gpu": "[{virtualFunctions: 2}]"})
	g.want(gpu, profile.Changed)
	g.must("/sys/bus/pci/drivers/i915/unbind", gpu)
	g.open(patient, nil)
	if r := g.apply(); len(r) != 0 || len(g.states()) != 1 {
		t.Errorf("results %v", r)
	}
	g.must("/sys/bus/pci/drivers/i915/bind", gpu)
	g.want(gpu, profile.Restored)
}

func TestAnUndoingThatFailsIsSaid(t *testing.T) {
	g := newRig(t)
	g.open(patient, map[string]string{"qat": "[{services: [dc], virtualFunctions: 0}]"})
	g.Refuse(devicetest.Matching("cfg_services"), syscall.EINVAL)
	g.Refuse(func(_ int, name, data string) bool { return strings.HasSuffix(name, "state") && data == "up" }, syscall.EIO)
	r := g.want(qat, profile.Failed)
	if !strings.Contains(r.Err.Error(), "cannot be brought back") || len(g.states()) != 1 {
		t.Errorf("error %v, states %v", r.Err, g.states())
	}
}

func TestADryRunIsForPeople(t *testing.T) {
	g := newRig(t)
	g.open(patient, map[string]string{
		"gpu": `[{match: {deviceIDs: ["0x56c0"]}, virtualFunctions: 2, probeVirtualFunctions: false}, {match: {busIDs: ["0001:00:00.0"]}, virtualFunctions: 1}]`,
		"nic": "[{virtualFunctions: 0}]",
		"qat": "[{virtualFunctions: 3}]",
	})
	var out bytes.Buffer
	profile.Fprint(&out, profile.Plans(g.Open(), g.profiles, nil), g.profiles)
	const want = `0000:3a:00.0 (devices[0].profiles[0]):
  echo '0'          > /sys/bus/pci/devices/0000:3a:00.0/sriov_drivers_autoprobe  # give virtual functions no driver
  echo '2'          > /sys/bus/pci/devices/0000:3a:00.0/sriov_numvfs  # switch the virtual functions on
0000:3b:00.0 (devices[1].profiles[0]): there is nothing to do
0000:6b:00.0 (devices[2].profiles[0]): nothing is written: 0000:6b:00.0: it has all of its virtual functions or none (/sys/bus/pci/devices/0000:6b:00.0/sriov_totalvfs): ask for 4 or 0
devices[0].profiles[1]: no function of family gpu matches that is bound to its driver
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if events := g.happened(); len(events) != 0 {
		t.Errorf("it writes: %q", events)
	}
}

func TestFunctionsOfOtherFamiliesAreLeftAlone(t *testing.T) {
	for _, s := range scenarios() {
		g := newRig(t, s.address, nic, qat, dsa, iaa, dlb)
		g.open(patient, map[string]string{s.family: s.profile})
		if r := g.apply(); len(r) != 1 || r[s.address].Outcome == "" {
			t.Errorf("a profile of %s is for %v", s.family, r)
		}
	}
}
