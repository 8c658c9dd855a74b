package helm_test

import (
	"os"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// admissionOf is the API server's own admission plugin with the chart's policies:
// the matching, the CEL environment and the messages are the real ones. What it
// leaves out is the conversion between API versions and the API's own validation;
// test/e2e asks a whole API server.
func admissionOf(t *testing.T) *validating.Plugin {
	t.Helper()
	objects := []runtime.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}}
	for _, o := range render(t) {
		switch o := o.(type) {
		case *admissionv1.ValidatingAdmissionPolicy:
			o.Spec.MatchConstraints.NamespaceSelector = &metav1.LabelSelector{}
			o.Spec.MatchConstraints.ObjectSelector = &metav1.LabelSelector{}
			objects = append(objects, o)
		case *admissionv1.ValidatingAdmissionPolicyBinding:
			objects = append(objects, o)
		}
	}
	client := fake.NewClientset(objects...)
	factory := informers.NewSharedInformerFactory(client, 0)
	mapper := meta.NewDefaultRESTMapper(nil)
	plugin, err := validating.NewPlugin(nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	plugin.SetDrainedNotification(stop)
	plugin.SetRESTMapper(mapper)
	plugin.SetExternalKubeClientSet(client)
	plugin.SetExternalKubeInformerFactory(factory)
	plugin.SetDynamicClient(dynamicfake.NewSimpleDynamicClient(scheme.Scheme))
	plugin.SetUnconditionalAuthorizer(authorizerfactory.NewAlwaysAllowAuthorizer())
	if err := plugin.ValidateInitialization(); err != nil {
		t.Fatal(err)
	}
	factory.Start(stop)
	t.Cleanup(func() {
		close(stop)
		factory.Shutdown()
	})
	factory.WaitForCacheSync(stop)
	return plugin
}

// ask returns what the policies say to one request, nil for yes.
func ask(t *testing.T, plugin *validating.Plugin, op admission.Operation, object, old runtime.Object, resource string, who user.Info) error {
	t.Helper()
	some := object
	if some == nil {
		some = old
	}
	m, err := meta.Accessor(some)
	if err != nil {
		t.Fatal(err)
	}
	kind := some.GetObjectKind().GroupVersionKind()
	attributes := admission.NewAttributesRecord(object, old, kind, m.GetNamespace(), m.GetName(),
		schema.GroupVersionResource{Group: kind.Group, Version: kind.Version, Resource: resource},
		"", op, nil, false, who)
	return plugin.Validate(t.Context(), attributes, admission.NewObjectInterfacesFromScheme(scheme.Scheme))
}

type claimCase struct {
	Name     string                     `json:"name"`
	Requests []resourcev1.DeviceRequest `json:"requests"`
	Refused  string                     `json:"refused"`
}

func readClaimCases(t *testing.T) []claimCase {
	t.Helper()
	text, err := os.ReadFile("testdata/claims.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []claimCase
	if err := yaml.UnmarshalStrict(text, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

func TestClaimPolicy(t *testing.T) {
	plugin := admissionOf(t)
	author := &user.DefaultInfo{Name: "author"}
	for _, c := range readClaimCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			spec := resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: c.Requests}}
			claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "case"}, Spec: spec}
			claim.SetGroupVersionKind(resourcev1.SchemeGroupVersion.WithKind("ResourceClaim"))
			check(t, c.Refused, ask(t, plugin, admission.Create, claim, nil, "resourceclaims", author))
			if err := ask(t, plugin, admission.Update, claim, claim, "resourceclaims", author); err != nil {
				t.Errorf("a claim that exists cannot be updated: %v", err)
			}
			template := &resourcev1.ResourceClaimTemplate{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "case"},
				Spec:       resourcev1.ResourceClaimTemplateSpec{Spec: spec},
			}
			template.SetGroupVersionKind(resourcev1.SchemeGroupVersion.WithKind("ResourceClaimTemplate"))
			check(t, strings.ReplaceAll(c.Refused, "spec.devices", "spec.spec.devices"),
				ask(t, plugin, admission.Create, template, nil, "resourceclaimtemplates", author))
		})
	}
}

func check(t *testing.T, refused string, err error) {
	t.Helper()
	switch {
	case refused == "" && err != nil:
		t.Errorf("refused: %v", err)
	case refused != "" && err == nil:
		t.Errorf("accepted, want %q", refused)
	case refused != "" && !strings.Contains(err.Error(), refused):
		t.Errorf("refused with\n%v\nwant\n%s", err, refused)
	}
}

func TestExamplesAreAdmitted(t *testing.T) {
	plugin := admissionOf(t)
	for file, objects := range readExamples(t) {
		for _, o := range objects {
			var resource string
			switch o := o.(type) {
			case *resourcev1.ResourceClaim:
				resource, o.Namespace = "resourceclaims", "default"
			case *resourcev1.ResourceClaimTemplate:
				resource, o.Namespace = "resourceclaimtemplates", "default"
			default:
				continue
			}
			if err := ask(t, plugin, admission.Create, o, nil, resource, &user.DefaultInfo{Name: "author"}); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

func TestSlicePolicy(t *testing.T) {
	plugin := admissionOf(t)
	daemon := func(node ...string) user.Info {
		who := &user.DefaultInfo{Name: "system:serviceaccount:" + namespace + ":topolet"}
		if len(node) > 0 {
			who.Extra = map[string][]string{"authentication.kubernetes.io/node-name": node}
		}
		return who
	}
	slice := func(driver, node string) *resourcev1.ResourceSlice {
		s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "some"}, Spec: resourcev1.ResourceSliceSpec{Driver: driver}}
		if node != "" {
			s.Spec.NodeName = &node
		}
		s.SetGroupVersionKind(resourcev1.SchemeGroupVersion.WithKind("ResourceSlice"))
		return s
	}
	for _, c := range []struct {
		name    string
		who     user.Info
		slice   *resourcev1.ResourceSlice
		refused string
	}{
		{"own node", daemon("a"), slice("topolet.dev", "a"), ""},
		{"other node", daemon("a"), slice("topolet.dev", "b"), "topolet on node 'a' may not write a ResourceSlice with spec.nodeName 'b'"},
		{"no node", daemon("a"), slice("topolet.dev", ""), "may not write a ResourceSlice with spec.nodeName ''"},
		{"token of no pod", daemon(), slice("topolet.dev", "a"), "the token of topolet names no node"},
		{"token of no pod, slice of no node", daemon(), slice("topolet.dev", ""), "the token of topolet names no node"},
		{"other driver", daemon("a"), slice("gpu.example.com", "a"), "driver 'gpu.example.com', only those of topolet.dev"},
		{"someone else", &user.DefaultInfo{Name: "system:node:b"}, slice("gpu.example.com", "b"), ""},
		{"same name elsewhere", &user.DefaultInfo{Name: "system:serviceaccount:default:topolet"}, slice("topolet.dev", "b"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			check(t, c.refused, ask(t, plugin, admission.Create, c.slice, nil, "resourceslices", c.who))
			check(t, c.refused, ask(t, plugin, admission.Update, c.slice, c.slice, "resourceslices", c.who))
			check(t, c.refused, ask(t, plugin, admission.Delete, nil, c.slice, "resourceslices", c.who))
		})
	}
}
