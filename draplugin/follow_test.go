package draplugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// published keeps what was published last.
type published struct {
	mu      sync.Mutex
	devices []resourceapi.Device
	times   int
}

func (p *published) PublishResources(_ context.Context, resources resourceslice.DriverResources) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.devices = nil
	for _, s := range resources.Pools[nodeName].Slices {
		p.devices = append(p.devices, s.Devices...)
	}
	p.times++
	return nil
}

// summary is each device with its capacity and taints.
func (p *published) summary() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var words []string
	for _, d := range p.devices {
		cpus := d.Capacity[CapacityCPUs].Value
		word := d.Name + ":" + cpus.String()
		for _, taint := range d.Taints {
			word += fmt.Sprintf(" %s=%s:%s", taint.Key, taint.Value, taint.Effect)
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// eventually waits for a state that follow reaches in the background.
func eventually(t *testing.T, what, want string, got func() string) {
	t.Helper()
	const limit = 10 * time.Second
	deadline := time.Now().Add(limit)
	for got() != want {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s:\nwant %s\ngot  %s", limit, what, want, got())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// following is a rig whose driver follows its ledger, with these claims prepared.
func following(t *testing.T, claims ...*resourceapi.ResourceClaim) (*rig, *published, *fake.Clientset) {
	t.Helper()
	objects := make([]runtime.Object, 0, len(claims))
	for _, c := range claims {
		objects = append(objects, c)
	}
	client := fake.NewClientset(objects...)
	r, to := followingWith(t, client, claims...)
	return r, to, client
}

// followingWith is following with a client that knows the claims.
func followingWith(t *testing.T, client *fake.Clientset, claims ...*resourceapi.ResourceClaim) (*rig, *published) {
	t.Helper()
	r := newRig(t, twoNodes)
	r.opts.Client = client
	for _, c := range claims {
		r.mustPrepare(t, c)
	}
	to := &published{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.follow(ctx, to) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r, to
}

func (r *rig) offline(t *testing.T, cpus string) {
	t.Helper()
	spec := twoNodes
	spec.Offline = cpus
	if err := r.ledger.Replace(topologytest.New(spec)); err != nil {
		t.Fatal(err)
	}
	r.Refresh()
}

func (r *rig) healthOf(device string) (text string) {
	for _, d := range r.health(time.Now()).Devices {
		if d.DeviceName == device {
			text = string(d.Health) + " " + d.Message
		}
	}
	return text
}

// conditions are those in a claim's status.
func conditions(t *testing.T, client *fake.Clientset, claim string) string {
	t.Helper()
	c, err := client.ResourceV1().ResourceClaims("default").Get(t.Context(), claim, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, d := range c.Status.Devices {
		for _, condition := range d.Conditions {
			words = append(words, fmt.Sprintf("%s/%s/%s %s %s=%s %s", d.Driver, d.Pool, d.Device, *d.ShareID, condition.Type, condition.Status, condition.Reason))
		}
	}
	return strings.Join(words, ", ")
}

func TestAClaimThatLosesACPUIsToldAndItsNeighbourIsNot(t *testing.T) {
	r, to, client := following(t, allocated("hit", cpus("numa-1", "2")), allocated("neighbour", cpus("numa-1", "2")))
	r.ledger.Sync([]allocator.Container{
		{ID: "1", Name: "main", PodNamespace: "default", PodName: "pod-hit", Pod: "pod-hit", Claims: []allocator.Ref{{Claim: "hit"}}, Observed: topology.NewCPUSet(4, 12)},
		{ID: "2", Name: "main", PodNamespace: "default", PodName: "pod-neighbour", Pod: "pod-neighbour", Claims: []allocator.Ref{{Claim: "neighbour"}}, Observed: topology.NewCPUSet(5, 13)},
	})
	eventually(t, "the first publication", "numa-0:6, numa-1:8", to.summary)

	r.offline(t, "12")
	eventually(t, "the taint", "numa-0:6, numa-1:6 topolet.dev/cpu-offline=hit:None", to.summary)
	eventually(t, "the condition", "topolet.dev/worker/numa-1 share-numa-1 Ready=False CPUsOffline",
		func() string { return conditions(t, client, "claim-hit") })
	const message = "CPUsOffline: claim default/claim-hit (hit) holds CPUs 4,12, of which 12 went offline: " +
		"bring them back online, or delete the claim's pods"
	eventually(t, "the events", "ResourceClaim default/claim-hit "+message+"\nPod default/pod-hit "+message,
		func() string { return strings.Join(r.notes.all(), "\n") })
	if got := conditions(t, client, "claim-neighbour"); got != "" {
		t.Errorf("the neighbour's conditions: %s", got)
	}
	healths := func() string { return r.healthOf("numa-1") }
	if got := healths(); got != "Healthy " {
		t.Errorf("a device of which one claim is hit and another is not: %s", got)
	}
	r.ledger.Remove("2")
	if err := r.unprepare(t, "neighbour"); err != nil {
		t.Fatal(err)
	}
	if got := healths(); got != "Unhealthy "+strings.TrimPrefix(message, "CPUsOffline: ") {
		t.Errorf("a device all of whose claims are hit: %s", got)
	}

	r.offline(t, "")
	eventually(t, "the taint to go", "numa-0:6, numa-1:8", to.summary)
	eventually(t, "the condition to go", "", func() string { return conditions(t, client, "claim-hit") })
	if said := r.notes.all(); len(said) != 2 {
		t.Errorf("said %q", said)
	}
}

func TestTheTaintGoesWithTheClaim(t *testing.T) {
	r, to, _ := following(t, allocated("hit", cpus("numa-1", "2")))
	r.offline(t, "12")
	eventually(t, "the taint", "numa-0:6, numa-1:6 topolet.dev/cpu-offline=hit:None", to.summary)
	if err := r.unprepare(t, "hit"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the taint to go", "numa-0:6, numa-1:6", to.summary)
}

func TestWhatAnEarlierProcessSaidOfAClaimIsTakenBack(t *testing.T) {
	r, to, client := following(t, allocated("hit", cpus("numa-1", "2")))
	r.offline(t, "12")
	eventually(t, "the condition", "topolet.dev/worker/numa-1 share-numa-1 Ready=False CPUsOffline",
		func() string { return conditions(t, client, "claim-hit") })

	again := newRig(t, twoNodes)
	again.store = r.store
	again.start(t)
	again.opts.Client = client
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- again.follow(ctx, to) }()
	eventually(t, "the condition to go", "", func() string { return conditions(t, client, "claim-hit") })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWhatIsUnchangedIsNotPublishedAgain(t *testing.T) {
	r, to, client := following(t)
	eventually(t, "the first publication", "numa-0:6, numa-1:8", to.summary)
	for range 3 {
		r.Refresh()
	}
	r.offline(t, "12")
	eventually(t, "the second publication", "numa-0:6, numa-1:6", to.summary)
	to.mu.Lock()
	defer to.mu.Unlock()
	if to.times != 2 || len(client.Actions()) != 0 {
		t.Errorf("published %d times, asked the API server %v", to.times, client.Actions())
	}
}

func TestAStatusThatCannotBeWrittenIsTriedAgainAndTheEventComesOnce(t *testing.T) {
	claim := allocated("hit", cpus("numa-1", "2"))
	client := fake.NewClientset(claim)
	var away atomic.Bool
	var refused atomic.Int32
	client.PrependReactor("patch", "resourceclaims", func(clienttesting.Action) (bool, runtime.Object, error) {
		if !away.Load() {
			return false, nil, nil
		}
		refused.Add(1)
		return true, nil, errors.New("the API server is away")
	})
	r, to := followingWith(t, client, claim)
	eventually(t, "the first publication", "numa-0:6, numa-1:8", to.summary)
	eventually(t, "the first look at the claim", "true", func() string { return fmt.Sprint(len(client.Actions()) > 0) })
	away.Store(true)
	r.offline(t, "12")
	eventually(t, "the taint, which needs no status", "numa-0:6, numa-1:6 topolet.dev/cpu-offline=hit:None", to.summary)
	eventually(t, "a second refusal", "true", func() string {
		r.Refresh() // in the place of the retry's pause
		return fmt.Sprint(refused.Load() > 1)
	})
	away.Store(false)
	r.Refresh()
	eventually(t, "the condition", "topolet.dev/worker/numa-1 share-numa-1 Ready=False CPUsOffline",
		func() string { return conditions(t, client, "claim-hit") })
	eventually(t, "one event", "1", func() string { return fmt.Sprint(len(r.notes.all())) })
}

func TestADeviceHasNoMoreTaintsThanTheAPITakes(t *testing.T) {
	var conflicts []allocator.Conflict
	for i := range 40 {
		conflicts = append(conflicts, allocator.Conflict{
			Claim:   allocator.Claim{UID: allocator.ClaimUID(fmt.Sprint("claim-", i/2))},
			Part:    allocator.Part{Request: allocator.Request{Domain: "numa-0"}},
			Offline: topology.NewCPUSet(i),
		})
	}
	found := findings(conflicts, nil, nil)
	got := taints("numa-0", found)
	if len(got) != resourceapi.DeviceTaintsMaxLength || got[1].Value != "claim-1" {
		t.Errorf("%d taints, the second of %s", len(got), got[1].Value)
	}
	if diff := cmp.Diff(0, len(taints("numa-1", found))); diff != "" {
		t.Errorf("another device (-want +got):\n%s", diff)
	}
}

func TestAClaimTellsWhoKeepsOthersOffItsCPUs(t *testing.T) {
	r, to, client := following(t, allocated("kept", cpus("numa-1", "2")), allocated("other", cpus("numa-1", "2")))
	r.ledger.Sync([]allocator.Container{
		{ID: "1", Name: "main", PodNamespace: "default", PodName: "pod-kept", Pod: "pod-kept", Claims: []allocator.Ref{{Claim: "kept"}}, Observed: topology.NewCPUSet(4, 12)},
		{ID: "2", Name: "side", PodNamespace: "default", PodName: "pod-kept", Pod: "pod-kept", Claims: []allocator.Ref{{Claim: "kept"}}, Observed: topology.NewCPUSet(4, 12)},
	})
	tier := func(id allocator.ContainerID, tier allocator.Tier, reason string) {
		t.Helper()
		if !r.ledger.Enforced(id, allocator.Enforcement{Tier: tier, Reason: reason}) {
			t.Error("nothing changed")
		}
		r.Refresh()
	}
	said := func() string { return conditions(t, client, "claim-kept") }
	const device = "topolet.dev/worker/numa-1 share-numa-1 "
	tier("1", allocator.KernelTier, "")
	eventually(t, "the condition", device+"Enforced=True Kernel", said)
	tier("2", allocator.RuntimeTier, "the pool is included")
	eventually(t, "the weaker of two", device+"Enforced=True Runtime", said)
	tier("1", allocator.DegradedTier, "the kernel says no")
	eventually(t, "the weakest", device+"Enforced=False Degraded", said)
	eventually(t, "the taint", "numa-0:6, numa-1:8 topolet.dev/not-enforced=kept:None", to.summary)
	const message = "Degraded: claim default/claim-kept (kept): the CPUs of container main of pod default/pod-kept are not kept from others: the kernel says no"
	eventually(t, "the events", "ResourceClaim default/claim-kept "+message+"\nPod default/pod-kept "+message,
		func() string { return strings.Join(r.notes.all(), "\n") })
	if got := conditions(t, client, "claim-other"); got != "" {
		t.Errorf("a claim without a container: %s", got)
	}
	if got := r.healthOf("numa-1"); got != "Healthy " {
		t.Errorf("a device of which one claim is kept and another is not: %s", got)
	}
	if err := r.unprepare(t, "other"); err != nil {
		t.Fatal(err)
	}
	if got := r.healthOf("numa-1"); got != "Unhealthy "+strings.TrimPrefix(message, "Degraded: ") {
		t.Errorf("a device none of whose claims is kept: %s", got)
	}

	r.ledger.Remove("1")
	r.ledger.Remove("2")
	r.Refresh()
	eventually(t, "the taint to go", "numa-0:6, numa-1:8", to.summary)
	if got, want := said(), device+"Enforced=False Degraded"; got != want {
		t.Errorf("between two containers the claim says %q, want %q", got, want)
	}
}
