package nriplugin

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/nri/pkg/api"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/klog/v2"
)

const (
	guardName = "topolet-guard"
	// guardIndex is higher than pluginIndex: the runtime shows a container to the
	// guard with what the active plugin has changed.
	guardIndex = "60"
)

// validationVersion is the first NRI version in the runtime that tells which
// plugin set a container's CPUs (ValidateContainerAdjustment).
var validationVersion = version.MustParseSemantic("0.10.0")

// Guard is a second NRI plugin, with a connection of its own. It changes nothing,
// and refuses containers whose CPUs no topolet has set: without an active [Plugin]
// they would run on CPUs that are others' alone. It works for every [Plugin] on
// the node, also one in another process. So while an old daemon hands over to a
// new one, or the active plugin's connection is lost, no container starts
// unpinned.
//
// Where the runtime tells who set the CPUs, it must have been an active plugin.
// Older ones tell the CPUs only, as the plugins before the guard have left them;
// there a set from the kubelet or another plugin passes. The sandbox of a pod is
// no container of NRI's, and passes always.
//
// Where the runtime has lost the guard as well it asks nobody. Containers of claims are not
// created then either: see [allocator.Unplaced].
type Guard struct {
	socket  string
	refused prometheus.Counter

	mu       sync.Mutex
	notReady error
	active   *Plugin
}

// NewGuard returns a guard that connects to the runtime's NRI socket.
func NewGuard(socket string) *Guard {
	return &Guard{
		socket: socket,
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "topolet_guard_refusals_total",
			Help: "Containers refused because no active topolet had set their CPUs.",
		}),
		notReady: errors.New("the guard is not connected to the container runtime's NRI socket yet"),
	}
}

// Run connects to the runtime, and again with growing pauses when the connection
// ends, until the context does.
func (g *Guard) Run(ctx context.Context) { g.connection().run(ctx) }

func (g *Guard) connection() connection {
	return connection{socket: g.socket, name: guardName, index: guardIndex, plugin: g, lost: g.setReady}
}

// Ready returns nil while the guard is connected, and else why it is not.
func (g *Guard) Ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.notReady
}

// setReady takes nil, or what is missing.
func (g *Guard) setReady(missing error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.notReady = missing
}

// Configure subscribes to the event of a creation that tells most. A runtime ends the connection
// of a plugin that asks for events it does not know.
func (g *Guard) Configure(ctx context.Context, _, runtime, runtimeVersion string) (api.EventMask, error) {
	var events api.EventMask
	inferred, err := api.InferVersionFromRuntime(runtime, runtimeVersion)
	if v, parseErr := version.ParseSemantic(inferred); err == nil && parseErr == nil && v.AtLeast(validationVersion) {
		events.Set(api.Event_VALIDATE_CONTAINER_ADJUSTMENT, api.Event_START_CONTAINER)
		return events, nil
	}
	klog.FromContext(ctx).Info("The container runtime does not tell who sets a container's CPUs: the guard lets containers with CPUs from others pass",
		"runtime", runtime, "version", runtimeVersion)
	events.Set(api.Event_CREATE_CONTAINER, api.Event_START_CONTAINER)
	return events, nil
}

// Synchronize is the last step of a connection.
func (g *Guard) Synchronize(ctx context.Context, _ []*api.PodSandbox, ctrs []*api.Container) ([]*api.ContainerUpdate, error) {
	g.setReady(nil)
	klog.FromContext(ctx).Info("The guard is connected to the container runtime", "containers", len(ctrs))
	return nil, nil
}

// ValidateContainerAdjustment refuses a container whose CPUs are not from an
// active plugin, which sets those of every container.
func (g *Guard) ValidateContainerAdjustment(_ context.Context, req *api.ValidateContainerAdjustmentRequest) error {
	owner, _ := req.GetOwners().CPUSetCPUsOwner(req.GetContainer().GetId())
	if owner == pluginIndex+"-"+pluginName {
		return nil
	}
	return g.refuse(req.GetPod(), req.GetContainer())
}

// CreateContainer refuses a container that has no CPUs set, in a runtime that does
// not tell who set them.
func (g *Guard) CreateContainer(_ context.Context, pod *api.PodSandbox, ctr *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	if ctr.GetLinux().GetResources().GetCpu().GetCpus() != "" {
		return nil, nil, nil
	}
	return nil, nil, g.refuse(pod, ctr)
}

// StandInFor has the guard read back the CPUs of containers that start while this
// plugin, which was synchronised once, is not connected: it has been asked about
// them when they were created.
func (g *Guard) StandInFor(active *Plugin) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.active = active
}

// StartContainer does what the active plugin cannot do any more, or not again yet.
func (g *Guard) StartContainer(ctx context.Context, pod *api.PodSandbox, ctr *api.Container) error {
	g.mu.Lock()
	active := g.active
	g.mu.Unlock()
	if active == nil || active.Ready() == nil {
		return nil
	}
	return active.StartContainer(ctx, pod, ctr)
}

func (g *Guard) refuse(pod *api.PodSandbox, ctr *api.Container) error {
	g.refused.Inc()
	why := "it would run on CPUs that are other containers' alone"
	if c, err := containerOf(pod, ctr); err != nil || len(c.Claims) > 0 {
		why = "it would not run on the CPUs of its claims"
	}
	return fmt.Errorf("no active topolet has placed container %s of pod %s/%s: %s; the kubelet tries again",
		ctr.GetName(), pod.GetNamespace(), pod.GetName(), why)
}

// Describe implements [prometheus.Collector].
func (g *Guard) Describe(ch chan<- *prometheus.Desc) { g.refused.Describe(ch) }

// Collect implements [prometheus.Collector].
func (g *Guard) Collect(ch chan<- prometheus.Metric) { g.refused.Collect(ch) }
