package explain

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/topolet/topolet/draplugin"
)

// wish is a claim that is to be allocated.
type wish struct {
	from            string
	namespace, name string
	// pod is the pod that the claim is for and template what it is made of, if any.
	pod, template string
	spec          resourceapi.ResourceClaimSpec
}

// place is a name within its namespace.
type place struct{ namespace, name string }

func placeOf(o Object) place { return place{o.Value.GetNamespace(), o.Name} }

// wishes are the claims of the objects in their order, those of a pod together: the
// scheduler looks for all of them at once. A claim or a template that a pod names
// is allocated with the pod.
func wishes(objects []Object) ([][]wish, error) {
	claims := map[place]Object{}
	templates := map[place]Object{}
	named := map[string]map[place]bool{"ResourceClaim": {}, "ResourceClaimTemplate": {}}
	for _, o := range objects {
		switch v := o.Value.(type) {
		case *resourceapi.ResourceClaim:
			claims[placeOf(o)] = o
		case *resourceapi.ResourceClaimTemplate:
			templates[placeOf(o)] = o
		case *corev1.Pod:
			for _, c := range v.Spec.ResourceClaims {
				if c.ResourceClaimName != nil {
					named["ResourceClaim"][place{v.Namespace, *c.ResourceClaimName}] = true
				} else {
					named["ResourceClaimTemplate"][place{v.Namespace, *c.ResourceClaimTemplateName}] = true
				}
			}
		}
	}
	var groups [][]wish
	asked := map[place]bool{}
	for _, o := range objects {
		var group []wish
		switch v := o.Value.(type) {
		case *resourceapi.ResourceClaim:
			if !named[o.Kind][placeOf(o)] {
				group = []wish{{from: o.From, namespace: v.Namespace, name: v.Name, spec: v.Spec}}
			}
		case *resourceapi.ResourceClaimTemplate:
			if !named[o.Kind][placeOf(o)] {
				group = []wish{{from: o.From, namespace: v.Namespace, name: v.Name, template: v.Name, spec: v.Spec.Spec}}
			}
		case *corev1.Pod:
			var err error
			if group, err = wishesOf(o, v, claims, templates, asked); err != nil {
				return nil, err
			}
		}
		if len(group) > 0 {
			groups = append(groups, group)
		}
	}
	return groups, nil
}

// wishesOf are the claims of a pod that no pod before has asked for.
func wishesOf(o Object, pod *corev1.Pod, claims, templates map[place]Object, asked map[place]bool) ([]wish, error) {
	var group []wish
	for i, c := range pod.Spec.ResourceClaims {
		field := fmt.Sprintf("spec.resourceClaims[%d].", i)
		w := wish{namespace: pod.Namespace, name: c.Name, pod: pod.Name}
		if c.ResourceClaimName != nil {
			at := place{pod.Namespace, *c.ResourceClaimName}
			claim, ok := claims[at]
			if !ok {
				return nil, o.wrong(field+"resourceClaimName", at.name, fmt.Sprintf("give the file with this ResourceClaim of namespace %s as well", at.namespace))
			}
			if asked[at] {
				continue
			}
			asked[at] = true
			w.from, w.name, w.spec = claim.From, at.name, claim.Value.(*resourceapi.ResourceClaim).Spec
		} else {
			at := place{pod.Namespace, *c.ResourceClaimTemplateName}
			template, ok := templates[at]
			if !ok {
				return nil, o.wrong(field+"resourceClaimTemplateName", at.name, fmt.Sprintf("give the file with this ResourceClaimTemplate of namespace %s as well", at.namespace))
			}
			w.from, w.template = template.From, at.name
			w.spec = template.Value.(*resourceapi.ResourceClaimTemplate).Spec.Spec
		}
		group = append(group, w)
	}
	return group, nil
}

// title is the claim as people call it.
func (c *Claim) title() string {
	switch {
	case c.Pod != "" && c.Template != "":
		return fmt.Sprintf("claim %s of pod %s/%s (template %s)", c.Name, c.Namespace, c.Pod, c.Template)
	case c.Pod != "":
		return fmt.Sprintf("claim %s/%s of pod %s", c.Namespace, c.Name, c.Pod)
	case c.Template != "":
		return fmt.Sprintf("template %s/%s", c.Namespace, c.Name)
	}
	return fmt.Sprintf("claim %s/%s", c.Namespace, c.Name)
}

// known is what can be answered of a wish: its claim without what is left out.
type known struct {
	claim *resourceapi.ResourceClaim
	// leftOut are the requests whose devices are not known here, and notes what
	// follows from that.
	leftOut []Request
	notes   []string
	// refusals are about requests that no cluster with topolet could serve.
	refusals []Refusal
}

// know divides a wish into what is known here and what is not.
func (s *scheduler) know(w wish, uid string) known {
	claim := &resourceapi.ResourceClaim{Spec: *w.spec.DeepCopy()}
	claim.Namespace, claim.Name, claim.UID = w.namespace, w.name, uidOf(uid)
	k := known{claim: claim}
	devices := &claim.Spec.Devices
	gone := map[string]bool{}

	requests := devices.Requests
	devices.Requests = nil
	for _, r := range requests {
		if r.Exactly != nil {
			unknown, refusal := s.lookUp(r.Exactly.DeviceClassName)
			switch {
			case refusal != "":
				k.refusals = append(k.refusals, Refusal{Request: r.Name, Reason: refusal})
			case unknown != "":
				k.leftOut = append(k.leftOut, Request{Name: r.Name, Class: r.Exactly.DeviceClassName, LeftOut: unknown})
				gone[r.Name] = true
				continue
			}
			devices.Requests = append(devices.Requests, r)
			continue
		}
		alternatives := r.FirstAvailable
		r.FirstAvailable = nil
		for _, sub := range alternatives {
			name := r.Name + "/" + sub.Name
			unknown, refusal := s.lookUp(sub.DeviceClassName)
			switch {
			case refusal != "":
				k.refusals = append(k.refusals, Refusal{Request: name, Reason: refusal})
			case unknown != "":
				k.leftOut = append(k.leftOut, Request{Name: name, Class: sub.DeviceClassName, LeftOut: unknown})
				gone[name] = true
				continue
			}
			r.FirstAvailable = append(r.FirstAvailable, sub)
		}
		if len(r.FirstAvailable) == 0 {
			gone[r.Name] = true
			continue
		}
		devices.Requests = append(devices.Requests, r)
	}
	if len(gone) > 0 {
		k.forget(gone)
	}
	return k
}

// forget takes requests out of the constraints and the configuration. An empty list
// there means all requests: what was about those alone goes as a whole.
func (k *known) forget(gone map[string]bool) {
	devices := &k.claim.Spec.Devices
	without := func(names []string) (left []string, dropped []string) {
		for _, name := range names {
			base, _, _ := strings.Cut(name, "/")
			if gone[name] || gone[base] {
				dropped = append(dropped, name)
			} else {
				left = append(left, name)
			}
		}
		return left, dropped
	}
	constraints := devices.Constraints
	devices.Constraints = nil
	for i, c := range constraints {
		left, dropped := without(c.Requests)
		what := constraintName(i, c)
		switch {
		case len(c.Requests) == 0:
			k.notes = append(k.notes, fmt.Sprintf("%s is applied to the other requests only", what))
		case len(dropped) > 0 && len(left) == 0:
			k.notes = append(k.notes, fmt.Sprintf("%s is not applied", what))
			continue
		case len(dropped) > 0:
			k.notes = append(k.notes, fmt.Sprintf("%s is applied without %s", what, strings.Join(dropped, ", ")))
		}
		c.Requests = left
		devices.Constraints = append(devices.Constraints, c)
	}
	config := devices.Config
	devices.Config = nil
	for _, c := range config {
		left, dropped := without(c.Requests)
		if len(dropped) > 0 && len(left) == 0 {
			continue
		}
		c.Requests = left
		devices.Config = append(devices.Config, c)
	}
}

// constraintName is a constraint as people find it in their file.
func constraintName(i int, c resourceapi.DeviceConstraint) string {
	what := "matchAttribute"
	attribute := c.MatchAttribute
	if attribute == nil {
		what, attribute = "distinctAttribute", c.DistinctAttribute
	}
	if attribute == nil {
		return fmt.Sprintf("constraints[%d]", i)
	}
	return fmt.Sprintf("constraints[%d] (%s %s)", i, what, *attribute)
}

// lookUp says why the devices of a class are not known here, or why there are none
// on any node that is configured like this one; nothing if neither.
func (s *scheduler) lookUp(name string) (unknown, refusal string) {
	class, ok := s.classes[name]
	if !ok {
		level, isLevel := strings.CutPrefix(strings.TrimSuffix(name, "."+draplugin.DriverName), "cpu-")
		switch {
		case !strings.HasSuffix(name, "."+draplugin.DriverName):
			return fmt.Sprintf("class %s is neither topolet's nor in the files: its devices are not known here", name), ""
		case isLevel && isFurtherLevel(level):
			return "", fmt.Sprintf("class %s needs %q among the levels of topolet's configuration (--config), and the chart's value config.levels", name, level)
		}
		return "", fmt.Sprintf("there is no class %s: topolet's are %s", name, strings.Join(s.ownClasses(), ", "))
	}
	driver, ok := driverOf(class)
	if ok && driver != draplugin.DriverName && !s.hasSlicesOf(driver) {
		return fmt.Sprintf("devices of driver %s are not known here: --slices tells of them", driver), ""
	}
	return "", ""
}
