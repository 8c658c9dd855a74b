package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/topology"
)

// drifts tells pods of containers that do not stay on their CPUs.
type drifts struct{ notes draplugin.Notifier }

// Drifted implements [nriplugin.Drifts].
func (d drifts) Drifted(ctx context.Context, entry allocator.Entry, runsOn topology.CPUSet) {
	d.notes.WarnAbout(ctx, corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: entry.PodNamespace, Name: entry.PodName, UID: types.UID(entry.Pod),
	}, "CPUsNotKept", fmt.Sprintf("Container %s runs on CPUs %s instead of %s, whatever the container runtime is told: "+
		"something else writes to its cgroup or to one above it, or the runtime refuses (see its log)", entry.Name, runsOn, entry.Desired))
}
