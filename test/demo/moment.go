package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/demo/internal/picture"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

// The pods of deploy/examples. Both have one container.
const (
	plainPod  = "plain-pod"
	claimPod  = "one-cpu"
	container = "main"
	namespace = "default"
)

// moment is what was seen of the node at one time.
type moment struct {
	// claim is the name of the claim that holds CPUs, and granted are these, as
	// topolet's checkpoint has them. There is at most one claim.
	claim   string
	granted topology.CPUSet
	// kernels are the containers that run, by the name that a person knows.
	kernels map[string]harness.Kernel
}

// look sees what there is now.
func look(ctx context.Context, cluster *harness.Cluster) (moment, error) {
	var m moment
	grants, err := allocator.FileStore{Path: filepath.Join(cluster.StateDir(), "checkpoint.json")}.Load()
	if err != nil {
		return m, err
	}
	for _, g := range grants {
		m.claim, m.granted = g.Name, m.granted.Union(g.CPUs())
	}
	kernels, err := cluster.Kernels(ctx, cluster.Node())
	if err != nil {
		return m, err
	}
	m.kernels = map[string]harness.Kernel{}
	for key, k := range kernels {
		m.kernels[shortName(key)] = k
	}
	return m, nil
}

// shortName turns "namespace/pod/container" into what a person calls it: the pods
// of the examples by their names, topolet's own by its container's.
func shortName(key string) string {
	ns, rest, _ := strings.Cut(key, "/")
	pod, name, _ := strings.Cut(rest, "/")
	if ns == namespace && name == container {
		return pod
	}
	return name
}

// runs fails unless the container runs and the kernel has processes of it.
func (m moment) runs(name string) error {
	k, ok := m.kernels[name]
	if !ok {
		return fmt.Errorf("%s does not run", name)
	}
	if len(k.Pids) == 0 {
		return fmt.Errorf("%s has no process", name)
	}
	return nil
}

// rows are the moment as a picture. The pods of the examples always have a row,
// so that pictures of several moments can be compared.
func (m moment) rows(absent string) []picture.Row {
	names := []string{plainPod, claimPod}
	for _, name := range slices.Sorted(maps.Keys(m.kernels)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var rows []picture.Row
	for _, name := range names {
		k, ok := m.kernels[name]
		row := picture.Row{Name: name, Cgroup: k.Cgroup, Processes: k.Allowed}
		if !ok {
			row.Absent = absent
		} else if name == claimPod {
			row.Granted = m.granted
		}
		rows = append(rows, row)
	}
	return rows
}
