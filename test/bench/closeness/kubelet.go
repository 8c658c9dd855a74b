package main

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager/state"
	cputopology "k8s.io/kubernetes/pkg/kubelet/cm/cpumanager/topology"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	"k8s.io/utils/cpuset"

	"github.com/topolet/topolet/topology"
)

// The policies of the kubelet's topology manager that are compared.
const (
	bestEffort     = topologymanager.PolicyBestEffort
	singleNUMANode = topologymanager.PolicySingleNumaNode
)

// maxNUMANodes is the kubelet's default for max-allowable-numa-nodes; the work for
// one pod doubles with each further node.
const maxNUMANodes = 8

// highestNUMANode is the largest number of a NUMA node for which the kubelet's
// sets of nodes have room.
const highestNUMANode = 63

// containerName is the name of the one container of every pod.
const containerName = "main"

// kubelet serves claims as a kubelet with the static CPU manager does. A claim is
// a Guaranteed pod of one container, and goes through the admission of the real
// topology manager: it asks the CPU manager for hints, merges them, and has it
// allocate.
type kubelet struct {
	ctx     context.Context // carries the silent logger
	logger  klog.Logger
	manager topologymanager.Manager
	policy  cpumanager.Policy
	state   state.State
	pods    []*v1.Pod
}

// newKubelet makes a kubelet with the options that keep CPUs closest together,
// which gives away the same CPUs of the machine as topolet.
func newKubelet(m machine, policy string, sizes []int) (*kubelet, error) {
	k := &kubelet{logger: klog.New(nil)}
	k.ctx = klog.NewContext(context.Background(), k.logger)
	k.state = state.NewMemoryState(k.logger)
	for claim, cpus := range sizes {
		k.pods = append(k.pods, pod(claim, cpus))
	}

	info := machineInfo(m.model)
	options := map[string]string{}
	if distancesUsable(m.model) {
		options[topologymanager.PreferClosestNUMANodes] = "true"
	}
	var err error
	k.manager, err = topologymanager.NewManager(k.logger, info.Topology, policy, topologymanager.ContainerTopologyScope, options)
	if err != nil {
		return nil, err
	}
	seen, err := cputopology.Discover(k.logger, info)
	if err != nil {
		return nil, err
	}
	reserved := seen.CPUDetails.CPUs().Difference(cpuset.New(m.claimable().List()...))
	k.policy, err = cpumanager.NewStaticPolicy(k.logger, seen, reserved.Size(), reserved, k.manager, map[string]string{
		cpumanager.FullPCPUsOnlyOption:            "true",
		cpumanager.PreferAlignByUnCoreCacheOption: "true",
	})
	if err != nil {
		return nil, err
	}
	k.manager.AddHintProvider(k.logger, k)
	return k, k.policy.Start(k.logger, k.state)
}

// distancesUsable reports whether the topology manager can weigh the distances of
// NUMA nodes, which it looks up by the nodes' numbers.
func distancesUsable(m *topology.Machine) bool {
	for i, n := range m.NUMANodes {
		if n.ID != i || len(n.Distances) != len(m.NUMANodes) {
			return false
		}
	}
	return len(m.NUMANodes) > 0
}

func pod(claim, cpus int) *v1.Pod {
	resources := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewQuantity(int64(cpus), resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(1<<20, resource.BinarySI),
	}
	name := fmt.Sprintf("claim-%d", claim)
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
		Spec: v1.PodSpec{Containers: []v1.Container{{
			Name:      containerName,
			Resources: v1.ResourceRequirements{Requests: resources, Limits: resources},
		}}},
	}
}

// serve implements [server].
func (k *kubelet) serve(claim int) (topology.CPUSet, error) {
	p := k.pods[claim]
	if !k.manager.Admit(k.ctx, &lifecycle.PodAdmitAttributes{Pod: p, Operation: lifecycle.AddOperation}).Admit {
		return topology.CPUSet{}, nil
	}
	k.manager.AddContainer(k.logger, p, &p.Spec.Containers[0], string(p.UID))
	cpus, ok := k.state.GetCPUSet(string(p.UID), containerName)
	if !ok {
		return topology.CPUSet{}, fmt.Errorf("pod %s was admitted without CPUs of its own", p.Name)
	}
	return topology.NewCPUSet(cpus.UnsortedList()...), nil
}

// release implements [server].
func (k *kubelet) release(claim int) error {
	uid := string(k.pods[claim].UID)
	if err := k.policy.RemoveContainer(k.logger, k.state, uid, containerName); err != nil {
		return err
	}
	return k.manager.RemoveContainer(k.logger, uid)
}

// The methods below make the policy a [topologymanager.HintProvider], as the CPU
// manager around it does in the kubelet.

// GetTopologyHints implements [topologymanager.HintProvider].
func (k *kubelet) GetTopologyHints(logger klog.Logger, p *v1.Pod, c *v1.Container, op lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	return k.policy.GetTopologyHints(logger, k.state, p, c, op)
}

// GetPodTopologyHints implements [topologymanager.HintProvider].
func (k *kubelet) GetPodTopologyHints(logger klog.Logger, p *v1.Pod, op lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	return k.policy.GetPodTopologyHints(logger, k.state, p, op)
}

// Allocate implements [topologymanager.HintProvider].
func (k *kubelet) Allocate(ctx context.Context, p *v1.Pod, c *v1.Container, op lifecycle.Operation) error {
	return k.policy.Allocate(klog.FromContext(ctx), k.state, p, c, op)
}

// AllocatePod implements [topologymanager.HintProvider].
func (k *kubelet) AllocatePod(logger klog.Logger, p *v1.Pod, op lifecycle.Operation) error {
	return k.policy.AllocatePod(logger, k.state, p, op)
}
