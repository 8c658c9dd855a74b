package v1alpha1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"
)

const configuration = "apiVersion: topolet.dev/v1alpha1\nkind: Configuration\ndevices: "

func TestProfilesOfTheConfiguration(t *testing.T) {
	c, err := DecodeConfiguration([]byte(configuration + `
- family: gpu
  profiles: [{match: {busIDs: ["0000:3a:00.0"], deviceIDs: ["0x56c0"]}, virtualFunctions: 0, probeVirtualFunctions: false}]
- {family: qat, profiles: [{services: [dc, asym], virtualFunctions: 16, autoReset: false, pmIdle: true}, {match: {deviceIDs: ["0x4948"]}, autoReset: true}]}
- family: dsa
  profiles:
  - groups:
    - engines: 2
      readBuffers: 8
      workQueues: [{name: dpdk_1, size: 16}, {name: app, size: 32, mode: shared, driver: dmaengine, priority: 15, blockOnFault: true, maxTransferSize: 4096, maxBatchSize: 64}]
- {family: dlb, profiles: [{virtualFunctions: 1, resources: {num_sched_domains: 2, num_sn0_slots: 0}}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []DeviceFamily{
		{Family: "gpu", Profiles: []Profile{{
			Match:            ProfileMatch{BusIDs: []string{"0000:3a:00.0"}, DeviceIDs: []string{"0x56c0"}},
			VirtualFunctions: ptr.To(0), ProbeVirtualFunctions: ptr.To(false),
		}}},
		{Family: "qat", Profiles: []Profile{
			{Services: []string{"dc", "asym"}, VirtualFunctions: ptr.To(16), AutoReset: ptr.To(false), PMIdle: ptr.To(true)},
			{Match: ProfileMatch{DeviceIDs: []string{"0x4948"}}, AutoReset: ptr.To(true)},
		}},
		{Family: "dsa", Profiles: []Profile{{Groups: []WorkQueueGroup{{Engines: 2, ReadBuffers: 8, WorkQueues: []WorkQueue{
			{Name: "dpdk_1", Size: 16, Mode: DedicatedQueue, Driver: UserDriver, Priority: 10},
			{Name: "app", Size: 32, Mode: SharedQueue, Driver: DMAEngineDriver, Priority: 15, Threshold: 32, BlockOnFault: true, MaxTransferSize: 4096, MaxBatchSize: 64},
		}}}}}},
		{Family: "dlb", Profiles: []Profile{{VirtualFunctions: ptr.To(1), Resources: map[string]int{"num_sched_domains": 2, "num_sn0_slots": 0}}}},
	}
	if diff := cmp.Diff(want, c.Devices); diff != "" {
		t.Errorf("devices -want +got:\n%s", diff)
	}
}

func TestProfilesThatNoFunctionCanHaveAreRefused(t *testing.T) {
	queue := func(fields string) string {
		return "groups: [{engines: 1, workQueues: [{" + fields + "}]}]"
	}
	for _, test := range []struct{ family, profile, want string }{
		{"gpu", "", `devices[0].profiles[0]: "gpu" is not valid: name something`},
		{"gpu", "services: [dc]", `devices[0].profiles[0].services: "gpu" is not valid: leave it out: only qat can have it`},
		{"gpu", "autoReset: true", `profiles[0].autoReset`},
		{"nic", "quota: {execQuantumMs: 1}, virtualFunctions: 1", `profiles[0].quota: "nic" is not valid: leave it out: only gpu can have it`},
		{"gpu", "quota: {execQuantumMs: 1}", `virtualFunctions: "" is not valid: say how many`},
		{"gpu", "quota: {execQuantumMs: 1}, virtualFunctions: 0", `virtualFunctions: "" is not valid: say how many`},
		{"gpu", "quota: {}, virtualFunctions: 1", `quota: "{}" is not valid: name something`},
		{"gpu", "quota: {preemptTimeoutUs: -1}, virtualFunctions: 1", `quota.preemptTimeoutUs: "-1" is not valid: use 0 or more`},
		{"gpu", "quota: {schedPriority: urgent}, virtualFunctions: 1", `quota.schedPriority: "urgent" is not valid: use one of low, normal, high`},
		{"gpu", "resources: {num_ldb_queues: 1}", `profiles[0].resources: "gpu" is not valid`},
		{"qat", queue("name: a, size: 1"), `profiles[0].groups: "qat" is not valid: leave it out: only dsa, iaa can have it`},
		{"dsa", "virtualFunctions: 1", `profiles[0].virtualFunctions: "dsa" is not valid: leave it out: only gpu, nic, nvme, qat, dlb can have it`},
		{"npu", "probeVirtualFunctions: true", `profiles[0].probeVirtualFunctions`},
		{"gpu", "virtualFunctions: -1", `virtualFunctions: "-1" is not valid: use a number from 0`},
		{"gpu", "virtualFunctions: 65536", `virtualFunctions: "65536"`},
		{"gpu", "virtualFunctions: all", `cannot be read`},
		{"gpu", "vfs: 1", `unknown field "devices[0].profiles[0].vfs"`},
		{"gpu", `match: {busIDs: ["3a:00.0"]}, virtualFunctions: 1`, `match.busIDs[0]: "3a:00.0" is not valid: write an address as lspci -D`},
		{"gpu", `match: {busIDs: ["0000:3A:00.0"]}, virtualFunctions: 1`, `match.busIDs[0]`},
		{"gpu", `match: {deviceIDs: ["0x56c0", "56c0"]}, virtualFunctions: 1`, `match.deviceIDs[1]: "56c0" is not valid: write four hexadecimal digits`},
		{"gpu", `match: {deviceIDs: ["0x56C0"]}, virtualFunctions: 1`, `match.deviceIDs[0]`},
		{"qat", "services: [dc], autoReset: true", `virtualFunctions: "" is not valid: say how many there shall be`},
		{"qat", "pmIdle: true", `virtualFunctions: "" is not valid: say how many there shall be`},
		{"dlb", "pmIdle: true", `profiles[0].pmIdle: "dlb" is not valid: leave it out: only qat can have it`},
		{"qat", "services: [dc, cy], virtualFunctions: 0", `services[1]: "cy" is not valid: use some of sym, asym, dc, dcc, decomp`},
		{"qat", "services: [dc, dc], virtualFunctions: 0", `services[1]: "dc" is not valid: name each service once`},
		{"qat", "services: [dcc, sym], virtualFunctions: 0", `services[0]: "dcc" is not valid: use dcc alone`},
		{"dlb", "resources: {num_ldb_queues: 1}", `virtualFunctions: "" is not valid: say how many`},
		{"dlb", "virtualFunctions: 0, resources: {num_ldb_queues: 1}", `virtualFunctions: "" is not valid: say how many`},
		{"dlb", "virtualFunctions: 1, resources: {num_queues: 1}", `resources: "num_queues" is not valid: use some of num_sched_domains`},
		{"dlb", "virtualFunctions: 1, resources: {num_ldb_queues: -1}", `resources.num_ldb_queues: "-1" is not valid: use 0 or more`},
		{"dsa", "groups: [{engines: 0, workQueues: [{name: a, size: 1}]}]", `groups[0].engines: "0" is not valid: use 1 or more`},
		{"dsa", "groups: [{engines: 1, workQueues: []}]", `groups[0].workQueues: "0" is not valid: give the group at least one queue`},
		{"dsa", "groups: [{engines: 2, readBuffers: 7, workQueues: [{name: a, size: 1}]}]", `groups[0].readBuffers: "7" is not valid: use at least four for each engine: 8`},
		{"iaa", "groups: [{engines: 1, readBuffers: 8, workQueues: [{name: a, size: 1}]}]", `groups[0].readBuffers: "8" is not valid: leave it out: only dsa`},
		{"dsa", queue("size: 1"), `workQueues[0].name: "" is not valid: use 1 to 63 letters`},
		{"dsa", queue(`name: "a b", size: 1`), `workQueues[0].name: "a b"`},
		{"dsa", queue("name: a"), `workQueues[0].size: "0" is not valid: use 1 or more`},
		{"dsa", queue("name: a, size: 1, mode: both"), `workQueues[0].mode: "both" is not valid: use dedicated (the default) or shared`},
		{"dsa", queue("name: a, size: 1, driver: vfio"), `workQueues[0].driver: "vfio" is not valid: use user (the default) or dmaengine or crypto`},
		{"dsa", queue("name: a, size: 1, priority: 16"), `workQueues[0].priority: "16" is not valid: use a number from 1 to 15`},
		{"dsa", queue("name: a, size: 1, priority: -1"), `workQueues[0].priority`},
		{"dsa", queue("name: a, size: 8, threshold: 4"), `workQueues[0].threshold: "4" is not valid: leave it out: only shared queues have one`},
		{"dsa", queue("name: a, size: 8, mode: shared, threshold: 9"), `workQueues[0].threshold: "9" is not valid: use a number from 1 to the size`},
		{"dsa", queue("name: a, size: 8, maxTransferSize: 3"), `workQueues[0].maxTransferSize: "3" is not valid: use a power of two`},
		{"dsa", queue("name: a, size: 8, maxTransferSize: -4"), `workQueues[0].maxTransferSize`},
		{"dsa", queue("name: a, size: 8, maxBatchSize: 33"), `workQueues[0].maxBatchSize: "33" is not valid: use a power of two`},
		{"iaa", queue("name: a, size: 8, maxBatchSize: 32"), `workQueues[0].maxBatchSize: "32" is not valid: leave it out: only dsa has batches`},
	} {
		_, err := DecodeConfiguration([]byte(configuration + "[{family: " + test.family + ", profiles: [{" + test.profile + "}]}]"))
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s, %s: %v, want %q", test.family, test.profile, err, test.want)
		}
	}
}
