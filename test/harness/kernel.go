package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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
	// Pids are its processes.
	Pids []int
}

// errNoCgroup says that the container has no cgroup, so that it does not run.
var errNoCgroup = errors.New("no such cgroup")

// Kernel reads the container's cgroup and processes.
func (c *Cluster) Kernel(containerID string) (Kernel, error) {
	groups, err := c.cgroups()
	if err != nil {
		return Kernel{}, err
	}
	dir, ok := groups[containerID]
	if !ok {
		return Kernel{}, fmt.Errorf("container %s: %w", containerID, errNoCgroup)
	}
	return readKernel(dir)
}

// Kernels reads all running containers of all pods, by "namespace/pod/container".
// One that ends meanwhile is left out.
func (c *Cluster) Kernels(ctx context.Context) (map[string]Kernel, error) {
	pods, err := c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	groups, err := c.cgroups()
	if err != nil {
		return nil, err
	}
	found := map[string]Kernel{}
	for _, p := range pods.Items {
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			_, id, _ := strings.Cut(s.ContainerID, "://")
			dir, ok := groups[id]
			if s.State.Running == nil || !ok {
				continue
			}
			k, err := readKernel(dir)
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

// cgroups lists the cgroup folders of containers by the containers' ids.
func (c *Cluster) cgroups() (map[string]string, error) {
	root := filepath.Join("/sys/fs/cgroup", c.Var("TESTBED_CGROUP"))
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		root = filepath.Join("/sys/fs/cgroup/cpuset", c.Var("TESTBED_CGROUP"))
	}
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() && isContainerID(d.Name()) {
			found[d.Name()] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the cgroups of containers: %w", err)
	}
	return found, nil
}

func isContainerID(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

func readKernel(dir string) (Kernel, error) {
	var k Kernel
	data, err := os.ReadFile(filepath.Join(dir, "cpuset.cpus.effective"))
	if err != nil {
		data, err = os.ReadFile(filepath.Join(dir, "cpuset.effective_cpus"))
	}
	if err != nil {
		return k, fmt.Errorf("effective CPUs: %w", err)
	}
	if k.Cgroup, err = topology.ParseCPUSet(string(data)); err != nil {
		return k, err
	}
	if data, err = os.ReadFile(filepath.Join(dir, "cgroup.procs")); err != nil {
		return k, fmt.Errorf("processes: %w", err)
	}
	for field := range strings.FieldsSeq(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return k, fmt.Errorf("processes of %s: %w", dir, err)
		}
		allowed, err := allowedCPUs(pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return k, err
		}
		k.Pids = append(k.Pids, pid)
		k.Allowed = k.Allowed.Union(allowed)
	}
	return k, nil
}

func allowedCPUs(pid int) (topology.CPUSet, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return topology.CPUSet{}, fmt.Errorf("status of process %d: %w", pid, err)
	}
	defer f.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if list, ok := strings.CutPrefix(lines.Text(), "Cpus_allowed_list:"); ok {
			return topology.ParseCPUSet(list)
		}
	}
	return topology.CPUSet{}, fmt.Errorf("status of process %d: %w", pid, fs.ErrNotExist)
}
