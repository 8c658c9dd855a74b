package draplugin

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/topolet/topolet/allocator"
)

// withAPI gives the driver an API server with these claims.
func (r *rig) withAPI(claims ...*resourceapi.ResourceClaim) *fake.Clientset {
	var objects []runtime.Object
	for _, c := range claims {
		objects = append(objects, c)
	}
	client := fake.NewClientset(objects...)
	r.opts.Client = client
	return client
}

func changed(change func(*resourceapi.ResourceClaim)) *resourceapi.ResourceClaim {
	claim := allocated("c", cpus("numa-0", "2"))
	change(claim)
	return claim
}

func TestClaimsThatTheKubeletHasForgottenAreReleased(t *testing.T) {
	for name, test := range map[string]struct {
		now    *resourceapi.ResourceClaim // in the API server; nil is gone
		asking error
		inUse  bool
		away   error
		kept   bool
	}{
		"a claim that does not exist":                    {},
		"a claim of another UID":                         {now: changed(func(c *resourceapi.ResourceClaim) { c.UID = "new" })},
		"a claim that is allocated no more":              {now: changed(func(c *resourceapi.ResourceClaim) { c.Status.Allocation = nil })},
		"a claim that is allocated to another node":      {now: changed(func(c *resourceapi.ResourceClaim) { c.Status.Allocation.Devices.Results[0].Pool = "other" })},
		"a claim with devices of another driver":         {now: changed(func(c *resourceapi.ResourceClaim) { c.Status.Allocation.Devices.Results[0].Driver = "other" })},
		"a claim that is reserved for nobody":            {now: changed(func(c *resourceapi.ResourceClaim) { c.Status.ReservedFor = nil })},
		"not a claim in order":                           {now: changed(func(*resourceapi.ResourceClaim) {}), kept: true},
		"not while a container names it":                 {inUse: true, kept: true},
		"not while the API server does not answer":       {asking: errors.New("timeout"), kept: true},
		"not while topolet may not ask":                  {asking: apierrors.NewForbidden(resourceapi.Resource("resourceclaims"), "claim-c", nil), kept: true},
		"not while the runtime's containers are unknown": {away: errors.New("not synchronised"), kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, twoNodes)
				r.mustPrepare(t, allocated("c", cpus("numa-0", "2")))
				r.mustPrepare(t, allocated("other", cpus("numa-1", "2")))
				before := r.disk(t)
				claims := []*resourceapi.ResourceClaim{allocated("other", cpus("numa-1", "2"))}
				if test.now != nil {
					claims = append(claims, test.now)
				}
				client := r.withAPI(claims...)
				if test.asking != nil {
					client.PrependReactor("get", "resourceclaims", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, test.asking })
				}
				if test.inUse {
					r.ledger.Sync([]allocator.Container{{ID: "ctr", Claims: []allocator.Ref{{Claim: "c", Request: "cpus"}}}})
				}
				r.side.set(test.away, nil)

				s := r.newStale(time.Minute)
				s.look(t.Context())
				time.Sleep(59 * time.Second)
				s.look(t.Context())
				if diff := cmp.Diff(before, r.disk(t)); diff != "" {
					t.Errorf("within the grace time (-before +after):\n%s", diff)
				}
				time.Sleep(2 * time.Second)
				s.look(t.Context())

				want := []string{"checkpoint.json", specName("c"), specName("other")}
				if !test.kept {
					want = []string{"checkpoint.json", specName("other")}
				}
				if diff := cmp.Diff(want, slices.Sorted(maps.Keys(r.disk(t)))); diff != "" {
					t.Errorf("files (-want +got):\n%s", diff)
				}
				if held := len(r.ledger.Grants()); held != len(want)-1 {
					t.Errorf("%d grants are held", held)
				}
				if told := r.released > 0; told == test.kept {
					t.Errorf("the shared pool was told to grow: %t", told)
				}
			})
		})
	}
}

func TestAClaimThatIsInOrderAgainGetsAnotherGraceTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoNodes)
		claim := allocated("c", cpus("numa-0", "2"))
		r.mustPrepare(t, claim)
		client := r.withAPI()
		tracker := client.Tracker()
		s := r.newStale(time.Minute)
		s.look(t.Context())
		if err := tracker.Add(claim); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		s.look(t.Context())
		if err := client.ResourceV1().ResourceClaims(claim.Namespace).Delete(t.Context(), claim.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.look(t.Context())
		if len(r.ledger.Grants()) != 1 {
			t.Error("released without another grace time")
		}
		time.Sleep(2 * time.Minute)
		s.look(t.Context())
		if len(r.ledger.Grants()) != 0 {
			t.Error("never released")
		}
	})
}

// TestAClaimThatIsPreparedWhileItIsCollectedKeepsItsGrant: the claim was reserved for
// nobody when the API server was asked, and is prepared for its next pod before the
// answer comes.
func TestAClaimThatIsPreparedWhileItIsCollectedHasItsGrantAfterwards(t *testing.T) {
	r := newRig(t, twoNodes)
	claim := allocated("c", cpus("numa-0", "2"))
	r.mustPrepare(t, claim)
	idle := changed(func(c *resourceapi.ResourceClaim) { c.Status.ReservedFor = nil })
	client := r.withAPI(idle)
	prepared := make(chan error, 1)
	s := r.newStale(0)
	s.look(t.Context())
	asked := false
	client.PrependReactor("get", "resourceclaims", func(clienttesting.Action) (bool, runtime.Object, error) {
		if !asked {
			asked = true
			go func() { prepared <- r.prepare(t, claim).Err }()
			// With nothing to hold it back the claim would be prepared by now.
			select {
			case err := <-prepared:
				prepared <- err
			case <-time.After(200 * time.Millisecond):
			}
		}
		return true, idle, nil
	})
	s.look(t.Context())
	if err := <-prepared; err != nil {
		t.Fatal(err)
	}
	if len(r.ledger.Grants()) != 1 {
		t.Error("the kubelet was told that the claim is prepared, and it has no grant")
	}
	if _, ok := r.disk(t)[specName("c")]; !ok {
		t.Error("the kubelet was told that the claim is prepared, and it has no CDI spec")
	}
}

func TestClaimsAreLookedAfterUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, twoNodes)
		r.mustPrepare(t, allocated("c", cpus("numa-0", "2")))
		r.withAPI()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			r.newStale(staleGrace).watch(ctx, staleInterval)
			close(ended)
		}()
		time.Sleep(staleGrace + time.Second)
		if held := r.ledger.Grants(); len(held) != 0 {
			t.Errorf("a grace time after the start are held: %+v", held)
		}
		r.mustPrepare(t, allocated("later", cpus("numa-0", "2")))
		time.Sleep(staleInterval + staleGrace + time.Second)
		if held := r.ledger.Grants(); len(held) != 0 {
			t.Errorf("an interval and a grace time later are held: %+v", held)
		}
		cancel()
		<-ended
	})
}
