package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/topology"
)

// Kernel is what the kernel says about a container.
type Kernel struct {
	// Cgroup are the effective CPUs of the container's cgroup.
	Cgroup topology.CPUSet
	// Allowed are the CPUs on which its processes may run (Cpus_allowed_list), all
	// of them together.
	Allowed topology.CPUSet
	// Mems are the effective NUMA nodes of the cgroup, and MemsAllowed those from
	// which its processes may take memory (Mems_allowed_list).
	Mems, MemsAllowed topology.CPUSet
	// Pids are its processes.
	Pids []int
}

// Kernel reads the cgroup and processes of a container that runs.
func (c *Cluster) Kernel(ctx context.Context, namespace, pod, container string) (Kernel, error) {
	node, dir, err := c.cgroupOf(ctx, namespace, pod, container)
	if err != nil {
		return Kernel{}, err
	}
	return node.kernel(dir)
}

// CgroupOf returns the folder of the cgroup of a container that runs (cgroup v1: in
// the cpuset hierarchy), on the machine of its node.
func (c *Cluster) CgroupOf(ctx context.Context, namespace, pod, container string) (string, error) {
	_, dir, err := c.cgroupOf(ctx, namespace, pod, container)
	return dir, err
}

func (c *Cluster) cgroupOf(ctx context.Context, namespace, pod, container string) (Node, string, error) {
	p, err := c.Client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		return Node{}, "", fmt.Errorf("get pod %s/%s: %w", namespace, pod, err)
	}
	id, err := containerID(p, container)
	if err != nil {
		return Node{}, "", err
	}
	node, err := c.node(p.Spec.NodeName)
	if err != nil {
		return Node{}, "", fmt.Errorf("pod %s/%s: %w", namespace, pod, err)
	}
	dir, err := node.cgroupOf(p, id)
	return node, dir, err
}

// Kernels reads all running containers of a node's pods, by
// "namespace/pod/container". One that ends meanwhile is left out.
func (c *Cluster) Kernels(ctx context.Context, node Node) (map[string]Kernel, error) {
	pods, err := c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node.Name})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	found := map[string]Kernel{}
	for _, p := range pods.Items {
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if s.State.Running == nil {
				continue
			}
			_, id, _ := strings.Cut(s.ContainerID, "://")
			dir, err := node.cgroupOf(&p, id)
			if err != nil {
				return nil, err
			}
			k, err := node.kernel(dir)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			found[p.Namespace+"/"+p.Name+"/"+s.Name] = k
		}
	}
	return found, nil
}

func (n Node) cgroupOf(p *corev1.Pod, containerID string) (string, error) {
	root := "/sys/fs/cgroup"
	if _, err := n.ReadFile(root + "/cgroup.controllers"); errors.Is(err, fs.ErrNotExist) {
		root += "/cpuset"
	} else if err != nil {
		return "", err
	}
	class := map[corev1.PodQOSClass]string{corev1.PodQOSBurstable: "burstable", corev1.PodQOSBestEffort: "besteffort"}[p.Status.QOSClass]
	return path.Join(root, n.cgroup, "kubepods", class, "pod"+string(p.UID), containerID), nil
}

func (n Node) kernel(dir string) (Kernel, error) {
	var k Kernel
	var err error
	if k.Cgroup, err = n.effective(dir, "cpus"); err != nil {
		return k, err
	}
	// Lists of NUMA nodes have the format of CPU lists.
	if k.Mems, err = n.effective(dir, "mems"); err != nil {
		return k, err
	}
	data, err := n.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		return k, fmt.Errorf("processes: %w", err)
	}
	for field := range strings.FieldsSeq(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return k, fmt.Errorf("processes of %s: %w", dir, err)
		}
		allowed, mems, err := n.allowed(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return k, err
		}
		k.Pids = append(k.Pids, pid)
		k.Allowed, k.MemsAllowed = k.Allowed.Union(allowed), k.MemsAllowed.Union(mems)
	}
	return k, nil
}

// effective reads the effective cpus or mems of a cgroup, of version 2 or 1.
func (n Node) effective(dir, what string) (topology.CPUSet, error) {
	data, err := n.ReadFile(dir + "/cpuset." + what + ".effective")
	if errors.Is(err, fs.ErrNotExist) {
		data, err = n.ReadFile(dir + "/cpuset.effective_" + what)
	}
	if err != nil {
		return topology.CPUSet{}, fmt.Errorf("effective %s: %w", what, err)
	}
	return topology.ParseCPUSet(string(data))
}

// allowed are the CPUs and NUMA nodes of a process.
func (n Node) allowed(pid int) (cpus, mems topology.CPUSet, err error) {
	data, err := n.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return cpus, mems, fmt.Errorf("status of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(data)) {
		if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			if cpus, err = topology.ParseCPUSet(list); err != nil {
				return cpus, mems, err
			}
		} else if list, ok := strings.CutPrefix(line, "Mems_allowed_list:"); ok {
			mems, err = topology.ParseCPUSet(list)
			return cpus, mems, err
		}
	}
	return cpus, mems, fmt.Errorf("status of process %d: %w", pid, fs.ErrNotExist)
}
