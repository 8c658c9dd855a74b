package draplugin

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/utils/ptr"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/topolet/topolet/allocator"
)

// wantResolved checks that a container runtime finds the devices.
func (r *rig) wantResolved(t *testing.T, devices []kubeletplugin.Device) {
	t.Helper()
	cache, err := cdi.NewCache(cdi.WithSpecDirs(r.cdiDir), cdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	if errs := cache.GetErrors(); len(errs) > 0 {
		t.Errorf("the CDI folder has errors: %v", errs)
	}
	for _, d := range devices {
		for _, id := range d.CDIDeviceIDs {
			if cache.GetDevice(id) == nil {
				t.Errorf("no CDI spec defines %s", id)
			}
		}
	}
}

func TestPreparingAgainGivesTheSame(t *testing.T) {
	r := newRig(t, twoNodes)
	claim := allocated("c", cpus("numa-0", "2"), cpus("numa-1", "4"))
	first := r.mustPrepare(t, claim)
	r.wantResolved(t, first)
	disk := r.disk(t)
	for range 2 {
		if diff := cmp.Diff(first, r.mustPrepare(t, viaAPI(t, claim))); diff != "" {
			t.Errorf("devices (-first +again):\n%s", diff)
		}
	}
	if diff := cmp.Diff(disk, r.disk(t)); diff != "" {
		t.Errorf("files (-first +again):\n%s", diff)
	}
}

// After a reboot the checkpoint is there and the CDI folder is empty.
func TestPreparingAgainWritesTheCDISpecThatHasVanished(t *testing.T) {
	r := newRig(t, twoNodes)
	claim := allocated("c", cpus("numa-0", "2"))
	devices := r.mustPrepare(t, claim)
	if err := os.RemoveAll(r.cdiDir); err != nil {
		t.Fatal(err)
	}
	r.mustPrepare(t, claim)
	r.wantResolved(t, devices)
}

func TestARestartKeepsWhatWasPrepared(t *testing.T) {
	r := newRig(t, twoNodes)
	var devices []kubeletplugin.Device
	for _, uid := range []string{"a", "b"} {
		devices = append(devices, r.mustPrepare(t, allocated(uid, cpus("numa-0", "2"), cpus("numa-1", "2")))...)
	}
	grants := r.ledger.Grants()
	if err := os.Remove(filepath.Join(r.cdiDir, specName("a"))); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	if diff := cmp.Diff(grants, r.ledger.Grants(), cmp.Comparer(func(a, b allocator.Part) bool {
		return reflect.DeepEqual(a.Request, b.Request) && a.CPUs.Equals(b.CPUs)
	})); diff != "" {
		t.Errorf("grants (-before +after):\n%s", diff)
	}
	if err := r.cdi.reset(r.ledger.Grants()); err != nil {
		t.Fatal(err)
	}
	r.wantResolved(t, devices)
	if got := r.mustPrepare(t, allocated("c", cpus("numa-1", "2")))[0].Metadata.Attributes["topolet.dev/cpuset"]; *got.StringValue != "6,14" {
		t.Errorf("a new claim got CPUs %s", *got.StringValue)
	}
}

func TestResetRemovesOnlyWhatIsStaleAndOwn(t *testing.T) {
	r := newRig(t, twoNodes)
	r.mustPrepare(t, allocated("kept", cpus("numa-0", "2")))
	for _, name := range []string{specName("stale"), "nvidia.json", "topolet.dev-device_0.json", "other-" + specName("x")} {
		if err := os.WriteFile(filepath.Join(r.cdiDir, name), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.cdi.reset(r.ledger.Grants()); err != nil {
		t.Fatal(err)
	}
	want := []string{"checkpoint.json", "nvidia.json", "other-" + specName("x"), specName("kept"), "topolet.dev-device_0.json"}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(r.disk(t)))); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestAFailureToStoreLeavesNothingBehind(t *testing.T) {
	r := newRig(t, twoNodes)
	r.mustPrepare(t, good())
	disk := r.disk(t)
	r.store.fail = true
	if err := r.prepare(t, allocated("c", cpus("numa-1", "6"))).Err; err == nil {
		t.Error("prepared without having stored it")
	}
	if err := r.unprepare(t, "good"); err == nil {
		t.Error("released without having stored it")
	}
	if diff := cmp.Diff(disk, r.disk(t)); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}
	r.store.fail = false
	r.mustPrepare(t, allocated("c", cpus("numa-1", "6")))
	if err := r.unprepare(t, "good"); err != nil {
		t.Error(err)
	}
}

func TestDevicesOfAPreparedClaim(t *testing.T) {
	r := newRig(t, twoNodes)
	other := cpus("numa-1", "2")
	other.Request, other.ShareID = "more", nil
	got := r.mustPrepare(t, allocated("c", cpus("numa-0", "2"), cpus("numa-1", "4"), other))
	attributes := func(node int64, cpus string) *kubeletplugin.DeviceMetadata {
		return &kubeletplugin.DeviceMetadata{Attributes: map[string]resourceapi.DeviceAttribute{
			"topolet.dev/cpuset":              {StringValue: ptr.To(cpus)},
			"topolet.dev/family":              {StringValue: ptr.To("cpu")},
			"topolet.dev/cpuNUMANode":         {IntValue: ptr.To(node)},
			"topolet.dev/level":               {StringValue: ptr.To("numa")},
			"topolet.dev/coreType":            {StringValue: ptr.To("standard")},
			"topolet.dev/threadsPerCore":      {IntValue: ptr.To(int64(2))},
			"topolet.dev/isolated":            {BoolValue: ptr.To(false)},
			"topolet.dev/networkFunctions":    {IntValue: ptr.To(int64(0))},
			"topolet.dev/nvmeFunctions":       {IntValue: ptr.To(int64(0))},
			"topolet.dev/socket":              {IntValue: ptr.To(int64(0))},
			"resource.kubernetes.io/numaNode": {IntValue: ptr.To(node)},
		}}
	}
	want := []kubeletplugin.Device{
		{Requests: []string{"cpus"}, PoolName: nodeName, DeviceName: "numa-0", ShareID: ptr.To(types.UID("share-numa-0")),
			CDIDeviceIDs: []string{"topolet.dev/claim=c.cpus"}, Metadata: attributes(0, "1,9")},
		// One CDI device stands for both results of a request.
		{Requests: []string{"cpus"}, PoolName: nodeName, DeviceName: "numa-1", ShareID: ptr.To(types.UID("share-numa-1")),
			Metadata: attributes(1, "4-5,12-13")},
		{Requests: []string{"more"}, PoolName: nodeName, DeviceName: "numa-1",
			CDIDeviceIDs: []string{"topolet.dev/claim=c.more"}, Metadata: attributes(1, "6,14")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	r.wantResolved(t, got)
	wantSpec := `{"cdiVersion":"0.3.0","kind":"topolet.dev/claim","devices":[` +
		`{"name":"c.cpus","containerEdits":{"env":["TOPOLET_CPUS_C_CPUS=1,4-5,9,12-13"]}},` +
		`{"name":"c.more","containerEdits":{"env":["TOPOLET_CPUS_C_MORE=6,14"]}}],"containerEdits":{"mounts":[` +
		`{"hostPath":"/proc/topolet-was-not-asked-where-this-container-runs","containerPath":"/run/topolet/unplaced","options":["rbind","ro"]}]}}`
	if diff := cmp.Diff(wantSpec, r.disk(t)["topolet.dev-claim_c.json"]); diff != "" {
		t.Errorf("CDI spec (-want +got):\n%s", diff)
	}
}

func TestEveryClaimHasAResult(t *testing.T) {
	r := newRig(t, twoNodes)
	claims := []*resourceapi.ResourceClaim{allocated("a", cpus("numa-0", "2")), allocated("bad", cpus("numa-0", "3")), allocated("b", cpus("numa-1", "2"))}
	results, err := r.PrepareResourceClaims(t.Context(), claims)
	if err != nil {
		t.Fatal(err)
	}
	for uid, fails := range map[types.UID]bool{"a": false, "bad": true, "b": false} {
		result, ok := results[uid]
		if !ok || (result.Err != nil) != fails {
			t.Errorf("the result of %s is %v", uid, result)
		}
	}
	errs, err := r.UnprepareResourceClaims(t.Context(), []kubeletplugin.NamespacedObject{named("a"), named("never"), named("b")})
	if err != nil {
		t.Fatal(err)
	}
	for _, uid := range []types.UID{"a", "never", "b"} {
		if err, ok := errs[uid]; !ok || err != nil {
			t.Errorf("the result of %s is %v, %v", uid, err, ok)
		}
	}
	if r.released != 1 {
		t.Errorf("the shared pool was told to grow %d times", r.released)
	}
	if diff := cmp.Diff([]string{"checkpoint.json"}, slices.Sorted(maps.Keys(r.disk(t)))); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestAClaimInUseIsNotReleased(t *testing.T) {
	r := newRig(t, twoNodes)
	r.mustPrepare(t, allocated("c", cpus("numa-0", "2")))
	disk := r.disk(t)
	ctr := allocator.Container{ID: "ctr", Name: "main", Pod: "pod-c", Claims: []allocator.Ref{{Claim: "c", Request: "cpus"}}}
	if _, err := r.ledger.Admit(ctr); err != nil {
		t.Fatal(err)
	}
	var inUse *allocator.InUseError
	if err := r.unprepare(t, "c"); !errors.As(err, &inUse) {
		t.Errorf("the result is %v", err)
	}
	if diff := cmp.Diff(disk, r.disk(t)); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}
	// The runtime's side finds that it has stopped without a word.
	r.side.stopped = func(claim allocator.ClaimUID) {
		if claim == "c" {
			r.ledger.Remove("ctr")
		}
	}
	for range 2 {
		if err := r.unprepare(t, "c"); err != nil {
			t.Error(err)
		}
	}
}

func TestNothingIsPreparedWithoutTheRuntime(t *testing.T) {
	r := newRig(t, twoNodes)
	r.side.set(errors.New("not synchronised"), nil)
	if err := r.prepare(t, good()).Err; err == nil || err.Error() != "topolet is not ready yet, the kubelet will try again: not synchronised" {
		t.Errorf("the error is %v", err)
	}
	if len(r.ledger.Grants()) > 0 {
		t.Error("the claim got CPUs")
	}
	busy := errors.New("still busy")
	r.side.set(nil, busy)
	if err := r.prepare(t, good()).Err; !errors.Is(err, busy) {
		t.Errorf("the error is %v", err)
	}
	r.side.set(nil, nil)
	r.mustPrepare(t, good())
}

func TestASecondPodGetsAClaimAfterTheFirst(t *testing.T) {
	r := newRig(t, twoNodes)
	claim := allocated("c", cpus("numa-0", "2"))
	r.mustPrepare(t, claim)
	owners := func(want allocator.PodUID) {
		t.Helper()
		r.mustPrepare(t, claim)
		r.start(t)
		if diff := cmp.Diff([]allocator.PodUID{want}, r.ledger.Grants()[0].Pods); diff != "" {
			t.Errorf("pods after a restart (-want +got):\n%s", diff)
		}
	}
	claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", UID: "second"})
	owners("pod-c")
	claim.Status.ReservedFor = claim.Status.ReservedFor[1:]
	owners("second")
}

func BenchmarkPrepareResourceClaims(b *testing.B) {
	r := newRig(b, machines["two threads per core"])
	claim := allocated("c", cpus("numa-1", "8"))
	b.ReportAllocs()
	for b.Loop() {
		r.mustPrepare(b, claim)
		if err := r.unprepare(b, "c"); err != nil {
			b.Fatal(err)
		}
	}
}
