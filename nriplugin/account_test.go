package nriplugin

import (
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/api"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/expect"
)

func TestRequestsAreComparedWithWhatClaimsHold(t *testing.T) {
	const mi = 1 << 20
	huge := allocator.Request{Name: "memory", Domain: "memory-numa-1", Memory: []allocator.Pages{{SizeBytes: 2 * mi, Bytes: 64 * mi}}}
	four := allocator.Request{Name: "cpus", Domain: "numa-1", Count: 4}
	limits := func(size string, bytes uint64) func(*fakeContainer) {
		return func(c *fakeContainer) {
			c.Linux.Resources.HugepageLimits = append(c.Linux.Resources.HugepageLimits, &api.HugepageLimit{PageSize: size, Limit: bytes})
		}
	}
	shares := func(n uint64) func(*fakeContainer) {
		return func(c *fakeContainer) {
			c.pod.Linux = &api.LinuxPodSandbox{PodResources: &api.LinuxResources{Cpu: &api.LinuxCPU{Shares: api.UInt64(n)}}}
		}
	}
	for _, tc := range []struct {
		name    string
		request allocator.Request
		change  func(*fakeContainer)
		want    []string
	}{
		{"nothing is requested", four, shares(2), []string{"pod default/pod-x field resources.requests[cpu]: 0 is less than the 4 that its claims hold: set it to 4"}},
		{"too little is requested", four, shares(1536), []string{"field resources.requests[cpu]: 1500m is less than the 4"}},
		{"one share less", four, shares(4095), []string{"field resources.requests[cpu]: 4000m is less than the 4"}},
		{"enough is requested", four, shares(4096), nil},
		{"more is requested, for the pod's other containers", four, shares(8192), nil},
		{"the runtime does not tell", four, func(*fakeContainer) {}, nil},
		{"no huge pages", huge, limits("2MB", 0), []string{"field containers[name=x].resources.limits[hugepages-2Mi]: 0 is less than the 64Mi"}},
		{"some huge pages, as one of several containers", huge, limits("2MB", 2*mi), nil},
		{"no huge pages of a size that is not claimed", huge, limits("1GB", 0), nil},
		{"huge pages of no size", huge, limits("many", 0), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t, false)
			grant(t, n.ledger, tc.request, "claim", "x")
			if err := n.create(changed(n.newContainer("x", allocator.Ref{Claim: "claim"}.String()), tc.change)); err != nil {
				t.Fatal(err)
			}
			if err := n.create(changed(n.newContainer("y"), tc.change)); err != nil {
				t.Fatal(err)
			}
			var said []string
			for _, s := range n.books.short {
				said = append(said, s.Error())
			}
			if len(said) != len(tc.want) {
				t.Fatalf("said %q, want %q", said, tc.want)
			}
			for i := range said {
				if !strings.Contains(said[i], tc.want[i]) {
					t.Errorf("said %q, want %q", said[i], tc.want[i])
				}
			}
		})
	}
}

func TestAContainerIsRefusedWhereItsPodRequestsTooLittle(t *testing.T) {
	n := newNode(t, false)
	n.grant("claim", "x", "numa-1", 2)
	n.books.refuse = true
	c := changed(n.newContainer("x", device("claim")), func(c *fakeContainer) {
		c.pod.Linux = &api.LinuxPodSandbox{PodResources: &api.LinuxResources{Cpu: &api.LinuxCPU{Shares: api.UInt64(2)}}}
	})
	expect.Error(t, n.create(c), "pod default/pod-x field resources.requests[cpu]", "set it to 2")
	if entries := n.ledger.Entries(); len(entries) > 0 {
		t.Errorf("the ledger has %v", entries)
	}
}

func changed(c *fakeContainer, by func(*fakeContainer)) *fakeContainer {
	by(c)
	return c
}
