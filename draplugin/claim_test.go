package draplugin

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
)

// configured adds a configuration of this driver to the claim.
func configured(claim *resourceapi.ResourceClaim, source resourceapi.AllocationConfigSource, parameters string, requests ...string) *resourceapi.ResourceClaim {
	devices := &claim.Status.Allocation.Devices
	devices.Config = append(devices.Config, resourceapi.DeviceAllocationConfiguration{
		Source: source, Requests: requests,
		DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
			Driver: DriverName, Parameters: runtime.RawExtension{Raw: []byte(parameters)},
		}},
	})
	return claim
}

const (
	include = `{"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig","sharedPool":"Include"}`
	exclude = `{"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig","sharedPool":"Exclude"}`
)

// good is a claim that fits, beside the one that is wrong.
func good() *resourceapi.ResourceClaim { return allocated("good", cpus("numa-1", "2")) }

func TestAClaimThatCannotBeServedSaysWhyAndChangesNothing(t *testing.T) {
	fromClaim := resourceapi.AllocationConfigSourceClaim
	const capacity = "status.allocation.devices.results[0].consumedCapacity[topolet.dev/cpus]"
	for _, tc := range []struct {
		name  string
		claim func() *resourceapi.ResourceClaim
		said  []string
	}{
		{"no CPUs", func() *resourceapi.ResourceClaim { return allocated("bad", cpus("numa-0", "0")) },
			[]string{capacity, `"0"`, "a whole number of CPUs between 1 and"}},
		{"fewer than none", func() *resourceapi.ResourceClaim { return allocated("bad", cpus("numa-0", "-2")) },
			[]string{capacity, `"-2"`, "a whole number of CPUs"}},
		{"one and a half", func() *resourceapi.ResourceClaim { return allocated("bad", cpus("numa-0", "1500m")) },
			[]string{capacity, `"1500m"`, "a whole number of CPUs"}},
		{"next to nothing", func() *resourceapi.ResourceClaim { return allocated("bad", cpus("numa-0", "1n")) },
			[]string{capacity, `"1n"`, "a whole number of CPUs"}},
		{"more than there are", func() *resourceapi.ResourceClaim { return allocated("bad", cpus("numa-0", "16k")) },
			[]string{"domain numa-0", "cannot serve 16000 CPUs"}},
		{"more than a number holds", func() *resourceapi.ResourceClaim { return allocated("bad", cpus("numa-0", "123456789E")) },
			[]string{capacity, "between 1 and 16384"}},
		{"half a core", func() *resourceapi.ResourceClaim { return allocated("bad", cpus("numa-0", "3")) },
			[]string{"domain numa-0", "cannot serve 3 CPUs", "a multiple of 2 (whole cores) between 2 and 6"}},
		{"more than are free", func() *resourceapi.ResourceClaim { return allocated("bad", cpus("numa-1", "8")) },
			[]string{"domain numa-1", "8 CPUs requested, 6 free"}},
		{"no capacity", func() *resourceapi.ResourceClaim {
			c := allocated("bad", cpus("numa-0", "2"))
			c.Status.Allocation.Devices.Results[0].ConsumedCapacity = nil
			return c
		}, []string{capacity, "DRAConsumableCapacity must be on in kube-apiserver, kube-scheduler and kubelet"}},
		{"a capacity without its domain", func() *resourceapi.ResourceClaim {
			c := allocated("bad", cpus("numa-0", "2"))
			c.Status.Allocation.Devices.Results[0].ConsumedCapacity = map[resourceapi.QualifiedName]resource.Quantity{"cpus": *quantity(2)}
			return c
		}, []string{capacity}},
		{"administrators' access", func() *resourceapi.ResourceClaim {
			c := allocated("bad", cpus("numa-0", "2"))
			c.Status.Allocation.Devices.Results[0].AdminAccess = ptr.To(true)
			return c
		}, []string{"results[0].adminAccess", `"true"`, "ask without adminAccess"}},
		{"a device that is not there", func() *resourceapi.ResourceClaim { return allocated("bad", cpus("numa-7", "2")) },
			[]string{`device "numa-7" does not exist on this node`, "delete the pod"}},
		{"a second result that is wrong", func() *resourceapi.ResourceClaim {
			return allocated("bad", cpus("numa-0", "2"), cpus("numa-1", "1"))
		}, []string{"domain numa-1", "cannot serve 1 CPUs"}},
		{"no allocation", func() *resourceapi.ResourceClaim {
			c := allocated("bad")
			c.Status.Allocation = nil
			return c
		}, []string{"status.allocation", "the scheduler must allocate the claim first"}},
		{"results of others only", func() *resourceapi.ResourceClaim {
			other := cpus("numa-0", "2")
			other.Driver = "gpu.example.com"
			return allocated("bad", other)
		}, []string{"status.allocation.devices.results", "no result is of driver topolet.dev and pool worker"}},
		{"results of another node only", func() *resourceapi.ResourceClaim {
			other := cpus("numa-0", "2")
			other.Pool = "another"
			return allocated("bad", other)
		}, []string{"no result is of driver topolet.dev and pool worker"}},
		{"a parameter that does not exist", func() *resourceapi.ResourceClaim {
			return configured(allocated("bad", cpus("numa-0", "2")), fromClaim, `{"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig","sharedpool":"Include"}`)
		}, []string{"opaque.parameters", `request "cpus"`, "FromClaim", `"sharedpool"`, "its fields are apiVersion, kind, sharedPool"}},
		{"a parameter with another value", func() *resourceapi.ResourceClaim {
			return configured(allocated("bad", cpus("numa-0", "2")), fromClaim, strings.Replace(include, "Include", "include", 1))
		}, []string{"CPUConfig field sharedPool", `"include"`, "use Exclude (the default) or Include"}},
		{"parameters of another version", func() *resourceapi.ResourceClaim {
			return configured(allocated("bad", cpus("numa-0", "2")), fromClaim, strings.Replace(include, "v1alpha1", "v1", 1))
		}, []string{"CPUConfig field apiVersion", `"topolet.dev/v1"`, "use topolet.dev/v1alpha1"}},
		{"no parameters", func() *resourceapi.ResourceClaim {
			return configured(allocated("bad", cpus("numa-0", "2")), fromClaim, "")
		}, []string{"opaque.parameters", "CPUConfig cannot be read"}},
		{"a mistake in the class that the claim overrides", func() *resourceapi.ResourceClaim {
			c := configured(allocated("bad", cpus("numa-0", "2")), resourceapi.AllocationConfigSourceClass, `{}`)
			return configured(c, fromClaim, include)
		}, []string{"FromClass", "CPUConfig field apiVersion"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, twoNodes)
			r.mustPrepare(t, good())
			before, grants := r.disk(t), len(r.ledger.Grants())
			result := r.prepare(t, tc.claim())
			if result.Err == nil || len(result.Devices) > 0 {
				t.Fatalf("prepared %v", result.Devices)
			}
			for _, said := range append(tc.said, "default/claim-bad") {
				if !strings.Contains(result.Err.Error(), said) {
					t.Errorf("the error does not say %q: %v", said, result.Err)
				}
			}
			if diff := cmp.Diff(before, r.disk(t)); diff != "" {
				t.Errorf("files (-before +after):\n%s", diff)
			}
			if n := len(r.ledger.Grants()); n != grants {
				t.Errorf("%d grants, before %d", n, grants)
			}
		})
	}
}

func TestTranslate(t *testing.T) {
	fromClass, fromClaim := resourceapi.AllocationConfigSourceClass, resourceapi.AllocationConfigSourceClaim
	want := func(requests ...allocator.Request) []allocator.Request { return requests }
	plain := allocator.Request{Name: "cpus", Domain: "numa-0", Share: "share-numa-0", Count: 2}
	shared := plain
	shared.SharedPool = true
	everything := plain
	everything.SharedPool, everything.IdleSiblings, everything.LocalMemory, everything.ManyPods = true, true, true, true
	const all = `{"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig","sharedPool":"Include","siblings":"Idle","memory":"Local","sharing":"ManyPods"}`
	memory := memoryResult("memory-numa-1", map[resourceapi.QualifiedName]string{CapacityMemory: "1Gi"})
	memoryRequest := allocator.Request{Name: "memory", Domain: "memory-numa-1", Share: "share-memory-numa-1", Memory: []allocator.Pages{{Bytes: 1 << 30}}, ManyPods: true}
	first := func(request string) resourceapi.DeviceRequestAllocationResult {
		r := cpus("numa-0", "2")
		r.Request = request
		return r
	}
	foreign := cpus("gpu-0", "1")
	foreign.Driver, foreign.AdminAccess = "gpu.example.com", ptr.To(true)
	elsewhere := cpus("numa-0", "2")
	elsewhere.Pool = "another"
	foreignConfig := configured(allocated("c", cpus("numa-0", "2")), fromClaim, `{"anything": "goes"}`)
	foreignConfig.Status.Allocation.Devices.Config[0].Opaque.Driver = "gpu.example.com"

	for _, tc := range []struct {
		name  string
		claim *resourceapi.ResourceClaim
		want  []allocator.Request
	}{
		{"a plain result", allocated("c", cpus("numa-0", "2")), want(plain)},
		{"a number in other words", allocated("c", cpus("numa-0", "2000m")), want(plain)},
		{"results of others are theirs", allocated("c", foreign, cpus("numa-0", "2"), elsewhere), want(plain)},
		{"the first that fits of several requests", allocated("c", first("cpus/many")), want(plain)},
		{"configuration of others is theirs", foreignConfig, want(plain)},
		{"configuration for all requests", configured(allocated("c", cpus("numa-0", "2")), fromClaim, include), want(shared)},
		{"configuration for this request", configured(allocated("c", cpus("numa-0", "2")), fromClaim, include, "cpus"), want(shared)},
		{"configuration for another request", configured(allocated("c", cpus("numa-0", "2")), fromClaim, include, "other"), want(plain)},
		{"configuration for a request of which one was chosen", configured(allocated("c", first("cpus/many")), fromClaim, include, "cpus"), want(shared)},
		{"configuration for the one that was chosen", configured(allocated("c", first("cpus/many")), fromClaim, include, "cpus/many"), want(shared)},
		{"configuration for one that was not", configured(allocated("c", first("cpus/many")), fromClaim, include, "cpus/few"), want(plain)},
		{"configuration of the class", configured(allocated("c", cpus("numa-0", "2")), fromClass, include), want(shared)},
		{"every field, of which only sharing is for memory too", configured(allocated("c", cpus("numa-0", "2"), memory), fromClaim, all), want(everything, memoryRequest)},
		{"the claim overrides its class", configured(configured(allocated("c", cpus("numa-0", "2")), fromClass, include), fromClaim, exclude), want(plain)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			owner, requests, err := translate(viaAPI(t, tc.claim), nodeName)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(allocator.Claim{UID: "c", Namespace: "default", Name: "claim-c", Pods: []allocator.PodUID{"pod-c"}}, owner); diff != "" {
				t.Errorf("owner (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.want, requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnlyPodsOwnAClaim(t *testing.T) {
	claim := allocated("c", cpus("numa-0", "2"))
	claim.Status.ReservedFor = append(claim.Status.ReservedFor,
		resourceapi.ResourceClaimConsumerReference{APIGroup: "example.com", Resource: "pods", UID: "impostor"},
		resourceapi.ResourceClaimConsumerReference{Resource: "services", UID: "service"},
		resourceapi.ResourceClaimConsumerReference{Resource: "pods", UID: "second"})
	owner, _, err := translate(claim, nodeName)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]allocator.PodUID{"pod-c", "second"}, owner.Pods); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
}

func TestClaimErrorIsFound(t *testing.T) {
	r := newRig(t, twoNodes)
	var invalid *ClaimError
	if err := r.prepare(t, allocated("bad", cpus("numa-0", "0"))).Err; !errors.As(err, &invalid) {
		t.Errorf("%v is no ClaimError", err)
	}
}
