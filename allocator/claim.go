package allocator

import (
	"reflect"
	"slices"

	"github.com/topolet/topolet/topology"
)

// ClaimUID identifies a claim for ever: a claim of the same name that is
// created later has another UID.
type ClaimUID string

// PodUID identifies a pod.
type PodUID string

// Claim is a claim's name and owners.
type Claim struct {
	UID       ClaimUID `json:"uid"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	// Pods are the pods that the claim is reserved for.
	Pods []PodUID `json:"pods"`
}

// Request is one allocation result of a claim: some CPUs out of one [Domain], memory
// out of one [MemoryDomain], or another device.
type Request struct {
	// Name is the request's name in the claim. It repeats when the request was
	// answered with several devices.
	Name string `json:"request"`
	// Domain is the name of the domain or device that the scheduler chose.
	Domain string `json:"domain"`
	// Share tells apart several shares of one domain; it may be empty.
	Share string `json:"share,omitempty"`
	// Count is the number of CPUs; 0 for everything else.
	Count int `json:"count,omitempty"`
	// Memory is how much of which pages, ordered by page size. Nothing of it binds
	// the container to the node's memory without a share of it.
	Memory []Pages `json:"memory,omitempty"`
	// SharedPool adds the shared pool to the CPUs on which the container may run.
	SharedPool bool `json:"sharedPool,omitempty"`
	// IdleSiblings leaves all threads of each core but the first without work.
	// They count.
	IdleSiblings bool `json:"idleSiblings,omitempty"`
	// LocalMemory keeps the container's memory on the NUMA nodes of its CPUs.
	LocalMemory bool `json:"localMemory,omitempty"`
	// Isolated takes the CPUs out of the scheduler's load balancing where the kernel
	// enforces that they are exclusive.
	Isolated bool `json:"isolated,omitempty"`
	// ManyPods lets all pods of the claim's namespace use it, at the same time.
	ManyPods bool `json:"manyPods,omitempty"`
	// Amounts is what is taken of a shared device's capacities, ordered by name.
	Amounts []Amount `json:"amounts,omitempty"`
	// Roles are those of a device's nodes that the claim wants beside those that every
	// claim gets.
	Roles []string `json:"roles,omitempty"`
	// ReadOnly has the kernel refuse to open the device's nodes for writing.
	ReadOnly bool `json:"readOnly,omitempty"`
	// ResetOnRelease has a function reset before it is given back to its own driver.
	ResetOnRelease bool `json:"resetOnRelease,omitempty"`
	// Program is what the device has to be programmed with when a container of the claim starts,
	// by its ID; empty for whatever it is.
	Program string `json:"program,omitempty"`
	// Admin looks at a device and takes nothing of it from anybody.
	Admin bool `json:"admin,omitempty"`
}

// Grant is a claim with the CPUs it got. Grants are values: those handed out by
// the ledger may be kept, and must not be changed.
type Grant struct {
	Claim
	// Parts answers the claim's requests, in their order.
	Parts []Part `json:"parts"`
}

// Part is a request with what it got.
type Part struct {
	Request
	// CPUs are nobody else's; none for memory and other devices.
	CPUs topology.CPUSet `json:"cpus,omitzero"`
	// Idle are those of them on which nothing runs.
	Idle topology.CPUSet `json:"idle,omitzero"`
	// MemoryNodes are the NUMA nodes, by the kernel's numbers, that the memory of the
	// part's containers comes from; none means any.
	MemoryNodes []int `json:"memoryNodes,omitempty"`
	// Hardware is what the part has of another device.
	Hardware *Hardware `json:"hardware,omitempty"`
}

// RunsOn returns the CPUs on which the part's containers run.
func (p Part) RunsOn() topology.CPUSet { return p.CPUs.Difference(p.Idle) }

// CPUs returns all CPUs of the grant, idle ones too.
func (g Grant) CPUs() topology.CPUSet {
	return g.CPUsOf("")
}

// CPUsOf returns the CPUs of one request, or of all for the empty name.
func (g Grant) CPUsOf(request string) topology.CPUSet {
	return g.union(request, func(p Part) topology.CPUSet { return p.CPUs })
}

// RunsOn is CPUsOf without the idle CPUs.
func (g Grant) RunsOn(request string) topology.CPUSet {
	return g.union(request, Part.RunsOn)
}

// MemoryNodesOf returns the NUMA nodes to which one request, or for the empty name any
// of them, binds memory.
func (g Grant) MemoryNodesOf(request string) []int {
	var nodes []int
	for _, p := range g.Parts {
		if request == "" || p.Name == request {
			nodes = append(nodes, p.MemoryNodes...)
		}
	}
	return sortedSet(nodes)
}

func (g Grant) union(request string, of func(Part) topology.CPUSet) topology.CPUSet {
	var cpus topology.CPUSet
	for _, p := range g.Parts {
		if request == "" || p.Name == request {
			cpus = cpus.Union(of(p))
		}
	}
	return cpus
}

// answers reports whether the grant was made for exactly these requests. Roles do not
// count: another version of the driver may know other ones.
func (g Grant) answers(requests []Request) bool {
	return slices.EqualFunc(g.Parts, requests, func(p Part, r Request) bool {
		p.Roles, r.Roles = nil, nil
		return reflect.DeepEqual(p.Request, r)
	})
}

// has reports whether the grant answers a request of that name, or any for the
// empty name.
func (g Grant) has(request string) bool {
	return slices.ContainsFunc(g.Parts, func(p Part) bool { return request == "" || p.Name == request })
}

// isFor reports whether a pod may use what the grant has for a request.
func (g Grant) isFor(pod PodUID, namespace, request string) bool {
	if slices.Contains(g.Pods, pod) {
		return true
	}
	return namespace == g.Namespace && !slices.ContainsFunc(g.Parts, func(p Part) bool {
		return (request == "" || p.Name == request) && !p.ManyPods
	})
}

// ownedBy is the claim with the one of the pods it is reserved for that it belongs
// to: the one before, while that still has it, or else the first. Who comes later is
// not meant, unless the request is for many pods.
func (c Claim) ownedBy(before []PodUID) Claim {
	for _, pod := range c.Pods {
		if slices.Contains(before, pod) {
			c.Pods = []PodUID{pod}
			return c
		}
	}
	c.Pods = c.Pods[:min(len(c.Pods), 1)]
	return c
}
