package allocator

import (
	"fmt"
	"strings"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// ContainerID is the container runtime's id of a container.
type ContainerID string

// Container is a container as the runtime reports it.
type Container struct {
	ID           ContainerID
	Name         string
	Pod          PodUID
	PodNamespace string
	PodName      string
	// Cgroup is the runtime's name of the container's cgroup. The ledger only
	// carries it.
	Cgroup string
	// Claims are the claims the container names; none for a shared container.
	Claims []Ref
	// Started says that the container was let run. Before that its cgroup may be half
	// made, and is looked at when it starts.
	Started bool
	// Observed are the CPUs that the runtime has configured for the container.
	// Empty means that it may run anywhere.
	Observed topology.CPUSet
}

// Ref names a claim, and of it one request or, with an empty name, all.
type Ref struct {
	Claim   ClaimUID
	Request string
}

// RefPrefix marks the text form of a [Ref] among the device names that the
// kubelet passes to the container runtime.
const RefPrefix = "topolet.dev/claim="

// String returns the text form: the prefix, the claim's UID and, after a dot,
// the request. Neither UIDs nor request names contain dots.
func (r Ref) String() string {
	if r.Request == "" {
		return RefPrefix + string(r.Claim)
	}
	return RefPrefix + string(r.Claim) + "." + r.Request
}

// ParseRef reads the text form. Text without the prefix is somebody else's: ok
// is false and err is nil.
func ParseRef(text string) (ref Ref, ok bool, err error) {
	name, ok := strings.CutPrefix(text, RefPrefix)
	if !ok {
		return Ref{}, false, nil
	}
	uid, request, dotted := strings.Cut(name, ".")
	if uid == "" || dotted && (request == "" || strings.Contains(request, ".")) {
		return Ref{}, false, fmt.Errorf("device %q: want %s<claim UID>.<request>", text, RefPrefix)
	}
	return Ref{Claim: ClaimUID(uid), Request: request}, true, nil
}

// Placement is what a container must be created with.
type Placement struct {
	CPUs topology.CPUSet
	// MemoryNodes are the NUMA nodes, by the kernel's numbers, that the container's
	// memory must come from; empty means any.
	MemoryNodes []int
	// Unthrottled says that nobody else runs on the CPUs, so that a quota of their
	// time would save it for nobody.
	Unthrottled bool
	// Nodes are the device nodes of its claims, Interfaces their network interfaces, by the
	// host's names.
	Nodes      []device.Node
	Interfaces []string
	// Environment are the variables that its devices' software reads.
	Environment []device.Variable
}

// Update tells the runtime to give a container other CPUs.
type Update struct {
	ID   ContainerID
	CPUs topology.CPUSet
	// Unthrottled is that of the container's [Placement].
	Unthrottled bool
}

// Entry is a container with what the ledger wants of it.
type Entry struct {
	Container
	// Desired are the CPUs that the container ought to run on.
	Desired topology.CPUSet
	// Bounds are those on which it may be found: beside the desired ones, such as the
	// kernel takes from it when somebody needs them.
	Bounds topology.CPUSet
	// Granted are the CPUs of its claims, on which no container of another claim
	// may run, nor this one if they are idle; empty for a shared container.
	Granted topology.CPUSet
	// Orphan says that the container names a claim that the ledger does not
	// know. It keeps the CPUs that it was observed on, and nobody else gets them.
	Orphan bool
	// Enforcement is what [Ledger.Enforced] was last told; empty before.
	Enforcement Enforcement
}

// Fits reports whether a container that runs on these CPUs is where it ought to be.
func (e Entry) Fits(cpus topology.CPUSet) bool {
	return e.Desired.IsSubsetOf(cpus) && cpus.IsSubsetOf(e.Bounds)
}

// tracked is a container with what the runtime was told about it.
type tracked struct {
	Container
	// listed says that the runtime finds the container by its id. Before that
	// the runtime drops updates of it without a word.
	listed bool
	// told are the CPUs that the runtime was last told, known only if isTold.
	told   topology.CPUSet
	isTold bool

	enforcement Enforcement
}
