//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/topolet/topolet/test/harness"
)

// TestEveryCDINameResolves asks the kubelet which CDI devices it passes for a
// container, and looks them up as a container runtime that has just started
// would.
func TestEveryCDINameResolves(t *testing.T) {
	ns := namespace(t)
	claimFor(t, ns, "one", "1")
	start(t, ns, podOf("exclusive", "one"))
	names := kubeletCDINames(t, ns, "exclusive")
	if len(names) < 2 {
		t.Fatalf("the kubelet passes %v; want the claim's device and its metadata", names)
	}
	resolve(t, names)
	killDaemon(t, nil)
	resolve(t, names)
}

func resolve(t *testing.T, names []string) {
	t.Helper()
	cache, err := cdi.NewCache(cdi.WithSpecDirs(cluster.Var("TESTBED_CDI_DIR")), cdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	if errs := cache.GetErrors(); len(errs) > 0 {
		t.Errorf("CDI folder: %v", errs)
	}
	for _, name := range names {
		if cache.GetDevice(name) == nil {
			t.Errorf("%s does not resolve; the folder has %v", name, cache.ListDevices())
		}
	}
}

func kubeletCDINames(t *testing.T, namespace, pod string) []string {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+cluster.Var("TESTBED_POD_RESOURCES_SOCKET"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // only read
	var names []string
	if err := harness.Wait(t.Context(), startLimit, "the kubelet to tell the pod's devices", func(ctx context.Context) error {
		response, err := podresources.NewPodResourcesListerClient(conn).Get(ctx,
			&podresources.GetPodResourcesRequest{PodNamespace: namespace, PodName: pod})
		if err != nil {
			return err
		}
		for _, c := range response.GetPodResources().GetContainers() {
			for _, claim := range c.GetDynamicResources() {
				for _, resource := range claim.GetClaimResources() {
					for _, device := range resource.GetCdiDevices() {
						names = append(names, device.GetName())
					}
				}
			}
		}
		if len(names) == 0 {
			return fmt.Errorf("none in %v", response)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return names
}
