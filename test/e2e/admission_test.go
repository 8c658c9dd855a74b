//go:build e2e

package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/harness"
)

var dryRun = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}

// claimCase is a case of the table that the chart's own tests use as well.
type claimCase struct {
	Name     string                      `json:"name"`
	Requests []resourceapi.DeviceRequest `json:"requests"`
	Refused  string                      `json:"refused"`
}

func TestMistakesInClaimsAreRefused(t *testing.T) {
	waitPolicies(t)
	text, err := os.ReadFile(filepath.Join(cluster.Source, "test/tools/helm/testdata/claims.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []claimCase
	if err := yaml.UnmarshalStrict(text, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			spec := resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: c.Requests}}
			_, err := cluster.Client.ResourceV1().ResourceClaims(metav1.NamespaceDefault).Create(t.Context(),
				&resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "case"}, Spec: spec}, dryRun)
			wantAnswer(t, "claim", err, c.Refused)
			_, err = cluster.Client.ResourceV1().ResourceClaimTemplates(metav1.NamespaceDefault).Create(t.Context(),
				&resourceapi.ResourceClaimTemplate{
					ObjectMeta: metav1.ObjectMeta{Name: "case"},
					Spec:       resourceapi.ResourceClaimTemplateSpec{Spec: spec},
				}, dryRun)
			wantAnswer(t, "template", err, strings.ReplaceAll(c.Refused, "spec.devices", "spec.spec.devices"))
		})
	}
}

// A daemon can publish for its own node only, whoever holds its token.
func TestDaemonWritesSlicesOfItsOwnNodeOnly(t *testing.T) {
	waitPolicies(t)
	pods, err := cluster.Client.CoreV1().Pods(harness.Namespace).List(t.Context(),
		metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=topolet"})
	if err != nil || len(pods.Items) == 0 {
		t.Fatalf("no daemon: %v", err)
	}
	daemon := pods.Items[0]
	node := daemon.Spec.NodeName
	bound := daemonClient(t, &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: daemon.Name, UID: daemon.UID})
	unbound := daemonClient(t, nil)

	for _, c := range []struct {
		name         string
		client       kubernetes.Interface
		driver, node string
		refused      string
	}{
		{"own node", bound, draplugin.DriverName, node, ""},
		{"other node", bound, draplugin.DriverName, "elsewhere", "may not write a ResourceSlice with spec.nodeName 'elsewhere', only those of its own node"},
		{"other driver", bound, "gpu.example.com", node, "driver 'gpu.example.com', only those of topolet.dev"},
		{"token of no pod", unbound, draplugin.DriverName, node, "the token of topolet names no node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			slices := c.client.ResourceV1().ResourceSlices()
			_, err := slices.Create(t.Context(), sliceFor(c.driver, c.node), dryRun)
			wantAnswer(t, "create", err, c.refused)

			existing, err := cluster.Client.ResourceV1().ResourceSlices().Create(t.Context(), sliceFor(c.driver, c.node), metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				err := cluster.Client.ResourceV1().ResourceSlices().Delete(context.Background(), existing.Name, metav1.DeleteOptions{})
				if err != nil {
					t.Error(err)
				}
			})
			_, err = slices.Update(t.Context(), existing, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
			wantAnswer(t, "update", err, c.refused)
			err = slices.Delete(t.Context(), existing.Name, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
			wantAnswer(t, "delete", err, c.refused)
		})
	}
}

// The API server checks expressions against the types of what they match; what
// it doubts stands in the policy's status.
func TestPoliciesHaveNoWarnings(t *testing.T) {
	for _, name := range []string{"topolet-claims", "topolet-resourceslices"} {
		err := harness.Wait(t.Context(), startLimit, "type check of policy "+name, func(ctx context.Context) error {
			policy, err := cluster.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if policy.Status.ObservedGeneration != policy.Generation || policy.Status.TypeChecking == nil {
				return errors.New("not checked yet")
			}
			for _, w := range policy.Status.TypeChecking.ExpressionWarnings {
				t.Errorf("%s: %s: %s", name, w.FieldRef, w.Warning)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// waitPolicies waits until the API server acts on the policies: it takes new
// ones up a moment after they were created.
func waitPolicies(t *testing.T) {
	t.Helper()
	wrong := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "wrong"}}
	wrong.Spec.Devices.Requests = []resourceapi.DeviceRequest{{
		Name:    "cpus",
		Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "cpu.topolet.dev", Count: 1},
	}}
	wrong.Spec.Devices.Requests[0].Exactly.Capacity = &resourceapi.CapacityRequirements{}
	if err := yaml.Unmarshal([]byte(`{cpus: "1"}`), &wrong.Spec.Devices.Requests[0].Exactly.Capacity.Requests); err != nil {
		t.Fatal(err)
	}
	err := harness.Wait(t.Context(), startLimit, "the admission policies", func(ctx context.Context) error {
		_, err := cluster.Client.ResourceV1().ResourceClaims(metav1.NamespaceDefault).Create(ctx, wrong, dryRun)
		if err == nil || !strings.Contains(err.Error(), "topolet-claims") {
			return errors.New("a wrong claim is not refused")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func wantAnswer(t *testing.T, what string, err error, refused string) {
	t.Helper()
	switch {
	case refused == "" && err != nil:
		t.Errorf("%s is refused: %v", what, err)
	case refused != "" && err == nil:
		t.Errorf("%s is accepted, want %q", what, refused)
	case refused != "" && !strings.Contains(err.Error(), refused):
		t.Errorf("%s is refused with\n%v\nwant\n%s", what, err, refused)
	}
}

// daemonClient acts with a token of the daemon's service account, bound to an
// object or to none.
func daemonClient(t *testing.T, bound *authenticationv1.BoundObjectReference) kubernetes.Interface {
	t.Helper()
	seconds := int64((10 * time.Minute).Seconds())
	token, err := cluster.Client.CoreV1().ServiceAccounts(harness.Namespace).CreateToken(t.Context(), "topolet",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound, ExpirationSeconds: &seconds}},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", cluster.Var("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	config = rest.AnonymousClientConfig(config)
	config.BearerToken = token.Status.Token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// sliceFor is a slice of a pool that no scheduler takes: it is incomplete.
func sliceFor(driver, node string) *resourceapi.ResourceSlice {
	return &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "admission-" + strings.ToLower(driver) + "-" + node},
		Spec: resourceapi.ResourceSliceSpec{
			Driver:   driver,
			NodeName: &node,
			Pool:     resourceapi.ResourcePool{Name: "admission", Generation: 1, ResourceSliceCount: 2},
		},
	}
}
