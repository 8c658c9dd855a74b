package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/topolet/topolet/test/expect"
)

// kubelet answers what is allocatable, or refuses to.
type kubelet struct {
	podresources.UnimplementedPodResourcesListerServer

	mu   sync.Mutex
	cpus []int64
	err  error
}

func (k *kubelet) set(cpus ...int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cpus = cpus
}

func (k *kubelet) GetAllocatableResources(context.Context, *podresources.AllocatableResourcesRequest) (*podresources.AllocatableResourcesResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &podresources.AllocatableResourcesResponse{CpuIds: k.cpus}, k.err
}

func (k *kubelet) serve(t *testing.T) (socket string) {
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

// warnings keeps what people were told.
type warnings struct {
	mu   sync.Mutex
	said []string
}

func (w *warnings) Warn(_ context.Context, reason, message string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, reason+": "+message)
}

func (w *warnings) WarnAbout(ctx context.Context, about corev1.ObjectReference, reason, message string) {
	w.Warn(ctx, about.Kind+" "+about.Namespace+"/"+about.Name+" "+reason, message)
}

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.said)
}

func TestTopoletWaitsWhileTheKubeletGivesCPUsItself(t *testing.T) {
	k, notes := &kubelet{cpus: []int64{1, 2, 3}}, &warnings{}
	guard := &cpuManagerGuard{socket: k.serve(t)}
	done := make(chan error, 1)
	go func() { done <- guard.wait(t.Context(), time.Millisecond, notes) }()
	expect.State(t, "the number of warnings", func() string { return fmt.Sprint(len(notes.all())) }, "1")
	k.set(1)
	expect.State(t, "what topolet waits for", func() string { return fmt.Sprint(guard.Ready()) },
		"topolet does not start while the kubelet on this node gives 1 CPUs to containers itself: set cpuManagerPolicy to none "+
			"in its configuration, delete the file cpu_manager_state in its folder and restart it")
	k.set()
	select {
	case err := <-done:
		if err != nil || guard.Ready() != nil {
			t.Errorf("%v, %v", err, guard.Ready())
		}
	case <-time.After(10 * time.Second):
		t.Fatal("waited 10 s for the guard to let topolet start")
	}
	if said := notes.all(); len(said) != 1 || !strings.HasPrefix(said[0], "StaticCPUManager: ") {
		t.Errorf("said %q", said)
	}
}

func TestTopoletThatWaitsCanBeEnded(t *testing.T) {
	k := &kubelet{cpus: []int64{1}}
	ctx, cancel := context.WithCancel(t.Context())
	guard, notes := &cpuManagerGuard{socket: k.serve(t)}, &warnings{}
	done := make(chan error, 1)
	go func() { done <- guard.wait(ctx, time.Hour, notes) }()
	expect.State(t, "the number of warnings", func() string { return fmt.Sprint(len(notes.all())) }, "1")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAKubeletThatGivesNoCPUsOrDoesNotTellIsNoReasonNotToStart(t *testing.T) {
	for name, socket := range map[string]string{
		"without a static CPU manager": (&kubelet{}).serve(t),
		"that does not know the call":  (&kubelet{err: status.Error(codes.Unimplemented, "unknown method")}).serve(t),
		"that does not run":            filepath.Join(t.TempDir(), "none.sock"),
	} {
		if err := staticCPUManager(t.Context(), socket); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
