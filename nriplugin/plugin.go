package nriplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/stub"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
)

const (
	pluginName = "topolet"
	// pluginIndex orders plugins: those with a lower number see a container
	// first, and the first that sets its CPUs owns them.
	pluginIndex = "50"

	// retryInterval is how long after a failed update of the plugin's own accord
	// the next one is tried.
	retryInterval = time.Second
)

// pushVersion is the first NRI version in the runtime that does not deadlock
// when an update of the plugin's own accord meets an event (containerd#13733).
var pushVersion = version.MustParseSemantic("0.12.1")

// Plugin is the NRI plugin. Its exported event methods implement the interfaces
// of package stub and are called by the runtime, one at a time.
type Plugin struct {
	socket   string
	ledger   *allocator.Ledger
	accounts Accounts
	host     fs.FS
	cgroups  cgroups
	kernel   *kernelTier
	metrics  *metrics
	push     chan struct{}
	// pushing is held from the moment the updates of a push are computed until
	// the runtime has carried them out.
	pushing chan struct{}

	mu           sync.Mutex
	notReady     error
	synchronized chan struct{}
}

// New returns a plugin that connects to the runtime's NRI socket. Host is the
// host's file system, of which sys/fs/cgroup and sys/class/net are read. Accounts is
// told of pods that request too little.
func New(socket string, ledger *allocator.Ledger, host fs.FS, accounts Accounts, kernel Kernel) *Plugin {
	p := &Plugin{
		socket:       socket,
		ledger:       ledger,
		accounts:     accounts,
		host:         host,
		cgroups:      newCgroups(host),
		metrics:      newMetrics(),
		push:         make(chan struct{}, 1),
		pushing:      make(chan struct{}, 1),
		notReady:     errors.New("not connected to the container runtime's NRI socket yet"),
		synchronized: make(chan struct{}),
	}
	p.kernel = newKernelTier(kernel, ledger, p.Push)
	return p
}

// Run connects to the runtime, and again with growing pauses when the connection
// ends, until the context does.
func (p *Plugin) Run(ctx context.Context) {
	var keeper sync.WaitGroup
	defer keeper.Wait()
	keeper.Go(func() {
		select {
		case <-ctx.Done():
		case <-p.synchronized: // before that nothing is known of what the kernel has
			p.kernel.keep(ctx)
		}
	})
	p.connection().run(ctx)
}

func (p *Plugin) connection() connection {
	return connection{socket: p.socket, name: pluginName, index: pluginIndex, plugin: p, lost: p.setNotReady, beside: p.pushUpdates}
}

// Push asks for an update of the plugin's own accord if the ledger wants any. It
// does not block and may be called from anywhere.
func (p *Plugin) Push() {
	select {
	case p.push <- struct{}{}:
	default:
	}
}

// pushUpdates serves Push. It runs beside the events: inside one the runtime
// would wait for itself.
func (p *Plugin) pushUpdates(ctx context.Context, s stub.Stub) {
	logger := klog.FromContext(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.push:
		}
		if p.Ready() != nil || !canPush(s.RuntimeNRIVersion()) {
			continue // Synchronize or the next event brings it
		}
		if err := p.pushOnce(ctx, s); err != nil {
			logger.Error(err, "Containers did not get new CPUs, trying again", "in", retryInterval)
			time.AfterFunc(retryInterval, p.Push)
		}
	}
}

func (p *Plugin) pushOnce(ctx context.Context, s stub.Stub) (err error) {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case p.pushing <- struct{}{}:
	}
	defer func() { <-p.pushing }()
	updates := p.updates()
	if len(updates) == 0 {
		return nil
	}
	defer p.metrics.observe("push", &err)()
	failed, err := s.UpdateContainers(updates)
	if err != nil {
		failed = updates
	} else if len(failed) > 0 {
		err = fmt.Errorf("the runtime refused %d of %d updates", len(failed), len(updates))
	}
	for _, u := range failed {
		p.ledger.Untold(allocator.ContainerID(u.GetContainerId()))
	}
	return err
}

// Settled returns when no update that was computed before the call is still under
// way. An update of the plugin's own accord waits its turn in the runtime; one
// from before a claim got its CPUs must not be carried out after the claim's
// container was created, or it would put others back on them. Never call it in
// an event: the update waits for the event to end.
func (p *Plugin) Settled(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("waiting for the container runtime to carry out updates: %w", ctx.Err())
	case p.pushing <- struct{}{}:
		<-p.pushing
		return nil
	}
}

func canPush(runtimeVersion string) bool {
	v, err := version.ParseSemantic(runtimeVersion)
	return err == nil && v.AtLeast(pushVersion)
}

// Synchronized is closed when the runtime's containers are known for the first
// time.
func (p *Plugin) Synchronized() <-chan struct{} { return p.synchronized }

// Ready returns nil while the plugin is connected and synchronised, and else
// what is missing.
func (p *Plugin) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.notReady
}

func (p *Plugin) setSynchronized() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notReady = nil
	select {
	case <-p.synchronized:
	default:
		close(p.synchronized)
	}
}

func (p *Plugin) setNotReady(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notReady = err
}
