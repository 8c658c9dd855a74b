//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology/topologytest"
)

// paperNode is a node as large as one likes. The API server, the scheduler and
// topolet's own process are real; the machine is a tree of files, and the test
// itself calls topolet as the kubelet would, and through the runtime's half of
// NRI as containerd would. Its containers are cgroup files without processes.
type paperNode struct {
	name string
	dir  string
	host string // the root of the machine's files
	stop func() // kills topolet's process

	mu         sync.Mutex
	pods       []*api.PodSandbox
	containers []*api.Container
	updates    int
	nri        *adaptation.Adaptation
}

// newPaperNode makes a node of this machine and starts topolet on it.
func newPaperNode(t *testing.T, machine topologytest.Spec) *paperNode {
	t.Helper()
	host := t.TempDir()
	if err := topologytest.Write(host, machine); err != nil {
		t.Fatal(err)
	}
	return newPaperNodeOn(t, host, "")
}

// newPaperNodeOn makes a node whose machine's files are below a folder, and starts topolet
// on it with a configuration, empty for the defaults.
func newPaperNodeOn(t *testing.T, host, configuration string) *paperNode {
	t.Helper()
	dir, err := os.MkdirTemp("", "paper") //nolint:usetesting // sockets' paths have 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // the test has ended
	n := &paperNode{name: "paper-" + filepath.Base(dir)[len("paper"):], dir: dir, host: host}
	for _, folder := range []string{"plugins/topolet.dev", "registry", "cdi"} {
		if err := os.MkdirAll(n.path(folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, n.cgroup("/cgroup.controllers"), "cpuset")
	write(t, n.path("config.yaml"), "apiVersion: topolet.dev/v1alpha1\nkind: Configuration\n"+configuration)
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", cluster.Source, "-o", n.path("topolet"), "./cmd/topolet").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n.nri, err = adaptation.New("containerd", "v2.4.2", n.synchronize, n.refuseUpdates,
		adaptation.WithSocketPath(n.path("nri.sock")), adaptation.WithPluginPath(n.path("none")), adaptation.WithPluginConfigPath(n.path("none")))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.nri.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.nri.Stop)
	n.register(t)
	n.startTopolet(t)
	return n
}

func (n *paperNode) path(name string) string { return filepath.Join(n.dir, name) }

// cgroup is a file of the machine's cgroups.
func (n *paperNode) cgroup(name string) string { return n.host + "/sys/fs/cgroup" + name }

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// register makes the Node object and keeps it ready, as a kubelet would.
func (n *paperNode) register(t *testing.T) {
	t.Helper()
	nodes := cluster.Client.CoreV1().Nodes()
	node, err := nodes.Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: map[string]string{corev1.LabelHostname: n.name}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	beat := func() error {
		current, err := nodes.Get(ctx, n.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		current.Status.Capacity = corev1.ResourceList{"cpu": resource.MustParse("64"), "memory": resource.MustParse("64Gi"), "pods": resource.MustParse("110")}
		current.Status.Allocatable = current.Status.Capacity
		current.Status.Conditions = []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
			LastHeartbeatTime: metav1.Now(), LastTransitionTime: node.CreationTimestamp,
		}}
		_, err = nodes.UpdateStatus(ctx, current, metav1.UpdateOptions{})
		return err
	}
	var beating sync.WaitGroup
	beating.Go(func() {
		for ctx.Err() == nil {
			// A conflict with the node controller is mended by the next beat.
			_ = beat()
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		beating.Wait()
		if err := nodes.Delete(context.Background(), n.name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// startTopolet starts the process and waits until it serves claims.
func (n *paperNode) startTopolet(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(n.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), n.path("topolet"), "run",
		"--node-name="+n.name, "--kubeconfig="+cluster.Var("KUBECONFIG"), "--root="+n.host,
		"--config="+n.path("config.yaml"), "--state-dir="+n.path("state"), "--kubelet-plugins-dir="+n.path("plugins"), "--kubelet-registry-dir="+n.path("registry"),
		"--cdi-dir="+n.path("cdi"), "--nri-socket="+n.path("nri.sock"),
		"--pod-resources-socket="+n.path("pod-resources.sock"), "--http-address=")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cmd.Process.Kill() //nolint:errcheck // it may have ended
			cmd.Wait()         //nolint:errcheck // killed
			log.Close()        //nolint:errcheck // only written
		})
	}
	t.Cleanup(n.stop)
	t.Cleanup(func() {
		if text, err := os.ReadFile(n.path("log")); err == nil && t.Failed() {
			t.Logf("topolet on %s:\n%s", n.name, text)
		}
	})
	if err := harness.Wait(t.Context(), startLimit, "topolet to serve claims on "+n.name, func(ctx context.Context) error {
		_, err := n.prepare(ctx, nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// prepareClaim has topolet prepare a claim by its name, and returns its answer.
func (n *paperNode) prepareClaim(t *testing.T, namespace, name string) *dra.NodePrepareResourceResponse {
	t.Helper()
	claim, err := cluster.Client.ResourceV1().ResourceClaims(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := n.prepare(t.Context(), []*dra.Claim{{Namespace: namespace, Uid: string(claim.UID), Name: claim.Name}})
	if err != nil {
		t.Fatal(err)
	}
	return prepared[string(claim.UID)]
}

// prepare calls topolet as the kubelet does for a pod's claims.
func (n *paperNode) prepare(ctx context.Context, claims []*dra.Claim) (map[string]*dra.NodePrepareResourceResponse, error) {
	conn, err := grpc.NewClient("unix://"+n.path("plugins/"+draplugin.DriverName+"/dra.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to say
	response, err := dra.NewDRAPluginClient(conn).NodePrepareResources(ctx, &dra.NodePrepareResourcesRequest{Claims: claims})
	if err != nil {
		return nil, err
	}
	return response.GetClaims(), nil
}

// create makes a container with these CDI devices and returns its CPUs.
func (n *paperNode) create(ctx context.Context, pod *corev1.Pod, name string, devices []string) (string, error) {
	sandbox := &api.PodSandbox{Id: string(pod.UID), Name: pod.Name, Uid: string(pod.UID), Namespace: pod.Namespace}
	ctr := &api.Container{
		Id: string(pod.UID) + "-" + name, PodSandboxId: sandbox.GetId(), Name: name,
		State: api.ContainerState_CONTAINER_CREATED,
		Linux: &api.LinuxContainer{CgroupsPath: "/pods/" + string(pod.UID) + "/" + name},
	}
	for _, device := range devices {
		ctr.CDIDevices = append(ctr.CDIDevices, &api.CDIDevice{Name: device})
	}
	reply, err := n.nri.CreateContainer(ctx, &api.CreateContainerRequest{Pod: sandbox, Container: ctr})
	if err != nil {
		return "", err
	}
	cpus := reply.GetAdjust().GetLinux().GetResources().GetCpu().GetCpus()
	file := n.cgroup(ctr.GetLinux().GetCgroupsPath() + "/cpuset.cpus.effective")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(file, []byte(cpus), 0o600); err != nil {
		return "", err
	}
	if err := n.nri.PostCreateContainer(ctx, &api.PostCreateContainerRequest{Pod: sandbox, Container: ctr}); err != nil {
		return "", err
	}
	if err := n.nri.StartContainer(ctx, &api.StartContainerRequest{Pod: sandbox, Container: ctr}); err != nil {
		return "", err
	}
	ctr.State = api.ContainerState_CONTAINER_RUNNING
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods, n.containers = append(n.pods, sandbox), append(n.containers, ctr)
	return cpus, nil
}

// synchronize tells a plugin that connects what runs, and counts what it wants
// changed.
func (n *paperNode) synchronize(ctx context.Context, tell adaptation.SyncCB) error {
	n.mu.Lock()
	pods, containers := n.pods, n.containers
	n.mu.Unlock()
	updates, err := tell(ctx, pods, containers)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.updates += len(updates)
	return err
}

// refuseUpdates fails what the paper node's tests do not expect.
func (n *paperNode) refuseUpdates(_ context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	return updates, errors.New("a paper node has only claimed containers, which never change")
}

// scheduled waits until the scheduler has put a pod on this node and returns it.
func (n *paperNode) scheduled(t *testing.T, namespace, name string) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	if err := harness.Wait(t.Context(), startLimit, fmt.Sprintf("pod %s to be scheduled to %s", name, n.name), func(ctx context.Context) (err error) {
		if pod, err = cluster.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if pod.Spec.NodeName != n.name {
			return fmt.Errorf("node %q, conditions %+v", pod.Spec.NodeName, pod.Status.Conditions)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return pod
}
