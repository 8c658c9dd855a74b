package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	resourceapi "k8s.io/api/resource/v1"
	drahealth "k8s.io/kubelet/pkg/apis/dra-health/v1"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
)

// kubelet is the kubelet's side of the daemon's sockets.
type kubelet struct {
	registry     string
	podResources *grpc.Server
	// driver is the daemon's DRA service, once it is registered.
	driver *grpc.ClientConn
	took   durations
}

// allocatable answers like a kubelet that gives no CPUs away itself.
type allocatable struct {
	podresources.UnimplementedPodResourcesListerServer
}

func (allocatable) GetAllocatableResources(context.Context, *podresources.AllocatableResourcesRequest) (*podresources.AllocatableResourcesResponse, error) {
	return &podresources.AllocatableResourcesResponse{}, nil
}

func newKubelet(ctx context.Context, registry, podResourcesSocket string, took durations) (*kubelet, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", podResourcesSocket)
	if err != nil {
		return nil, err
	}
	k := &kubelet{registry: registry, podResources: grpc.NewServer(), took: took}
	podresources.RegisterPodResourcesListerServer(k.podResources, allocatable{})
	go k.podResources.Serve(listener) //nolint:errcheck // it ends with the program
	return k, nil
}

func (k *kubelet) close() {
	k.podResources.Stop()
	if k.driver != nil {
		k.driver.Close() //nolint:errcheck // the end
	}
}

// register waits for the driver's socket, registers the driver, and watches the
// health of its devices from then on.
func (k *kubelet) register(ctx context.Context) error {
	conn, err := dial(filepath.Join(k.registry, draplugin.DriverName+"-reg.sock"))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := registerapi.NewRegistrationClient(conn)
	var info *registerapi.PluginInfo
	err = harness.Wait(ctx, limit, "the driver to be found by the kubelet", func(ctx context.Context) error {
		info, err = client.GetInfo(ctx, &registerapi.InfoRequest{}, grpc.WaitForReady(true))
		return err
	})
	if err != nil {
		return err
	}
	if k.driver != nil {
		k.driver.Close() //nolint:errcheck // of a daemon that has ended
	}
	if k.driver, err = dial(info.GetEndpoint()); err != nil {
		return err
	}
	if _, err := client.NotifyRegistrationStatus(ctx, &registerapi.RegistrationStatus{PluginRegistered: true}); err != nil {
		return err
	}
	health, err := drahealth.NewDRAResourceHealthClient(k.driver).NodeWatchResources(ctx, &drahealth.NodeWatchResourcesRequest{})
	if err != nil {
		return err
	}
	go func() {
		for {
			if _, err := health.Recv(); err != nil {
				return // with the daemon
			}
		}
	}()
	return nil
}

func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// prepare returns the CDI devices of a claim.
func (k *kubelet) prepare(ctx context.Context, claim *resourceapi.ResourceClaim) ([]string, error) {
	begin := time.Now()
	reply, err := dra.NewDRAPluginClient(k.driver).NodePrepareResources(ctx, &dra.NodePrepareResourcesRequest{Claims: request(claim)})
	k.took.add("NodePrepareResources", begin)
	if err != nil {
		return nil, err
	}
	answer := reply.GetClaims()[string(claim.UID)]
	if answer.GetError() != "" {
		return nil, errors.New(answer.GetError())
	}
	var devices []string
	for _, d := range answer.GetDevices() {
		devices = append(devices, d.GetCdiDeviceIds()...)
	}
	if len(devices) == 0 {
		return nil, fmt.Errorf("claim %s has no CDI device", claim.Name)
	}
	return devices, nil
}

func (k *kubelet) unprepare(ctx context.Context, claim *resourceapi.ResourceClaim) error {
	begin := time.Now()
	reply, err := dra.NewDRAPluginClient(k.driver).NodeUnprepareResources(ctx, &dra.NodeUnprepareResourcesRequest{Claims: request(claim)})
	k.took.add("NodeUnprepareResources", begin)
	if err != nil {
		return err
	}
	answer, ok := reply.GetClaims()[string(claim.UID)]
	if !ok || answer.GetError() != "" {
		return fmt.Errorf("unprepare claim %s: %s", claim.Name, answer.GetError())
	}
	return nil
}

func request(claim *resourceapi.ResourceClaim) []*dra.Claim {
	return []*dra.Claim{{Namespace: claim.Namespace, Name: claim.Name, Uid: string(claim.UID)}}
}
