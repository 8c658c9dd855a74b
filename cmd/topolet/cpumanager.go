package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// podResourcesLimit is how long the kubelet may take to answer. It is on the same
// machine; where it is down there is nothing to wait for.
const podResourcesLimit = 5 * time.Second

// refuseStaticCPUManager returns an error if the kubelet gives CPUs to containers
// itself: both would think that the same CPUs are theirs to give. Only a kubelet
// whose CPU manager has the policy "static" has CPUs among its allocatable
// resources (k8s.io/kubelet/pkg/apis/podresources/v1, GetAllocatableResources). A
// kubelet that does not answer is no reason not to start.
func refuseStaticCPUManager(ctx context.Context, socket string) error {
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
		return fmt.Errorf("the kubelet on this node gives %d CPUs to containers itself: "+
			"set cpuManagerPolicy to none in its configuration, delete the file cpu_manager_state in its folder and restart it", n)
	}
	return nil
}
