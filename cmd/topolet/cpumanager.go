package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/topolet/topolet/draplugin"
)

// podResourcesLimit is how long the kubelet may take to answer. It is on the same
// machine; where it is down there is nothing to wait for.
const podResourcesLimit = 5 * time.Second

// cpuManagerInterval is how often a kubelet with a static CPU manager is asked
// whether it still has one.
const cpuManagerInterval = 5 * time.Second

// cpuManagerGuard holds topolet back while the kubelet gives CPUs to containers
// itself: both would think that the same CPUs are theirs to give.
type cpuManagerGuard struct {
	// socket is the kubelet's pod resources socket.
	socket string

	mu      sync.Mutex
	problem error
}

// Ready returns nil, or what topolet waits for.
func (g *cpuManagerGuard) Ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.problem
}

// wait returns when the kubelet gives no CPUs away, or the context's error. It
// tells people once what to change.
func (g *cpuManagerGuard) wait(ctx context.Context, interval time.Duration, notes draplugin.Notifier) error {
	for {
		err := staticCPUManager(ctx, g.socket)
		if err != nil && g.Ready() == nil {
			klog.FromContext(ctx).Error(err, "Waiting for another configuration of the kubelet")
			notes.Warn(ctx, "StaticCPUManager", err.Error())
		}
		g.mu.Lock()
		g.problem = err
		g.mu.Unlock()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(interval):
		}
	}
}

// staticCPUManager returns an error if the kubelet gives CPUs to containers itself.
// Only one whose CPU manager has the policy "static" has CPUs among its allocatable
// resources (k8s.io/kubelet/pkg/apis/podresources/v1, GetAllocatableResources). A
// kubelet that does not answer is no reason not to start.
func staticCPUManager(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, podResourcesLimit)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("the kubelet's pod resources socket: %w", err)
	}
	defer conn.Close() //nolint:errcheck // only asked
	answer, err := podresources.NewPodResourcesListerClient(conn).GetAllocatableResources(ctx, &podresources.AllocatableResourcesRequest{})
	if err != nil {
		klog.FromContext(ctx).Error(err, "The kubelet does not tell whether its CPU manager is static; with that it and topolet would give away the same CPUs", "socket", socket)
		return nil
	}
	if n := len(answer.GetCpuIds()); n > 0 {
		return fmt.Errorf("topolet does not start while the kubelet on this node gives %d CPUs to containers itself: "+
			"set cpuManagerPolicy to none in its configuration, delete the file cpu_manager_state in its folder and restart it", n)
	}
	return nil
}
