package draplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	metadatav1beta1 "k8s.io/dynamic-resource-allocation/api/metadata/v1beta1"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/rebind"
)

// Options say where the driver finds its surroundings, all of which are required, and
// what it publishes.
type Options struct {
	NodeName string
	Client   kubernetes.Interface
	// PluginDir is the driver's own folder below the kubelet's plugins folder,
	// RegistryDir the kubelet's plugins_registry. Both must have the same path
	// for topolet and for the kubelet.
	PluginDir   string
	RegistryDir string
	// CDIDir is a folder in which the container runtime looks for CDI specs.
	CDIDir string
	// Hook is the program of packages devlinks and fpgaprogram, by its path on the host, in
	// topolet's state folder; without one containers have no links to devices, and no port
	// is programmed.
	Hook string
	// Programs say what ports of FPGAs may be programmed with.
	Programs Programs

	// Root is the machine's, as [topology.OpenRoot] opens it, and Rebinder changes drivers
	// there.
	Root     fs.FS
	Rebinder *rebind.Rebinder
	// Look has the ledger know the devices as they are at the call.
	Look func(context.Context)

	Publication Publication
}

// Runtime is what the driver needs to know of the other side of the ledger.
type Runtime interface {
	// Ready returns nil while the runtime's containers are known and new ones
	// are seen, and else an error that says why not.
	Ready() error
	// Settled returns when no change to the containers that was decided before
	// the call is still on its way, or when the context ends.
	Settled(ctx context.Context) error
	// ForgetStopped takes containers of the claim out of the ledger that have
	// stopped without the runtime's having said so.
	ForgetStopped(claim allocator.ClaimUID)
}

// Notifier tells people what the driver cannot mend by itself. Reasons are one
// CamelCase word.
type Notifier interface {
	// Warn attaches a warning to the node.
	Warn(ctx context.Context, reason, message string)
	// WarnAbout attaches a warning to another object.
	WarnAbout(ctx context.Context, about corev1.ObjectReference, reason, message string)
}

// Plugin is the DRA driver. It implements [kubeletplugin.DRAPlugin].
type Plugin struct {
	opts     Options
	ledger   *allocator.Ledger
	runtime  Runtime
	notifier Notifier
	cdi      cdiFolder
	metrics  *metrics
	claims   claimLocks

	// released is called, in no hook of the runtime's, when CPUs came back.
	released func()

	helper  atomic.Pointer[kubeletplugin.Helper] // while the driver runs
	fatal   chan error
	refresh chan struct{}
	dropped dropped
}

var _ kubeletplugin.DRAPlugin = (*Plugin)(nil)

// New returns a driver that publishes the ledger's domains and serves claims from
// them. It touches nothing before [Plugin.Run]. Released is called after CPUs have
// returned to the shared pool; it must not block.
func New(opts Options, ledger *allocator.Ledger, runtime Runtime, notifier Notifier, released func()) (*Plugin, error) {
	folder, err := newCDIFolder(opts.CDIDir, opts.Hook, opts.Programs.folder())
	if err != nil {
		return nil, err
	}
	return &Plugin{
		opts:     opts,
		ledger:   ledger,
		runtime:  runtime,
		notifier: notifier,
		cdi:      folder,
		metrics:  newMetrics(),
		claims:   claimLocks{locks: map[allocator.ClaimUID]*claimLock{}},
		released: released,
		fatal:    make(chan error, 1),
		refresh:  make(chan struct{}, 1),
	}, nil
}

// Run ends what an earlier process has begun, rewrites the CDI specs of all grants,
// registers with the kubelet, publishes the devices and serves until the context ends.
// The ledger must be restored and the runtime synchronised before.
func (p *Plugin) Run(ctx context.Context) error {
	p.resume(ctx)
	if err := p.cdi.reset(p.ledger.Grants()); err != nil {
		return err
	}
	if err := os.MkdirAll(p.opts.PluginDir, 0o750); err != nil {
		return fmt.Errorf("the driver's folder: %w", err)
	}
	helper, err := kubeletplugin.Start(ctx, p,
		kubeletplugin.DriverName(DriverName),
		kubeletplugin.KubeClient(p.opts.Client),
		kubeletplugin.NodeName(p.opts.NodeName),
		kubeletplugin.PluginDataDirectoryPath(p.opts.PluginDir),
		kubeletplugin.RegistrarDirectoryPath(p.opts.RegistryDir),
		kubeletplugin.EnableDeviceMetadata(true, []schema.GroupVersion{metadatav1beta1.SchemeGroupVersion}),
		kubeletplugin.CDIDirectory(p.opts.CDIDir),
	)
	if err != nil {
		return fmt.Errorf("start the DRA driver: %w", err)
	}
	defer helper.Stop()
	p.helper.Store(helper)
	defer p.helper.Store(nil)
	klog.FromContext(ctx).Info("Serving claims", "driver", DriverName, "devices", len(p.ledger.Inventory().Domains))
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	background.Go(func() { p.newStale(staleGrace).watch(ctx, staleInterval) })
	return p.follow(ctx, helper)
}

// Ready returns nil while the kubelet knows the driver, and else why it does not.
func (p *Plugin) Ready() error {
	helper := p.helper.Load()
	if helper == nil {
		return errors.New("the DRA driver does not run yet")
	}
	status := helper.RegistrationStatus()
	switch {
	case status == nil:
		return fmt.Errorf("the kubelet has not found the driver in %s yet", p.opts.RegistryDir)
	case !status.PluginRegistered:
		return fmt.Errorf("the kubelet refused the driver: %s", status.Error)
	}
	return nil
}

// HandleError implements [kubeletplugin.DRAPlugin] for what goes wrong in the
// background.
func (p *Plugin) HandleError(ctx context.Context, err error, msg string) {
	logger := klog.FromContext(ctx)
	if dropped, ok := errors.AsType[*resourceslice.DroppedFieldsError](err); ok {
		p.handleDropped(ctx, dropped)
		return
	}
	logger.Error(err, msg)
	if apierrors.IsInvalid(err) {
		p.notifier.Warn(ctx, "DevicesRefused", fmt.Sprintf("The API server refuses topolet's devices, so the node offers no CPUs: %v", err))
	}
	if !errors.Is(err, kubeletplugin.ErrRecoverable) {
		select {
		case p.fatal <- fmt.Errorf("%s: %w", msg, err):
		default:
		}
	}
}
