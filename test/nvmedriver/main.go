// Command nvmedriver is a small DRA driver for tests. It stands for the other drivers
// of a cluster, beside whose devices CPUs are to be: it publishes a node's NVMe disks
// with the standard attributes, and gives a container the disk's block device through
// CDI.
//
// A disk is the controller with its first namespace. Those without a namespace, such
// as virtual functions that nobody has set up, are left out. The disks are those of
// the start: a further one takes another start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	cdispec "tags.cncf.io/container-device-interface/specs-go"
)

const (
	driverName = "nvme.example.com"
	cdiKind    = driverName + "/disk"
)

func main() {
	d := driver{fatal: make(chan error, 1)}
	var plugins, registry, cdiDir string
	flag.StringVar(&d.node, "node-name", "", "`name` of the Node object")
	flag.StringVar(&plugins, "plugins-dir", "/var/lib/kubelet/plugins", "the kubelet's `folder` of plugins")
	flag.StringVar(&registry, "registry-dir", "/var/lib/kubelet/plugins_registry", "`folder` in which the kubelet looks for plugins")
	flag.StringVar(&cdiDir, "cdi-dir", "/var/run/cdi", "`folder` in which the container runtime looks for CDI specs")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := d.run(ctx, filepath.Join(plugins, driverName), registry, cdiDir); err != nil {
		fmt.Fprintln(os.Stderr, "nvmedriver:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to cancel
	}
}

// driver implements [kubeletplugin.DRAPlugin].
type driver struct {
	node  string
	fatal chan error
}

// run publishes the disks and serves claims for them until the context ends.
func (d *driver) run(ctx context.Context, pluginDir, registryDir, cdiDir string) error {
	disks, err := findDisks("/sys")
	if err != nil {
		return err
	}
	specs, err := cdi.NewCache(cdi.WithSpecDirs(cdiDir), cdi.WithAutoRefresh(false))
	if err != nil {
		return fmt.Errorf("CDI folder %s: %w", cdiDir, err)
	}
	if err := specs.WriteSpec(specOf(disks), driverName); err != nil {
		return fmt.Errorf("write the CDI spec: %w", err)
	}
	defer specs.RemoveSpec(driverName) //nolint:errcheck // the next start writes it anew
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	helper, err := kubeletplugin.Start(ctx, d,
		kubeletplugin.DriverName(driverName), kubeletplugin.KubeClient(client), kubeletplugin.NodeName(d.node),
		kubeletplugin.PluginDataDirectoryPath(pluginDir), kubeletplugin.RegistrarDirectoryPath(registryDir),
		kubeletplugin.HealthService(false))
	if err != nil {
		return fmt.Errorf("start the DRA driver: %w", err)
	}
	defer helper.Stop()
	var devices []resourceapi.Device
	for _, disk := range disks {
		devices = append(devices, disk.device)
	}
	pool := resourceslice.Pool{Slices: []resourceslice.Slice{{Devices: devices}}}
	if err := helper.PublishResources(ctx, resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{d.node: pool}}); err != nil {
		return fmt.Errorf("publish %d disks: %w", len(disks), err)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.fatal:
		return err
	}
}

// disk is a device with the path of its block device.
type disk struct {
	device resourceapi.Device
	path   string
}

// hiddenPath is in the name of a namespace's block device where several controllers
// may have it: nvme0c1n1 is a path to nvme0n1.
var hiddenPath = regexp.MustCompile(`c\d+`)

// findDisks reads the controllers of a sysfs.
func findDisks(sysfs string) ([]disk, error) {
	namespaces, err := filepath.Glob(filepath.Join(sysfs, "class/nvme/nvme*/nvme*n1"))
	if err != nil {
		return nil, err
	}
	var disks []disk
	for _, namespace := range namespaces {
		controller := filepath.Dir(namespace)
		address, err := os.ReadFile(filepath.Join(controller, "address"))
		if err != nil {
			return nil, err
		}
		attributes, err := attributesOf(strings.TrimSpace(string(address)), sysfs)
		if err != nil {
			return nil, err
		}
		disks = append(disks, disk{
			device: resourceapi.Device{Name: filepath.Base(controller), Attributes: attributes},
			path:   "/dev/" + hiddenPath.ReplaceAllString(filepath.Base(namespace), ""),
		})
	}
	return disks, nil
}

// attributesOf are the standard attributes of a PCI function.
func attributesOf(address, sysfs string) (map[resourceapi.QualifiedName]resourceapi.DeviceAttribute, error) {
	root := deviceattribute.WithFSFromRoot(sysfs)
	id, err := deviceattribute.GetPCIBusIDAttribute(address)
	if err != nil {
		return nil, err
	}
	pcieRoot, err := deviceattribute.GetPCIeRootAttributeByPCIBusID(address, root)
	if err != nil {
		return nil, err
	}
	numaNode, err := deviceattribute.GetNUMANodeAttributeByPCIBusID(address, deviceattribute.ScalarAttribute, root)
	if err != nil {
		return nil, err
	}
	attributes := map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{}
	for _, a := range []deviceattribute.DeviceAttribute{id, pcieRoot, numaNode} {
		attributes[a.Name] = a.Value
	}
	return attributes, nil
}

// specOf describes the block devices to the container runtime, which finds out their
// numbers itself.
func specOf(disks []disk) *cdispec.Spec {
	spec := &cdispec.Spec{Version: "0.6.0", Kind: cdiKind}
	for _, disk := range disks {
		spec.Devices = append(spec.Devices, cdispec.Device{
			Name:           disk.device.Name,
			ContainerEdits: cdispec.ContainerEdits{DeviceNodes: []*cdispec.DeviceNode{{Path: disk.path}}},
		})
	}
	return spec
}

// PrepareResourceClaims implements [kubeletplugin.DRAPlugin]. There is nothing to do:
// the CDI spec has every disk.
func (d *driver) PrepareResourceClaims(_ context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	results := map[types.UID]kubeletplugin.PrepareResult{}
	for _, claim := range claims {
		var prepared kubeletplugin.PrepareResult
		for _, r := range claim.Status.Allocation.Devices.Results {
			if r.Driver != driverName || r.Pool != d.node {
				continue
			}
			prepared.Devices = append(prepared.Devices, kubeletplugin.Device{
				Requests: []string{r.Request}, PoolName: r.Pool, DeviceName: r.Device,
				CDIDeviceIDs: []string{cdiKind + "=" + r.Device},
			})
		}
		results[claim.UID] = prepared
	}
	return results, nil
}

// UnprepareResourceClaims implements [kubeletplugin.DRAPlugin].
func (d *driver) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	results := map[types.UID]error{}
	for _, claim := range claims {
		results[claim.UID] = nil
	}
	return results, nil
}

// WatchHealthStatus implements [kubeletplugin.DRAPlugin]; the service is off.
func (d *driver) WatchHealthStatus(context.Context, chan<- kubeletplugin.DeviceHealthReport) error {
	return kubeletplugin.ErrHealthNotSupported
}

// HandleError implements [kubeletplugin.DRAPlugin].
func (d *driver) HandleError(ctx context.Context, err error, msg string) {
	klog.FromContext(ctx).Error(err, msg)
	if !errors.Is(err, kubeletplugin.ErrRecoverable) {
		select {
		case d.fatal <- fmt.Errorf("%s: %w", msg, err):
		default:
		}
	}
}
