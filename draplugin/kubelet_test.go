package draplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	drahealth "k8s.io/kubelet/pkg/apis/dra-health/v1"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/expect"
)

// serve runs the driver with real sockets and a made-up API server until the
// test ends.
func serve(t *testing.T, r *rig, client *fake.Clientset) (socketDir string) {
	t.Helper()
	// Not t.TempDir(): a socket's path has 108 bytes, and tests have long names.
	dir, err := os.MkdirTemp("", "dra") //nolint:usetesting // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	r.opts.Client = client
	r.opts.PluginDir, r.opts.RegistryDir = filepath.Join(dir, "plugins", DriverName), filepath.Join(dir, "registry")
	if err := os.Mkdir(r.opts.RegistryDir, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		if err := r.Ready(); err == nil {
			t.Error("the driver is ready after its end")
		}
		os.RemoveAll(dir) //nolint:errcheck // only sockets
	})
	register(t, r)
	return dir
}

// register does what the kubelet does when it finds a driver's socket.
func register(t *testing.T, r *rig) {
	t.Helper()
	expect.State(t, "the driver to be ready but for the kubelet", func() string { return fmt.Sprint(r.Ready()) },
		"the kubelet has not found the driver in "+r.opts.RegistryDir+" yet")
	kubelet := registerapi.NewRegistrationClient(dial(t, filepath.Join(r.opts.RegistryDir, DriverName+"-reg.sock")))
	for _, answer := range []*registerapi.RegistrationStatus{{Error: "no"}, {PluginRegistered: true}} {
		_, err := kubelet.NotifyRegistrationStatus(t.Context(), answer)
		want := "<nil>"
		if !answer.PluginRegistered {
			want = "the kubelet refused the driver: no"
		} else if err != nil {
			t.Fatal(err)
		}
		expect.State(t, "the driver's readiness", func() string { return fmt.Sprint(r.Ready()) }, want)
	}
}

func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() }) //nolint:errcheck // the test ends
	return conn
}

func TestAsTheKubeletSeesIt(t *testing.T) {
	claim := allocated("c", cpus("numa-0", "2"), cpus("numa-1", "2"))
	client := fake.NewClientset(claim, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName, UID: "node-uid"}})
	r := newRig(t, twoNodes)
	dir := serve(t, r, client)

	info, err := registerapi.NewRegistrationClient(dial(t, filepath.Join(dir, "registry", DriverName+"-reg.sock"))).
		GetInfo(t.Context(), &registerapi.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"DRAPlugin", "topolet.dev"}, []string{info.Type, info.Name}); diff != "" {
		t.Errorf("registration (-want +got):\n%s", diff)
	}
	conn := dial(t, info.Endpoint)
	kubelet := dra.NewDRAPluginClient(conn)

	prepared, err := kubelet.NodePrepareResources(t.Context(), &dra.NodePrepareResourcesRequest{
		Claims: []*dra.Claim{{Namespace: "default", Name: claim.Name, Uid: "c"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	answer := prepared.GetClaims()["c"]
	if answer.GetError() != "" {
		t.Fatal(answer.GetError())
	}
	var got []string
	var devices []kubeletplugin.Device
	for _, d := range answer.GetDevices() {
		got = append(got, fmt.Sprintf("%v %s %s %s", d.GetRequestNames(), d.GetPoolName(), d.GetDeviceName(), d.GetShareId()))
		devices = append(devices, kubeletplugin.Device{CDIDeviceIDs: d.GetCdiDeviceIds()})
	}
	if diff := cmp.Diff([]string{"[cpus] worker numa-0 share-numa-0", "[cpus] worker numa-1 share-numa-1"}, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if ids := devices[0].CDIDeviceIDs; len(ids) != 2 || ids[0] != "topolet.dev/claim=c.cpus" {
		t.Errorf("CDI devices are %q, want the claim's and the metadata's", ids)
	}
	r.wantResolved(t, devices)
	wantMetadata(t, r.opts.PluginDir, "1,9", "4,12")

	expect.State(t, "the slices to be published", func() string {
		list, err := client.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) != 1 {
			return fmt.Sprint(len(list.Items), err)
		}
		slice := list.Items[0]
		return fmt.Sprint(slice.Spec.Driver, " ", *slice.Spec.NodeName, " ", slice.Spec.Pool.Name, " ", len(slice.Spec.Devices), " ", slice.OwnerReferences[0].UID)
	}, "topolet.dev worker worker 2 node-uid")

	wantHealth(t, conn, "numa-0 HEALTHY ", "numa-1 HEALTHY ")
	r.side.set(errors.New("no connection"), nil)
	wantHealth(t, conn, "numa-0 UNHEALTHY no connection", "numa-1 UNHEALTHY no connection")
	r.side.set(nil, nil)

	unprepared, err := kubelet.NodeUnprepareResources(t.Context(), &dra.NodeUnprepareResourcesRequest{
		Claims: []*dra.Claim{{Namespace: "default", Name: claim.Name, Uid: "c"}},
	})
	if err != nil || unprepared.GetClaims()["c"].GetError() != "" {
		t.Fatal(unprepared, err)
	}
	if disk := r.disk(t); len(disk) != 1 {
		t.Errorf("files are left behind: %v", disk)
	}
}

// wantMetadata checks what the workload can read in its files.
func wantMetadata(t *testing.T, dir string, cpus ...string) {
	t.Helper()
	var text string
	files, err := filepath.Glob(filepath.Join(dir, "dra-device-metadata", "*", "*", "metadata.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text += string(data)
	}
	for _, list := range cpus {
		quoted, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, string(quoted)) {
			t.Errorf("the metadata does not name CPUs %s: %s", list, text)
		}
	}
}

// wantHealth checks the first report of a health stream.
func wantHealth(t *testing.T, conn *grpc.ClientConn, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := drahealth.NewDRAResourceHealthClient(conn).NodeWatchResources(ctx, &drahealth.NodeWatchResourcesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	report, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, d := range report.GetDevices() {
		got[fmt.Sprint(d.GetDevice().GetDeviceName(), " ", d.GetHealth(), " ", d.GetMessage())] = true
	}
	wanted := map[string]bool{}
	for _, line := range want {
		wanted[line] = true
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("health (-want +got):\n%s", diff)
	}
}

func TestHealthNamesADeviceThatIsGone(t *testing.T) {
	r := newRig(t, twoNodes)
	r.mustPrepare(t, allocated("c", cpus("numa-1", "8")))
	r.machine = newRig(t, machines["one core to give"]).machine
	r.start(t)
	got := map[string]string{}
	for _, d := range r.health(time.Now()).Devices {
		got[d.DeviceName] = string(d.Health)
		if d.DeviceName == "numa-1" && !strings.Contains(d.Message, "claim default/claim-c (c) holds CPUs 4-7,12-15") {
			t.Errorf("the message is %q", d.Message)
		}
	}
	if diff := cmp.Diff(map[string]string{"numa-0": "Healthy", "numa-1": "Unhealthy"}, got); diff != "" {
		t.Errorf("health (-want +got):\n%s", diff)
	}
}

func TestFieldsThatTheAPIServerDropsAreToldOnce(t *testing.T) {
	r := newRig(t, twoNodes)
	desired := &resourceapi.ResourceSlice{Spec: resourceapi.ResourceSliceSpec{Devices: Devices(r.ledger.Inventory(), Publication{})}}
	actual := desired.DeepCopy()
	for i := range actual.Spec.Devices {
		d := &actual.Spec.Devices[i]
		d.AllowMultipleAllocations = nil
		for name, c := range d.Capacity {
			c.RequestPolicy = nil
			d.Capacity[name] = c
		}
	}
	dropped := fmt.Errorf("%w: %w", kubeletplugin.ErrRecoverable, &resourceslice.DroppedFieldsError{PoolName: nodeName, DesiredSlice: desired, ActualSlice: actual})
	for range 3 {
		r.HandleError(t.Context(), dropped, "publishing")
	}
	want := []string{"FeatureGatesOff: The API server drops fields that topolet publishes, so claims for CPUs cannot be allocated: " +
		"switch on the feature gates DRAConsumableCapacity in kube-apiserver, kube-scheduler and kubelet"}
	if diff := cmp.Diff(want, r.notes.all()); diff != "" {
		t.Errorf("said (-want +got):\n%s", diff)
	}
}

func TestWhatIsDroppedOfOptionalFieldsIsTold(t *testing.T) {
	r := newRig(t, twoNodes)
	r.opts.Publication = Publication{Lists: true, NodeAllocatable: true}
	if !r.CountsClaims() {
		t.Error("the scheduler does not count claims although nothing was dropped")
	}
	desired := &resourceapi.ResourceSlice{Spec: resourceapi.ResourceSliceSpec{Devices: Devices(r.ledger.Inventory(), r.opts.Publication)}}
	roots := []string{"pci0000:00", "pci0000:17"}
	desired.Spec.Devices[1].Attributes["resource.kubernetes.io/pcieRoot"] = resourceapi.DeviceAttribute{StringValues: roots}
	actual := desired.DeepCopy()
	delete(actual.Spec.Devices[1].Attributes, "resource.kubernetes.io/pcieRoot")
	said := func(want ...string) {
		t.Helper()
		r.HandleError(t.Context(), fmt.Errorf("%w: %w", kubeletplugin.ErrRecoverable,
			&resourceslice.DroppedFieldsError{PoolName: nodeName, DesiredSlice: desired, ActualSlice: actual}), "publishing")
		got := r.notes.all()
		if len(got) != len(want) {
			t.Fatalf("said %q", got)
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("said %q, want %q", got[i], want[i])
			}
		}
	}
	lists := "feature gate DRAListTypeAttributes in kube-apiserver, kube-scheduler and kubelet, or set listAttributes to false"
	said(lists)
	for i := range actual.Spec.Devices {
		actual.Spec.Devices[i].NodeAllocatableResources = nil
	}
	if !r.CountsClaims() {
		t.Error("the scheduler does not count claims although only lists were dropped")
	}
	said(lists, "feature gate DRANodeAllocatableResources in kube-apiserver, kube-scheduler and kubelet, or set nodeAllocatable to false")
	said(lists, "DRANodeAllocatableResources")
	if r.CountsClaims() {
		t.Error("the scheduler counts claims although it was not told to")
	}
}

func TestDevicesThatTheAPIServerRefusesAreTold(t *testing.T) {
	r := newRig(t, twoNodes)
	invalid := apierrors.NewInvalid(resourceapi.SchemeGroupVersion.WithKind("ResourceSlice").GroupKind(), "slice", nil)
	r.HandleError(t.Context(), fmt.Errorf("%w: %w", kubeletplugin.ErrRecoverable, invalid), "publishing")
	if said := r.notes.all(); len(said) != 1 || !strings.HasPrefix(said[0], "DevicesRefused: The API server refuses topolet's devices") {
		t.Errorf("said %q", said)
	}
}

func TestAFatalErrorEndsRun(t *testing.T) {
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}})
	r := newRig(t, twoNodes)
	dir, err := os.MkdirTemp("", "dra") //nolint:usetesting // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // only sockets
	r.opts.Client, r.opts.PluginDir, r.opts.RegistryDir = client, filepath.Join(dir, "p"), dir
	// A grant from before is served at once.
	r.mustPrepare(t, good())
	if err := os.RemoveAll(r.cdiDir); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }()
	register(t, r)
	r.wantResolved(t, []kubeletplugin.Device{{CDIDeviceIDs: []string{deviceID(allocator.ClaimUID("good"), "cpus")}}})

	r.HandleError(t.Context(), fmt.Errorf("%w: try again", kubeletplugin.ErrRecoverable), "publishing")
	broken := errors.New("socket gone")
	r.HandleError(t.Context(), broken, "DRA gRPC server failed")
	r.HandleError(t.Context(), errors.New("a second one"), "registrar gRPC server failed")
	select {
	case err := <-ended:
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), "DRA gRPC server failed") {
			t.Errorf("Run ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("waited 10s for Run to end")
	}
}
