package helm_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
)

// Any two examples can be applied together, and each says what it needs.
func TestExamples(t *testing.T) {
	owner := map[string]string{}
	for file, objects := range readExamples(t) {
		pod := only[*corev1.Pod](t, objects)
		if want := strings.TrimSuffix(file, ".yaml"); pod.Name != want {
			t.Errorf("%s: pod %s, want %s", file, pod.Name, want)
		}
		if claims := len(pod.Spec.ResourceClaims) > 0; claims != (pod.Annotations["topolet.dev/needs-cpus"] != "") {
			t.Errorf("%s: a pod with claims says with the annotation topolet.dev/needs-cpus how many CPUs it needs, and no other pod", file)
		}
		offered := map[string]bool{}
		for _, o := range objects {
			m, err := meta.Accessor(o)
			if err != nil {
				t.Fatal(err)
			}
			key := o.GetObjectKind().GroupVersionKind().Kind + "/" + m.GetName()
			if other, taken := owner[key]; taken {
				t.Errorf("%s is in %s and %s", key, other, file)
			}
			owner[key] = file
			switch o.(type) {
			case *resourcev1.ResourceClaim, *resourcev1.ResourceClaimTemplate:
				offered[m.GetName()] = true
			}
		}
		declared := map[string]bool{}
		for _, c := range pod.Spec.ResourceClaims {
			declared[c.Name] = true
			for _, name := range []*string{c.ResourceClaimName, c.ResourceClaimTemplateName} {
				if name != nil && !offered[*name] {
					t.Errorf("%s: claim %s is not in the file", file, *name)
				}
			}
		}
		for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
			for _, use := range c.Resources.Claims {
				if !declared[use.Name] {
					t.Errorf("%s: container %s uses claim %s, which the pod does not have", file, c.Name, use.Name)
				}
			}
		}
	}
}
