package main

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/topolet/topolet/test/expect"
)

// kubelet answers what is allocatable, or refuses to.
type kubelet struct {
	podresources.UnimplementedPodResourcesListerServer
	cpus []int64
	err  error
}

func (k kubelet) GetAllocatableResources(context.Context, *podresources.AllocatableResourcesRequest) (*podresources.AllocatableResourcesResponse, error) {
	return &podresources.AllocatableResourcesResponse{CpuIds: k.cpus}, k.err
}

func (k kubelet) serve(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "kubelet.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	podresources.RegisterPodResourcesListerServer(s, k)
	go s.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(s.Stop)
	return socket
}

func TestAKubeletThatGivesCPUsItselfIsRefused(t *testing.T) {
	expect.Error(t, refuseStaticCPUManager(t.Context(), kubelet{cpus: []int64{1, 2, 3}}.serve(t)),
		"gives 3 CPUs to containers itself", "cpuManagerPolicy", "cpu_manager_state")
}

func TestAKubeletThatGivesNoCPUsOrDoesNotTellIsNoReasonNotToStart(t *testing.T) {
	for name, socket := range map[string]string{
		"without a static CPU manager": kubelet{}.serve(t),
		"that does not know the call":  kubelet{err: status.Error(codes.Unimplemented, "unknown method")}.serve(t),
		"that does not run":            filepath.Join(t.TempDir(), "none.sock"),
	} {
		if err := refuseStaticCPUManager(t.Context(), socket); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
