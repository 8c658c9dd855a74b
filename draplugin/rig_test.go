package draplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func init() { klog.SetLogger(klog.Logger{}) }

const nodeName = "worker"

// side is the container runtime's side of the ledger.
type side struct {
	mu                   sync.Mutex
	notReady, notSettled error
	stopped              func(allocator.ClaimUID)
}

func (s *side) set(notReady, notSettled error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notReady, s.notSettled = notReady, notSettled
}

func (s *side) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notReady
}

func (s *side) Settled(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notSettled
}

func (s *side) ForgetStopped(claim allocator.ClaimUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped != nil {
		s.stopped(claim)
	}
}

// notes keeps what people were told.
type notes struct {
	mu   sync.Mutex
	said []string
}

func (n *notes) Warn(_ context.Context, reason, message string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = append(n.said, reason+": "+message)
}

func (n *notes) WarnAbout(_ context.Context, about corev1.ObjectReference, reason, message string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = append(n.said, fmt.Sprintf("%s %s/%s %s: %s", about.Kind, about.Namespace, about.Name, reason, message))
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.said...)
}

// store is the real checkpoint, which can be told to fail.
type store struct {
	allocator.FileStore
	fail bool
	// next, if there is one, is asked before each change.
	next  func() error
	saves int
}

func (s *store) Save(grants []allocator.Grant) error {
	if s.fail {
		return errors.New("no space left on device")
	}
	if s.next != nil {
		if err := s.next(); err != nil {
			return err
		}
	}
	s.saves++
	return s.FileStore.Save(grants)
}

// rig is a driver on a machine, with all of its files in folders of the test.
type rig struct {
	*Plugin
	machine  *topology.Machine
	policy   allocator.Policy
	side     *side
	notes    *notes
	store    *store
	cdiDir   string
	released int
	// more completes the options of each new driver.
	more func(*Options)
}

// twoNodes is a machine of eight cores with two threads each: cores 0 to 3 on
// NUMA node 0, of which the first is reserved, and 4 to 7 on node 1.
var twoNodes = topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 4, Threads: 2}

func newRig(t testing.TB, spec topologytest.Spec) *rig {
	t.Helper()
	m := topologytest.New(spec)
	policy := allocator.Policy{ReservedCPUs: allocator.DefaultReserved(m)}
	if spec.NUMAMemory == 0 { // who does not care gets none
		policy.ReservedMemory.Percent = 100
	}
	return newRigOn(t, m, policy)
}

func newRigOn(t testing.TB, m *topology.Machine, policy allocator.Policy) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{
		machine: m, policy: policy, side: &side{}, notes: &notes{},
		store: &store{FileStore: allocator.FileStore{Path: filepath.Join(dir, "checkpoint.json")}}, cdiDir: filepath.Join(dir, "cdi"),
	}
	r.start(t)
	return r
}

// start makes a driver from what is on the disk, as a new process does.
func (r *rig) start(t testing.TB) {
	t.Helper()
	grants, err := r.store.Load()
	if err != nil {
		t.Fatal(err)
	}
	ledger, err := allocator.NewLedger(r.machine, r.policy, r.store, grants)
	if err != nil {
		t.Fatal(err)
	}
	options := Options{NodeName: nodeName, CDIDir: r.cdiDir}
	if r.more != nil {
		r.more(&options)
	}
	r.Plugin, err = New(options, ledger, r.side, r.notes, func() { r.released++ })
	if err != nil {
		t.Fatal(err)
	}
}

// disk is everything that the driver has written.
func (r *rig) disk(t testing.TB) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, pattern := range []string{r.store.Path, r.cdiDir + "/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(path)] = string(data)
		}
	}
	return files
}

// prepare prepares one claim.
func (r *rig) prepare(t testing.TB, claim *resourceapi.ResourceClaim) kubeletplugin.PrepareResult {
	t.Helper()
	results, err := r.PrepareResourceClaims(t.Context(), []*resourceapi.ResourceClaim{claim})
	if err != nil {
		t.Fatal(err)
	}
	result, ok := results[claim.UID]
	if !ok || len(results) != 1 {
		t.Fatalf("results are %v, want one for %s", results, claim.UID)
	}
	return result
}

func (r *rig) mustPrepare(t testing.TB, claim *resourceapi.ResourceClaim) []kubeletplugin.Device {
	t.Helper()
	result := r.prepare(t, claim)
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	return result.Devices
}

func (r *rig) unprepare(t testing.TB, uid types.UID) error {
	t.Helper()
	results, err := r.UnprepareResourceClaims(t.Context(), []kubeletplugin.NamespacedObject{named(uid)})
	if err != nil {
		t.Fatal(err)
	}
	result, ok := results[uid]
	if !ok || len(results) != 1 {
		t.Fatalf("results are %v, want one for %s", results, uid)
	}
	return result
}

func named(uid types.UID) kubeletplugin.NamespacedObject {
	return kubeletplugin.NamespacedObject{UID: uid, NamespacedName: types.NamespacedName{Namespace: "default", Name: "claim-" + string(uid)}}
}

// allocated is a claim with these allocation results, for a pod of its own.
func allocated(uid string, results ...resourceapi.DeviceRequestAllocationResult) *resourceapi.ResourceClaim {
	return &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "claim-" + uid, UID: types.UID(uid)},
		Status: resourceapi.ResourceClaimStatus{
			ReservedFor: []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "pod", UID: types.UID("pod-" + uid)}},
			Allocation:  &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{Results: results}},
		},
	}
}

// cpus is a result as the scheduler writes it.
func cpus(device, count string) resourceapi.DeviceRequestAllocationResult {
	return resourceapi.DeviceRequestAllocationResult{
		Request: "cpus", Driver: DriverName, Pool: nodeName, Device: device,
		ShareID: ptr.To(types.UID("share-" + device)),
		ConsumedCapacity: map[resourceapi.QualifiedName]resource.Quantity{
			CapacityCPUs: resource.MustParse(count), CapacityTenants: resource.MustParse("1"),
		},
	}
}

// viaAPI is the object as it comes back from the API server.
func viaAPI[T any](t testing.TB, object *T) *T {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	into := new(T)
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
	return into
}
