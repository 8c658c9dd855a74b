package allocator

import "github.com/topolet/topolet/topology"

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
	// Observed are the CPUs that the runtime has configured for the container.
	// Empty means that it may run anywhere.
	Observed topology.CPUSet
}

// Ref names a claim, and of it one request or, with an empty name, all.
type Ref struct {
	Claim   ClaimUID
	Request string
}

// Update tells the runtime to give a container other CPUs.
type Update struct {
	ID   ContainerID
	CPUs topology.CPUSet
}

// Entry is a container with what the ledger wants of it.
type Entry struct {
	Container
	// Desired are the CPUs that the container ought to run on.
	Desired topology.CPUSet
	// Exclusive says that Desired comes from claims.
	Exclusive bool
	// Orphan says that the container names a claim that the ledger does not
	// know. It keeps the CPUs that it was observed on, and nobody else gets them.
	Orphan bool
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
}
