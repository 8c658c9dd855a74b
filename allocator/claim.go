package allocator

import (
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
	// Pods are the pods that may use the claim.
	Pods []PodUID `json:"pods"`
}

// Request is one allocation result of a claim: some CPUs out of one domain.
type Request struct {
	// Name is the request's name in the claim. It repeats when the request was
	// answered with several devices.
	Name string `json:"request"`
	// Domain is the name of the [Domain] that the scheduler chose.
	Domain string `json:"domain"`
	// Share tells apart several shares of one domain; it may be empty.
	Share string `json:"share,omitempty"`
	// Count is the number of CPUs.
	Count int `json:"count"`
	// SharedPool adds the shared pool to the CPUs on which the container may run.
	SharedPool bool `json:"sharedPool,omitempty"`
	// IdleSiblings leaves all threads of each core but the first without work.
	// They count.
	IdleSiblings bool `json:"idleSiblings,omitempty"`
	// LocalMemory keeps the container's memory on the NUMA nodes of its CPUs.
	LocalMemory bool `json:"localMemory,omitempty"`
}

// Grant is a claim with the CPUs it got. Grants are values: those handed out by
// the ledger may be kept, and must not be changed.
type Grant struct {
	Claim
	// Parts answers the claim's requests, in their order.
	Parts []Part `json:"parts"`
}

// Part is a request with the CPUs it got.
type Part struct {
	Request
	// CPUs are nobody else's.
	CPUs topology.CPUSet `json:"cpus"`
	// Idle are those of them on which nothing runs.
	Idle topology.CPUSet `json:"idle,omitzero"`
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

func (g Grant) union(request string, of func(Part) topology.CPUSet) topology.CPUSet {
	var cpus topology.CPUSet
	for _, p := range g.Parts {
		if request == "" || p.Name == request {
			cpus = cpus.Union(of(p))
		}
	}
	return cpus
}

// answers reports whether the grant was made for exactly these requests.
func (g Grant) answers(requests []Request) bool {
	return slices.EqualFunc(g.Parts, requests, func(p Part, r Request) bool { return p.Request == r })
}
