package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/topology/topologytest"
)

// node is everything around the daemon, in one folder.
type node struct {
	dir     string
	api     *apiServer
	kubelet *kubelet
	runtime *containerRuntime
	// pods counts those that there ever were.
	pods int
	took durations
}

func newNode(ctx context.Context, dir string) (n *node, err error) {
	n = &node{dir: dir, took: durations{}}
	for _, folder := range []string{"registry", "plugins", "cdi"} {
		if err := os.Mkdir(n.path(folder), 0o750); err != nil {
			return nil, err
		}
	}
	if err := topologytest.Write(n.path("root"), machine); err != nil {
		return nil, err
	}
	if n.runtime, err = newContainerRuntime(n.path("root"), n.path("nri.sock"), n.took); err != nil {
		return nil, err
	}
	if n.api, err = newAPIServer(n.path("kubeconfig")); err != nil {
		return nil, err
	}
	if n.kubelet, err = newKubelet(ctx, n.path("registry"), n.path("pods.sock"), n.took); err != nil {
		n.api.close()
		return nil, err
	}
	return n, nil
}

func (n *node) close() {
	n.kubelet.close()
	n.runtime.close()
	n.api.close()
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// start begins a daemon with all levels of devices, which is the most that it can
// be asked for.
func (n *node) start(ctx context.Context, o options) (*daemon, error) {
	const config = "apiVersion: topolet.dev/v1alpha1\nkind: Configuration\nlevels: [l3, socket, machine]\n"
	if err := os.WriteFile(n.path("config.yaml"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(n.path("log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, o.topolet, "run", "-v=2",
		"--node-name="+nodeName, "--kubeconfig="+n.path("kubeconfig"), "--config="+n.path("config.yaml"),
		"--root="+n.path("root"), "--state-dir="+n.path("state"), "--kubelet-plugins-dir="+n.path("plugins"),
		"--kubelet-registry-dir="+n.path("registry"), "--pod-resources-socket="+n.path("pods.sock"),
		"--cdi-dir="+n.path("cdi"), "--nri-socket="+n.path("nri.sock"), "--http-address="+address)
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", o.maxProcs))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return &daemon{cmd: cmd, address: address, log: log}, nil
}

// freeAddress is one on which nobody listens.
func freeAddress(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// connect has the daemon find its runtime and the kubelet find the daemon.
func (n *node) connect(ctx context.Context, d *daemon) error {
	if err := n.runtime.listen(); err != nil {
		return err
	}
	if err := n.kubelet.register(ctx); err != nil {
		return d.explain(err)
	}
	return d.wait(ctx, "the daemon to be ready", "/readyz")
}

// check waits until the daemon knows all containers and claims and has published
// the machine, and checks that no container runs where it must not.
func (n *node) check(ctx context.Context, d *daemon, o options) error {
	if err := d.wait(ctx, "the daemon to know all claims and containers", "/metrics",
		fmt.Sprintf("topolet_claims %d", claims), "topolet_conflicts 0",
		fmt.Sprintf(`topolet_containers{kind="exclusive"} %d`, claims),
		fmt.Sprintf(`topolet_containers{kind="shared"} %d`, o.containers-claims),
		`topolet_containers{kind="orphan"} 0`); err != nil {
		return err
	}
	if err := n.api.published(ctx); err != nil {
		return d.explain(err)
	}
	return n.runtime.confined(ctx)
}

// prepare has a new claim of some CPUs prepared, and returns a container of it.
// The NUMA nodes take turns.
func (n *node) prepare(ctx context.Context, turn int) (*container, error) {
	c := n.newContainer("exclusive")
	claim := &resourceapi.ResourceClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: resourceapi.SchemeGroupVersion.String(), Kind: "ResourceClaim"},
		ObjectMeta: metav1.ObjectMeta{Namespace: c.pod.GetNamespace(), Name: c.pod.GetName() + "-cpus", UID: types.UID(uid('c', n.pods))},
		Status: resourceapi.ResourceClaimStatus{
			ReservedFor: []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: c.pod.GetName(), UID: types.UID(c.pod.GetUid())}},
			Allocation: &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{
				Results: []resourceapi.DeviceRequestAllocationResult{{
					Request: "cpus", Driver: draplugin.DriverName, Pool: nodeName, Device: fmt.Sprintf("numa-%d", turn%numaNodes),
					ShareID: ptr.To(types.UID(uid('5', n.pods))),
					ConsumedCapacity: map[resourceapi.QualifiedName]resource.Quantity{
						draplugin.CapacityCPUs:    *resource.NewQuantity(claimed, resource.DecimalSI),
						draplugin.CapacityTenants: *resource.NewQuantity(1, resource.DecimalSI),
					},
				}},
			}},
		},
	}
	n.api.add(claim)
	c.claim = claim
	devices, err := n.kubelet.prepare(ctx, claim)
	if err != nil {
		return nil, err
	}
	c.hold(devices)
	return c, nil
}

// churn has one container come and go, and a claim with it at every fourth turn.
func (n *node) churn(ctx context.Context, turn int) error {
	if turn%4 > 0 {
		c := n.newContainer("shared")
		return errors.Join(n.runtime.run(ctx, c), n.runtime.end(ctx, c))
	}
	c, err := n.prepare(ctx, turn/4)
	if err != nil {
		return err
	}
	err = errors.Join(n.runtime.run(ctx, c), n.runtime.end(ctx, c), n.kubelet.unprepare(ctx, c.claim))
	n.api.remove(c.claim)
	return err
}

// newContainer describes the only container of a new pod.
func (n *node) newContainer(kind string) *container {
	n.pods++
	return describe(kind, n.pods)
}

// uid has the form of those in Kubernetes.
func uid(kind rune, number int) string {
	return fmt.Sprintf("%c%07x-7c5e-4b1d-9a3f-%012x", kind, number, number)
}
