package allocator

import (
	"fmt"

	"github.com/topolet/topolet/topology"
)

// UnknownDomainError says that a claim was allocated from a domain that this
// machine does not have.
type UnknownDomainError struct {
	Domain string
}

func (e *UnknownDomainError) Error() string {
	return fmt.Sprintf("device %q does not exist on this node: the claim was allocated from an outdated picture of the machine; "+
		"delete the pod so that the scheduler allocates anew", e.Domain)
}

// ChangedClaimError says that a claim which already has CPUs came back with
// another allocation under the same UID.
type ChangedClaimError struct {
	Claim Claim
}

func (e *ChangedClaimError) Error() string {
	return fmt.Sprintf("claim %s/%s (%s) is prepared already with another allocation: delete the pods that use it first",
		e.Claim.Namespace, e.Claim.Name, e.Claim.UID)
}

// InUseError says that a claim cannot be released while a container runs on its
// CPUs.
type InUseError struct {
	Grant     Grant
	Container Container
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("claim %s/%s (%s) is in use by container %s of pod %s/%s: it is released when the container has stopped",
		e.Grant.Namespace, e.Grant.Name, e.Grant.UID, e.Container.Name, e.Container.PodNamespace, e.Container.PodName)
}

// UnknownClaimError says that a container names a claim that has no grant on
// this node.
type UnknownClaimError struct {
	Container Container
	Ref       Ref
}

func (e *UnknownClaimError) Error() string {
	return fmt.Sprintf("container %s of pod %s/%s names claim %s (request %q), which is not prepared on this node: "+
		"claims are named by the pod's spec.resourceClaims; delete the pod if its claim was lost",
		e.Container.Name, e.Container.PodNamespace, e.Container.PodName, e.Ref.Claim, e.Ref.Request)
}

// NotReservedError says that a container names a claim that belongs to another
// pod.
type NotReservedError struct {
	Container Container
	Grant     Grant
}

func (e *NotReservedError) Error() string {
	return fmt.Sprintf("container %s of pod %s/%s (%s) names claim %s/%s (%s), which belongs to another pod: "+
		"use a claim of the pod's own, for example through a ResourceClaimTemplate, or let the claim's CPUConfig say sharing: ManyPods",
		e.Container.Name, e.Container.PodNamespace, e.Container.PodName, e.Container.Pod,
		e.Grant.Namespace, e.Grant.Name, e.Grant.UID)
}

// OfflineError says that a container names a claim of whose CPUs some are offline.
type OfflineError struct {
	Container Container
	Grant     Grant
	CPUs      topology.CPUSet
}

func (e *OfflineError) Error() string {
	return fmt.Sprintf("container %s of pod %s/%s names claim %s/%s (%s), whose CPUs %s are offline: "+
		"bring them back online, or delete the pod so that its claim is allocated anew",
		e.Container.Name, e.Container.PodNamespace, e.Container.PodName,
		e.Grant.Namespace, e.Grant.Name, e.Grant.UID, e.CPUs)
}
