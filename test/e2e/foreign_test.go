//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/harness"
)

// TestAContainerThatNamesAnothersClaimIsRefused goes past the kubelet, which
// passes a pod's own claims only, and asks the container runtime directly.
func TestAContainerThatNamesAnothersClaimIsRefused(t *testing.T) {
	ns := namespace(t)
	start(t, ns, podOf("plain"))
	claimFor(t, ns, "held", "1")
	start(t, ns, podOf("owner", "held"))
	var uid allocator.ClaimUID
	for _, g := range grants(t) {
		uid = g.UID
	}
	before, ledger := placements(t), readCheckpoint(t)
	for name, test := range map[string]struct{ device, said string }{
		"another pod's claim":    {allocator.Ref{Claim: uid, Request: "cpus"}.String(), "which belongs to another pod"},
		"a claim nobody has":     {allocator.RefPrefix + "00000000-0000-0000-0000-000000000000.cpus", "unresolvable CDI devices"},
		"a name that is no name": {allocator.RefPrefix + "a.b.c", "unresolvable CDI devices"},
	} {
		t.Run(name, func(t *testing.T) {
			err := createContainer(t, test.device)
			if err == nil || !strings.Contains(err.Error(), test.said) {
				t.Errorf("the runtime answered: %v; want %q", err, test.said)
			}
			if diff := cmp.Diff(before, placements(t)); diff != "" {
				t.Errorf("CPUs -before +after:\n%s", diff)
			}
			if diff := cmp.Diff(ledger, readCheckpoint(t)); diff != "" {
				t.Errorf("ledger -before +after:\n%s", diff)
			}
		})
	}
}

// createContainer has the runtime create a container with a CDI device, in a
// sandbox of its own that is removed afterwards.
func createContainer(t *testing.T, device string) error {
	t.Helper()
	s := newSandbox(t, "thief")
	defer s.remove()
	_, err := s.create("main", &cri.CDIDevice{Name: device})
	return err
}

// sandbox is one of the container runtime's own, of which the kubelet knows nothing.
type sandbox struct {
	t       *testing.T
	conn    *grpc.ClientConn
	runtime cri.RuntimeServiceClient
	config  *cri.PodSandboxConfig
	id      string
}

func newSandbox(t *testing.T, name string) *sandbox {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+cluster.Var("TESTBED_CONTAINERD_SOCKET"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	// The runtime keeps the name of a sandbox that the kubelet has ended until the
	// kubelet removes it as well.
	uid := strings.ToLower(rand.Text())
	s := &sandbox{t: t, conn: conn, runtime: cri.NewRuntimeServiceClient(conn), config: &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: uid, Namespace: "default"},
		LogDirectory: t.TempDir(),
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: cluster.Var("TESTBED_CGROUP") + "/" + name,
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
			},
		},
	}}
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	return s
}

// run starts the sandbox, again if the kubelet has found and ended it.
func (s *sandbox) run() error {
	s.config.Metadata.Attempt++
	started, err := s.runtime.RunPodSandbox(s.t.Context(), &cri.RunPodSandboxRequest{Config: s.config})
	s.id = started.GetPodSandboxId()
	return err
}

// create returns the id of a container that is not started.
func (s *sandbox) create(name string, devices ...*cri.CDIDevice) (string, error) {
	created, err := s.runtime.CreateContainer(s.t.Context(), &cri.CreateContainerRequest{
		PodSandboxId:  s.id,
		SandboxConfig: s.config,
		Config: &cri.ContainerConfig{
			Metadata:   &cri.ContainerMetadata{Name: name},
			Image:      &cri.ImageSpec{Image: cluster.Var("TESTBED_WORKLOAD_IMAGE")},
			CDIDevices: devices,
			LogPath:    name + ".log",
			Linux:      &cri.LinuxContainerConfig{},
		},
	})
	return created.GetContainerId(), err
}

// remove waits for the kubelet, which may be at removing the sandbox itself.
func (s *sandbox) remove() {
	if err := harness.Wait(s.t.Context(), deleteLimit, "the sandbox to be removed", func(ctx context.Context) error {
		_, err := s.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: s.id})
		return err
	}); err != nil {
		s.t.Error(err)
	}
	s.conn.Close() //nolint:errcheck // the test ends
}
