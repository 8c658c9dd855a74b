package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/topolet/topolet/test/harness"
)

const (
	upLimit     = 40 * time.Minute // on a machine that has to build Kubernetes first
	setupLimit  = 5 * time.Minute
	scrapeLimit = 30 * time.Second
	downLimit   = 3 * time.Minute

	// requestsAtOnce is how many objects are on their way to the API server.
	requestsAtOnce = 16

	labelSimulated = "topolet.dev/simulated"
)

// cluster is a testbed whose API server takes any number of requests from here.
type cluster struct {
	*harness.Cluster
	client   kubernetes.Interface
	http     *http.Client // with the administrator's certificate
	progress io.Writer
}

func (c *cluster) say(format string, args ...any) {
	fmt.Fprintf(c.progress, "scheduling: "+format+"\n", args...)
}

// up starts the cluster without topolet, and without a controller manager: nobody
// renews the leases of simulated nodes, so it would soon declare them dead.
func (c *cluster) up(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, upLimit)
	defer cancel()
	if err := c.Up(ctx, "--pod-cidr", o.podCIDR, "--node-name", o.nodeName, "--without-topolet"); err != nil {
		return err
	}
	if _, err := c.Testbed(ctx, "kill", "kube-controller-manager"); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Var("KUBECONFIG"))
	if err != nil {
		return fmt.Errorf("testbed's kubeconfig: %w", err)
	}
	config.QPS = -1 // no limit
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("client of the testbed: %w", err)
	}
	if c.http, err = rest.HTTPClientFor(config); err != nil {
		return fmt.Errorf("client of the scheduler: %w", err)
	}
	return nil
}

// fill creates the device classes, the nodes and their slices, and waits until the
// scheduler has seen them.
func (c *cluster) fill(ctx context.Context, o options, m model) error {
	ctx, cancel := context.WithTimeoutCause(ctx, setupLimit,
		fmt.Errorf("waited %v for %d nodes with their slices to be created and seen by the scheduler", setupLimit, o.nodes))
	defer cancel()
	start := time.Now()
	if err := c.createClasses(ctx, m); err != nil {
		return err
	}
	if err := inParallel(ctx, o.nodes, func(ctx context.Context, i int) error {
		_, err := c.client.CoreV1().Nodes().Create(ctx, simulatedNode(nodeName(i)), metav1.CreateOptions{})
		return err
	}); err != nil {
		return fmt.Errorf("create nodes: %w", err)
	}
	if err := inParallel(ctx, o.nodes, func(ctx context.Context, i int) error {
		_, err := c.client.ResourceV1().ResourceSlices().Create(ctx, m.slice(nodeName(i)), metav1.CreateOptions{})
		return err
	}); err != nil {
		return fmt.Errorf("create slices: %w", err)
	}
	// Of each kind, the last node's object was created last.
	last := m.pod("probe", claimCPUs)
	last.pod.Spec.NodeSelector[corev1.LabelHostname] = nodeName(o.nodes - 1)
	bound, err := c.watchBound(ctx)
	if err != nil {
		return err
	}
	if err := c.create(ctx, last); err != nil {
		return err
	}
	if _, err := bound.next(ctx); err != nil {
		return err
	}
	c.say("%d nodes and their slices are there after %v", o.nodes, time.Since(start).Round(time.Second))
	return nil
}

// createClasses creates those of the chart, and the model's own.
func (c *cluster) createClasses(ctx context.Context, m model) error {
	if m.class != nil {
		if _, err := c.client.ResourceV1().DeviceClasses().Create(ctx, m.class, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create a device class: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile="+filepath.Join(c.Source, "test/tools/helm/go.mod"), "helm",
		"template", "topolet", filepath.Join(c.Source, "deploy/helm/topolet"), "--show-only", "templates/deviceclass.yaml")
	cmd.Dir, cmd.Stderr = c.Source, c.progress
	classes, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("render the chart's device classes: %w", err)
	}
	file := filepath.Join(c.Var("TESTBED_STATE"), "deviceclasses.yaml")
	if err := os.WriteFile(file, classes, 0o600); err != nil {
		return err
	}
	_, err = c.Kubectl(ctx, "create", "--filename", file)
	return err
}

func nodeName(i int) string { return fmt.Sprintf("simulated-%04d", i) }

// simulatedNode is a node object as a kubelet registers it, with room for anything.
func simulatedNode(name string) *corev1.Node {
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("128"), corev1.ResourceMemory: resource.MustParse("512Gi"), corev1.ResourcePods: resource.MustParse("250"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, labelSimulated: "true"}},
		Status: corev1.NodeStatus{
			Capacity: room, Allocatable: room,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}},
		},
	}
}

// inParallel calls do with 0 to n-1, the last one after all others. The first error
// ends it.
func inParallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range requestsAtOnce {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n-1 {
					return
				}
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return do(ctx, n-1)
}

// schedulerMetrics reads the scheduler's own.
func (c *cluster) schedulerMetrics(ctx context.Context) (metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeLimit)
	defer cancel()
	address := "https://127.0.0.1:" + c.Var("TESTBED_SCHEDULER_PORT") + "/metrics"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return metrics{}, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return metrics{}, fmt.Errorf("the scheduler's metrics: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return metrics{}, fmt.Errorf("the scheduler's metrics: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return metrics{}, fmt.Errorf("the scheduler's metrics: %s: %s", response.Status, text)
	}
	return parseMetrics(text)
}
