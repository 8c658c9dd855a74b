package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/allocator/crashpoint"
	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/draplugin/profile"
	"github.com/topolet/topolet/draplugin/rebind"
	"github.com/topolet/topolet/draplugin/sysfs"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/nriplugin"
	"github.com/topolet/topolet/topology"
)

// runOptions are the flags of `topolet run`.
type runOptions struct {
	nodeName           string
	config             string
	kubeconfig         string
	root               string
	stateDir           string
	pluginsDir         string
	registryDir        string
	podResourcesSocket string
	cdiDir             string
	nriSocket          string
	httpAddress        string
}

func newRunCommand() *cobra.Command {
	opts := runOptions{}
	logs := logsapi.NewLoggingConfiguration()
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the node agent: publish this machine's CPUs and pin the containers that claim them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := opts.validate(); err != nil {
				return err
			}
			if err := logsapi.ValidateAndApply(logs, nil); err != nil {
				return fmt.Errorf("logging flags: %w", err)
			}
			return run(cmd.Context(), opts)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.nodeName, "node-name", "", "name of the Node object of this machine (required)")
	flags.StringVar(&opts.config, "config", "", "configuration file, kind Configuration of topolet.dev/v1alpha1; none means the defaults")
	flags.StringVar(&opts.kubeconfig, "kubeconfig", "", "kubeconfig file; none means the service account of the pod")
	flags.StringVar(&opts.root, "root", "/", "folder that holds the host's sys")
	flags.StringVar(&opts.stateDir, "state-dir", "/var/lib/topolet", "folder for the checkpoint, kept across reboots")
	flags.StringVar(&opts.pluginsDir, "kubelet-plugins-dir", "/var/lib/kubelet/plugins", "the kubelet's folder of plugins")
	flags.StringVar(&opts.registryDir, "kubelet-registry-dir", "/var/lib/kubelet/plugins_registry", "the kubelet's folder of registration sockets")
	flags.StringVar(&opts.podResourcesSocket, "pod-resources-socket", "/var/lib/kubelet/pod-resources/kubelet.sock", "the kubelet's pod resources socket")
	flags.StringVar(&opts.cdiDir, "cdi-dir", "/var/run/cdi", "folder in which the container runtime looks for CDI specs")
	flags.StringVar(&opts.nriSocket, "nri-socket", "/var/run/nri/nri.sock", "NRI socket of the container runtime")
	flags.StringVar(&opts.httpAddress, "http-address", ":9847", "address for /healthz, /readyz and /metrics; none means no server")
	logsapi.AddFlags(logs, flags)
	return cmd
}

func (o runOptions) validate() error {
	if o.nodeName == "" {
		return errors.New("flag --node-name is empty: set it to the name of this machine's Node object")
	}
	for _, path := range []struct{ flag, value string }{
		{"--cdi-dir", o.cdiDir}, {"--kubelet-plugins-dir", o.pluginsDir}, {"--kubelet-registry-dir", o.registryDir},
		{"--nri-socket", o.nriSocket}, {"--pod-resources-socket", o.podResourcesSocket}, {"--root", o.root}, {"--state-dir", o.stateDir},
	} {
		if !filepath.IsAbs(path.value) {
			return fmt.Errorf("flag %s is %q: want an absolute path", path.flag, path.value)
		}
	}
	return nil
}

// run starts the guard, without which containers could start unpinned while no
// topolet is active, and waits until no other process is. Then it restores what was
// granted, synchronises with the container runtime, and only then registers with
// the kubelet and publishes: until the node's state is known, nobody can be given a
// CPU. The kubelet must give no CPUs away itself.
//
// It ends the other way round: the kubelet is told first and the guard ends last.
// The new process registers after the old one has unregistered, so all use the same
// names of sockets, and one that was killed leaves none behind.
func run(ctx context.Context, opts runOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	logger := klog.FromContext(ctx)

	config, err := loadConfig(opts.config)
	if err != nil {
		return err
	}
	client, err := newClient(opts.kubeconfig)
	if err != nil {
		return err
	}
	notes := newNotifier(ctx, client, opts.nodeName)
	defer notes.shutdown()

	host, err := topology.OpenRoot(opts.root)
	if err != nil {
		return err
	}
	defer host.Close() //nolint:errcheck // only read
	watch, err := newMachineWatch(host)
	if err != nil {
		return err
	}

	writer, err := sysfs.OpenWriter(opts.root)
	if err != nil {
		return err
	}
	defer writer.Close() //nolint:errcheck // nothing is kept back
	rebinder := rebind.New(host, writer, rebindLimits)
	memory, err := gpuMemoryFor(config, opts.stateDir, host)
	if err != nil {
		logger.Error(err, "GPUs whose memory no file tells are published without it")
	}
	devices := newDeviceWatch(host, familiesOf(config, rebinder.Driver, memory), rebinder.Stuck)
	policy, err := policyOf(watch.machine, config)
	if err != nil {
		return err
	}
	// A configuration that does not fit the machine must not end the active process.
	if _, err := allocator.NewInventory(watch.machine, policy); err != nil {
		return err
	}

	var dra *draplugin.Plugin
	kernel, err := kernelOf(ctx, config, opts.root, func() { dra.Refresh() })
	if err != nil {
		return err
	}
	policy.KernelKeeps = kernel.Partitions != nil

	guard := nriplugin.NewGuard(opts.nriSocket)
	kubelet := &cpuManagerGuard{socket: opts.podResourcesSocket}
	standing := &standing{always: func() error { return errors.Join(kubelet.Ready(), guard.Ready()) }}
	registry := prometheus.NewRegistry()
	registry.MustRegister(guard, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	_, served, err := serveHTTP(ctx, opts.httpAddress, registry, probes{standing.alive, standing.ready})
	if err != nil {
		return err
	}
	defer func() { <-served }()
	defer cancel()
	if kubelet.wait(ctx, cpuManagerInterval, notes) != nil {
		return nil // told to end meanwhile
	}
	defer background(ctx, guard.Run)()

	unlock, err := lockStateDir(ctx, opts.stateDir, standing.by)
	if ctx.Err() != nil {
		return nil // told to end meanwhile
	}
	if err != nil {
		return err
	}
	defer unlock()
	standing.starts()
	crashpoint.In(opts.stateDir)
	store := allocator.FileStore{Path: filepath.Join(opts.stateDir, checkpointName)}
	grants, quarantined, err := loadGrants(ctx, store, notes)
	if err != nil {
		return err
	}
	ledger, err := allocator.NewLedger(watch.machine, policy, store, grants)
	if err != nil {
		return err
	}
	logger.Info("Restored the ledger", "grants", len(grants), "onlineCPUs", watch.machine.Online.String(), "reservedCPUs", policy.ReservedCPUs.String())

	devices.remember(ctx, opts.stateDir)
	devices.tell(ctx, ledger)
	look := func(ctx context.Context) {
		if devices.tell(ctx, ledger) {
			dra.Refresh()
		}
	}

	books := &accounts{mode: config.CPURequests, notes: notes}
	runtime := nriplugin.New(opts.nriSocket, ledger, host, books, kernel)
	dra, err = draplugin.New(draplugin.Options{
		NodeName:    opts.nodeName,
		Client:      client,
		PluginDir:   filepath.Join(opts.pluginsDir, draplugin.DriverName),
		RegistryDir: opts.registryDir,
		CDIDir:      opts.cdiDir,
		Hook:        filepath.Join(opts.stateDir, hookName),
		Programs:    programsOf(config, opts.root),
		Root:        host,
		Rebinder:    rebinder,
		Look:        look,
		Publication: draplugin.Publication{Lists: config.ListAttributes, NodeAllocatable: config.NodeAllocatable},
	}, ledger, runtime, notes, runtime.Push)
	if err != nil {
		return err
	}
	books.counted = dra.CountsClaims
	registry.MustRegister(runtime, dra, newLedgerMetrics(ledger, quarantined))
	ready := func() error { return errors.Join(runtime.Ready(), dra.Ready()) }
	standing.active(probes{
		// Every event of the runtime needs the ledger's lock.
		alive: func() { ledger.Pool() },
		ready: ready,
	})
	told, err := serveStatus(ctx, opts.stateDir, func() nodeStatus { return statusOf(opts.nodeName, ledger, kernel.Why, ready()) })
	if err != nil {
		return err
	}
	defer func() { <-told }()
	defer cancel()

	defer background(ctx, runtime.Run)()
	select {
	case <-ctx.Done():
		return nil
	case <-runtime.Synchronized():
	}
	guard.StandInFor(runtime)
	// What claims and containers have is known, and nothing is published yet.
	profiles, err := newProfiles(ctx, opts.stateDir, host, writer, ledger, devices, notes, profile.Of(config))
	if err != nil {
		return err
	}
	profiles.apply(ctx)
	devices.tell(ctx, ledger)
	defer background(ctx, func(ctx context.Context) { runtime.FollowDrift(ctx, drifts{notes}) })()
	defer background(ctx, func(ctx context.Context) {
		watch.run(ctx, watchInterval, func(m *topology.Machine) error {
			if err := ledger.Replace(m); err != nil {
				notes.Warn(ctx, "MachineRefused", err.Error())
				return err
			}
			runtime.Push()
			dra.Refresh()
			return nil
		})
	})()
	defer background(ctx, func(ctx context.Context) {
		devices.run(ctx, deviceInterval, func(ctx context.Context) {
			if profiles.apply(ctx) {
				dra.Refresh()
			}
			look(ctx)
		})
	})()
	if len(config.Devices) > 0 {
		if err := installHook(opts.stateDir); err != nil {
			return err
		}
	}
	return dra.Run(ctx)
}

// background runs a function until the returned one is called, which waits for it:
// the end of the context alone does not end it.
func background(ctx context.Context, run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// loadConfig reads the configuration file; without one the defaults hold.
func loadConfig(path string) (v1alpha1.Configuration, error) {
	if path == "" {
		return v1alpha1.DefaultConfiguration(), nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return v1alpha1.Configuration{}, fmt.Errorf("configuration file: %w", err)
	}
	config, err := v1alpha1.DecodeConfiguration(raw)
	if err != nil {
		return v1alpha1.Configuration{}, fmt.Errorf("configuration file %s: %w", path, err)
	}
	return config, nil
}

// policyOf is what the configuration says of the machine.
func policyOf(m *topology.Machine, config v1alpha1.Configuration) (allocator.Policy, error) {
	reserved, err := reservedCPUs(m, config)
	if err != nil {
		return allocator.Policy{}, err
	}
	bytes, percent, err := config.MemoryReserve()
	if err != nil {
		return allocator.Policy{}, err
	}
	return allocator.Policy{
		ReservedCPUs:   reserved,
		ReservedMemory: allocator.Reserve{Bytes: bytes, Percent: percent},
		Levels:         levels(config),
	}, nil
}

// levels are those that the configuration asks for, by the allocator's names.
func levels(config v1alpha1.Configuration) []allocator.Level {
	var list []allocator.Level
	for _, level := range config.Levels {
		list = append(list, map[v1alpha1.Level]allocator.Level{
			v1alpha1.L3: allocator.L3Level, v1alpha1.Socket: allocator.SocketLevel, v1alpha1.Machine: allocator.MachineLevel,
		}[level])
	}
	return list
}

func reservedCPUs(m *topology.Machine, config v1alpha1.Configuration) (topology.CPUSet, error) {
	if config.ReservedCPUs == "" {
		return allocator.DefaultReserved(m), nil
	}
	reserved, err := topology.ParseCPUSet(config.ReservedCPUs)
	if err != nil {
		return topology.CPUSet{}, fmt.Errorf("configuration field reservedCPUs: %w", err)
	}
	return reserved, nil
}

// loadGrants reads the checkpoint. What of it cannot be used is kept in another file,
// and the node goes on with the rest: running containers keep their CPUs, because the
// runtime knows them and they are withheld from others. Quarantined is how many
// grants that are, as far as they can be counted.
func loadGrants(ctx context.Context, store allocator.FileStore, notes *notifier) (grants []allocator.Grant, quarantined int, err error) {
	const consequence = "their running containers keep their CPUs, others of them cannot start until their pods are created anew"
	grants, err = store.Load()
	var said, reason, aside string
	if bad, ok := errors.AsType[*allocator.BadGrantsError](err); ok {
		if aside, err = store.Quarantine(bad, grants); err != nil {
			return nil, 0, errors.Join(bad, err)
		}
		reason, quarantined = "CheckpointGrantsUnusable", len(bad.Grants)
		said = fmt.Sprintf("%d grants of the checkpoint could not be used and are kept in %s: %s. The other %d are in force. "+
			"The claims of these are unknown: %s", quarantined, aside, bad, len(grants), consequence)
		err = bad
	} else if unusable, ok := errors.AsType[*allocator.CheckpointError](err); ok {
		if aside, err = store.SetAside(); err != nil {
			return nil, 0, errors.Join(unusable, err)
		}
		reason = "CheckpointUnusable"
		said = fmt.Sprintf("The checkpoint could not be used and is kept as %s: %s. Claims prepared before are unknown: %s", aside, unusable.Reason, consequence)
		err = unusable
	} else {
		return grants, 0, err
	}
	klog.FromContext(ctx).Error(err, said)
	notes.Warn(ctx, reason, said)
	return grants, quarantined, nil
}

func newClient(kubeconfig string) (kubernetes.Interface, error) {
	var config *rest.Config
	var err error
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("find the API server (set --kubeconfig outside a pod): %w", err)
	}
	// As the kubelet has it: at its start topolet looks after each claim of the node.
	config.QPS, config.Burst = 50, 100
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create API client: %w", err)
	}
	return client, nil
}
