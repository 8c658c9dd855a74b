// Package v1alpha1 is the API group topolet.dev/v1alpha1: what people write into
// claims and into the driver's configuration file.
//
// Both kinds are decoded strictly, with [DecodeCPUConfig] and
// [DecodeConfiguration]: a field that does not exist, a value of the wrong type
// or a value out of range is an error that names the field, the value and what
// would be right.
package v1alpha1

import "github.com/topolet/topolet/topology/device/pciselect"

// The group and version that every object of this package carries.
const (
	Group      = "topolet.dev"
	APIVersion = Group + "/v1alpha1"
)

// CPUConfig is the opaque configuration of a request for CPUs: the parameters
// under spec.devices.config[].opaque of a ResourceClaim or DeviceClass. Of a request
// for memory only Sharing counts.
type CPUConfig struct {
	// APIVersion is topolet.dev/v1alpha1.
	APIVersion string `json:"apiVersion"`
	// Kind is CPUConfig.
	Kind string `json:"kind"`

	// SharedPool says whether the container may also run on the CPUs that
	// nobody claimed. The default is Exclude.
	SharedPool SharedPool `json:"sharedPool,omitempty"`
	// Siblings says what the further threads of each core are for. The default is
	// Use.
	Siblings Siblings `json:"siblings,omitempty"`
	// Memory says where the container's memory comes from. The default is Any.
	Memory Memory `json:"memory,omitempty"`
	// Sharing says which pods may use the claim. The default is OnePod.
	Sharing Sharing `json:"sharing,omitempty"`
	// LoadBalancing says whether the kernel moves the container's threads among its
	// CPUs. The default is Enabled.
	LoadBalancing LoadBalancing `json:"loadBalancing,omitempty"`
}

// SharedPool is what a claimed container has to do with the shared pool.
type SharedPool string

const (
	// Exclude confines the container to its claim's CPUs.
	Exclude SharedPool = "Exclude"
	// Include adds the shared pool's CPUs, as they come and go, to the claim's:
	// for processes that pin their own busy threads to the exclusive CPUs and
	// let the rest float.
	Include SharedPool = "Include"
)

// Siblings is what the further threads of a claimed core are for.
type Siblings string

const (
	// Use lets the container run on all threads of its cores.
	Use Siblings = "Use"
	// Idle lets it run on the first thread of each core, and nobody on the others:
	// for work that suffers from sharing a core even with itself. The count of CPUs
	// includes the idle ones.
	Idle Siblings = "Idle"
)

// Memory is where the memory of a claimed container comes from.
type Memory string

const (
	// Any leaves it to the kernel, which takes the CPUs' own node while it has
	// some.
	Any Memory = "Any"
	// Local takes it from the NUMA nodes of the claimed CPUs and no others. A
	// container that needs more than they have is killed.
	Local Memory = "Local"
)

// Sharing is which pods may use a claim at the same time.
type Sharing string

const (
	// OnePod lets all containers of one pod use the claim, and refuses those of
	// others.
	OnePod Sharing = "OnePod"
	// ManyPods lets all pods use it that name it; they are of the claim's namespace.
	ManyPods Sharing = "ManyPods"
)

// LoadBalancing is what the kernel's scheduler does with the threads of a claimed
// container.
type LoadBalancing string

const (
	// Enabled spreads them over the container's CPUs.
	Enabled LoadBalancing = "Enabled"
	// Disabled leaves each where it is, for processes that pin every thread of theirs: the
	// others would all stay on one CPU. It takes effect where the kernel enforces that
	// the CPUs are exclusive.
	Disabled LoadBalancing = "Disabled"
)

// Configuration is the driver's configuration file.
type Configuration struct {
	// APIVersion is topolet.dev/v1alpha1.
	APIVersion string `json:"apiVersion"`
	// Kind is Configuration.
	Kind string `json:"kind"`

	// ReservedCPUs are the CPUs that no claim gets, in the kernel's list format
	// ("0-1,64-65"): there is always room on them for the shared pool. A core
	// that is reserved in part is in no claim either. Empty means the core of
	// the machine's first CPU.
	ReservedCPUs string `json:"reservedCPUs,omitempty"`

	// ReservedMemory is how much of each NUMA node's memory no claim gets: a quantity
	// ("2Gi") or a part of the node's memory ("5%"). Empty means 10%.
	ReservedMemory string `json:"reservedMemory,omitempty"`

	// Levels are the parts of the machine that are published as devices beside the
	// NUMA nodes. A device that a claim holds something of makes those of other
	// levels with the same CPUs unavailable, and each level has a DeviceClass of its
	// own. The default is none.
	Levels []Level `json:"levels,omitempty"`

	// CPURequests says what happens to a pod that asks for fewer CPUs, in its
	// resources.requests, than its claims hold: the scheduler then counts CPUs as free
	// that are not. The same happens where a container of a claim with huge pages may
	// not use any, by its resources.limits. The default is Warn.
	CPURequests CPURequests `json:"cpuRequests,omitempty"`

	// Devices are the families of devices that are published beside CPUs and memory. The
	// default is none: what this driver publishes, no other may give away.
	Devices []DeviceFamily `json:"devices,omitempty"`

	// Enforcement says who keeps everyone else off claimed CPUs. The default is Auto.
	Enforcement Enforcement `json:"enforcement,omitempty"`

	// NodeAllocatable has the scheduler count claimed CPUs and memory as requested,
	// without the pod's saying so. The cluster needs the feature gate
	// DRANodeAllocatableResources; where it is off, CPURequests holds.
	NodeAllocatable bool `json:"nodeAllocatable,omitempty"`

	// ListAttributes publishes an attribute of which a device has several values, such
	// as the PCIe roots beside its CPUs, as a list, where it is left out otherwise. The
	// cluster needs the feature gate DRAListTypeAttributes.
	ListAttributes bool `json:"listAttributes,omitempty"`
}

// DeviceFamily is a family of devices and how they are published.
type DeviceFamily struct {
	// Family is its name, such as gpu or nvme.
	Family string `json:"family"`
	// Shares is how many claims share one device: a GPU, an NPU, or a shared work queue.
	// The default is that of the family: one, and eight for a work queue.
	Shares int `json:"shares,omitempty"`
	// Tenants is how many claims share the enclave memory of a NUMA node (sgx). The
	// default is any number.
	Tenants int `json:"tenants,omitempty"`
	// ManageBinding gives functions to a vfio driver when a claim asks for that
	// personality, and back to their own driver when it is done: both personalities are
	// published. Without it, what is bound to vfio is left to others. The default is false.
	ManageBinding bool `json:"manageBinding,omitempty"`
	// Entries select the functions of family pci, which no other family knows.
	Entries []pciselect.Entry `json:"entries,omitempty"`
	// NetworkHook is the absolute path of a program of the host that sets up the network ports
	// of a container's accelerators (gaudi), for claims with scaleOut: it is run as root on the
	// host, with the argument createRuntime, before the container starts.
	NetworkHook string `json:"networkHook,omitempty"`
	// NetworkConfig is the absolute path of a file of the host that such containers see under
	// the same path, to be read (gaudi).
	NetworkConfig string `json:"networkConfig,omitempty"`
	// Programs are what claims can have ports programmed with (fpga). Without it, ports are
	// given away as they are.
	Programs *Programs `json:"programs,omitempty"`
	// Profiles say how functions of the family are to be set up. Without any, topolet
	// changes no settings of devices. No function may match two of them.
	Profiles []Profile `json:"profiles,omitempty"`
}

// CPURequests is what happens to a pod that requests too few CPUs.
type CPURequests string

const (
	// Warn attaches an Event to the pod.
	Warn CPURequests = "Warn"
	// Refuse does not let the containers start that name a claim.
	Refuse CPURequests = "Refuse"
	// Ignore does nothing.
	Ignore CPURequests = "Ignore"
)

// Enforcement is who keeps everyone else off claimed CPUs.
type Enforcement string

const (
	// Auto is the kernel where it can, and otherwise the container runtime.
	Auto Enforcement = "Auto"
	// Kernel is the kernel alone, by cpuset partitions: on a host without them the
	// driver does not start, and a container that cannot have one does not either.
	Kernel Enforcement = "Kernel"
	// Runtime is the container runtime, which moves all other containers away;
	// processes outside of containers stay.
	Runtime Enforcement = "Runtime"
)

// Level is a size of the parts into which the machine is divided.
type Level string

const (
	// L3 divides the machine into groups of CPUs that share an L3 cache.
	L3 Level = "l3"
	// Socket divides it into sockets.
	Socket Level = "socket"
	// Machine does not divide it.
	Machine Level = "machine"
)
