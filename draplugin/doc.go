// Package draplugin is topolet's side towards Kubernetes: a Dynamic Resource
// Allocation driver (KEP-4381, KEP-5075).
//
// Data passes through it in two directions. Outwards, the machine's domains
// become devices in ResourceSlices ([Devices]), from which the scheduler
// allocates claims. Inwards, the kubelet asks to prepare allocated claims: each
// is translated ([translate]), granted CPUs by the ledger and written as a CDI
// spec, whose device names the kubelet passes to the container runtime. They
// carry the claim's UID, and that is how a container is recognised later.
//
// When the machine changes, what is published follows it, and claims that lost
// CPUs are told ([Plugin.Refresh]).
package draplugin

// DriverName is the name under which the driver registers with the kubelet and
// publishes devices. It is also the domain of its attributes and capacities.
const DriverName = "topolet.dev"
