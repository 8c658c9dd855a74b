package explain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/topology"
)

// Answer says what would be allocated, claim by claim.
type Answer struct {
	Node   Summary `json:"node"`
	Claims []Claim `json:"claims"`
	// Notes are about the question as a whole.
	Notes []string `json:"notes,omitempty"`
}

// Summary is the node as it was before the first claim.
type Summary struct {
	CPUs      int               `json:"cpus"`
	NUMANodes int               `json:"numaNodes"`
	Reserved  topology.CPUSet   `json:"reservedCPUs"`
	Levels    []allocator.Level `json:"levels,omitempty"`
	// Claims hold so many CPUs.
	Claims int `json:"claims"`
	Held   int `json:"heldCPUs"`
}

// Verdict is the short answer about a claim.
type Verdict string

// The verdicts.
const (
	// Fits is for a claim that is allocated.
	Fits Verdict = "Fits"
	// FitsInPart is for one of which some requests are not known here, and the
	// others are allocated.
	FitsInPart Verdict = "FitsInPart"
	// Unknown is for one of which no request is known here.
	Unknown Verdict = "Unknown"
	// Waits is for one that would fit, but not together with its pod's others.
	Waits Verdict = "Waits"
	// DoesNotFit is for one that does not fit.
	DoesNotFit Verdict = "DoesNotFit"
)

// Claim is the answer about one claim.
type Claim struct {
	// From says where the claim, or its template, stands.
	From      string `json:"from"`
	Namespace string `json:"namespace"`
	// Name is the claim's. For a claim that is made of a Template for a Pod it is
	// the one in the pod's spec.resourceClaims.
	Name     string  `json:"name"`
	Pod      string  `json:"pod,omitempty"`
	Template string  `json:"template,omitempty"`
	Verdict  Verdict `json:"verdict"`
	// Requests are what was allocated, a request with several devices several times,
	// and what was left out.
	Requests []Request `json:"requests,omitempty"`
	Refusals []Refusal `json:"refusals,omitempty"`
	Notes    []string  `json:"notes,omitempty"`
}

// Request is one allocation result.
type Request struct {
	Name  string `json:"name"`
	Class string `json:"class"`
	// LeftOut says why the request was not looked at.
	LeftOut string `json:"leftOut,omitempty"`
	Driver  string `json:"driver,omitempty"`
	Pool    string `json:"pool,omitempty"`
	Device  string `json:"device,omitempty"`
	// Consumed is how much of the device's capacities the request takes.
	Consumed map[string]string `json:"consumed,omitempty"`
	// CPUs are those that the claim would get, Idle those of them on which nothing
	// would run.
	CPUs      topology.CPUSet `json:"cpus,omitzero"`
	Idle      topology.CPUSet `json:"idle,omitzero"`
	NUMANodes []int           `json:"numaNodes,omitempty"`
	// Passed are the devices that the scheduler tried before, with what they had
	// free: it takes the first that fits.
	Passed []DeviceState `json:"passed,omitempty"`
	// Why says it in words, Choice as data.
	Why    []string               `json:"why,omitempty"`
	Choice *allocator.Explanation `json:"choice,omitempty"`
}

// Err counts the claims that do not fit; nil if all do, as far as is known here.
func (a Answer) Err() error {
	n := 0
	for _, c := range a.Claims {
		if c.Verdict == DoesNotFit || c.Verdict == Waits {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %s would not be allocated", n, count(len(a.Claims), "claim"))
}

// explainer answers one question.
type explainer struct {
	node      Node
	ledger    *allocator.Ledger
	scheduler *scheduler
	claims    int // so far
}

// Explain allocates the claims of the objects one after the other, those of a pod
// together, and says why. The error is about the question, not about claims that do
// not fit: a [*FieldError], a [*GrantError], or one of [allocator.NewLedger].
func Explain(ctx context.Context, node Node, objects []Object) (Answer, error) {
	groups, err := wishes(objects)
	if err != nil {
		return Answer{}, err
	}
	if len(groups) == 0 {
		return Answer{}, errors.New("there is no ResourceClaim, no ResourceClaimTemplate and no Pod with claims in the files")
	}
	ledger, err := node.ledger()
	if err != nil {
		return Answer{}, err
	}
	classes := map[string]*resourceapi.DeviceClass{}
	for _, class := range draplugin.Classes(node.Policy.Levels...) {
		classes[class.Name] = class
	}
	for _, o := range objects {
		if class, ok := o.Value.(*resourceapi.DeviceClass); ok {
			classes[class.Name] = class
		}
	}
	e := &explainer{node: node, ledger: ledger, scheduler: newScheduler(node, ledger, classes)}
	answer := Answer{Node: node.summary(), Notes: e.notes(objects)}
	for _, group := range groups {
		claims, err := e.group(ctx, group)
		if err != nil {
			return Answer{}, err
		}
		answer.Claims = append(answer.Claims, claims...)
	}
	return answer, nil
}

func (n Node) summary() Summary {
	s := Summary{
		CPUs: n.Machine.Online.Size(), NUMANodes: len(n.Machine.NUMANodes),
		Reserved: n.Policy.ReservedCPUs, Levels: n.Policy.Levels, Claims: len(n.Grants),
	}
	for _, g := range n.Grants {
		s.Held += g.CPUs().Size()
	}
	return s
}

// notes are what the reader may have thought of and what was not looked at.
func (e *explainer) notes(objects []Object) []string {
	var notes []string
	for _, o := range objects {
		if o.Value == nil {
			notes = append(notes, fmt.Sprintf("%s: %s was not looked at: claims are read from ResourceClaims, ResourceClaimTemplates and Pods", o.From, o))
		}
	}
	for _, c := range e.ledger.Conflicts() {
		notes = append(notes, c.Message)
	}
	if len(e.scheduler.others) > 0 {
		notes = append(notes, "which devices of other drivers are in use is not known here: all count as free")
	}
	return notes
}

// group allocates claims that the scheduler allocates together.
func (e *explainer) group(ctx context.Context, group []wish) ([]Claim, error) {
	claims := make([]Claim, len(group))
	parts := make([]known, len(group))
	var together []*resourceapi.ResourceClaim
	var at []int // of which claims
	refused := false
	for i, w := range group {
		claims[i] = Claim{From: w.from, Namespace: w.namespace, Name: w.name, Pod: w.pod, Template: w.template}
		e.claims++
		parts[i] = e.scheduler.know(w, fmt.Sprintf("claim-%d", e.claims))
		claims[i].Refusals = parts[i].refusals
		claims[i].Notes = append(parts[i].notes, e.heldAlready(w)...)
		switch {
		case len(parts[i].refusals) > 0:
			claims[i].Verdict, refused = DoesNotFit, true
		case len(parts[i].claim.Spec.Devices.Requests) == 0:
			claims[i].Verdict = Unknown
			claims[i].Requests = parts[i].leftOut
		default:
			together, at = append(together, parts[i].claim), append(at, i)
		}
	}
	if !refused && len(together) > 0 {
		results, err := e.scheduler.allocate(ctx, together...)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil && results != nil {
			for j, i := range at {
				e.accept(ctx, &claims[i], parts[i], results[j])
			}
			return claims, nil
		}
	}
	for _, i := range at {
		if err := e.refuse(ctx, &claims[i], parts[i]); err != nil {
			return nil, err
		}
	}
	settle(claims)
	return claims, nil
}

// accept holds what was allocated and says why.
func (e *explainer) accept(ctx context.Context, c *Claim, k known, result resourceapi.AllocationResult) {
	c.Verdict = Fits
	if len(k.leftOut) > 0 {
		c.Verdict = FitsInPart
	}
	k.claim.Status.Allocation = &result
	var grant allocator.Grant
	var explanations []allocator.Explanation
	if slices.ContainsFunc(result.Devices.Results, e.isOwn) {
		var err error
		if grant, err = draplugin.Grant(e.ledger, k.claim, e.node.Name); err == nil {
			explanations, err = e.ledger.Explain(grant.UID)
		}
		if err != nil {
			c.Verdict = DoesNotFit
			c.Refusals = append(c.Refusals, Refusal{Reason: "the scheduler would allocate it, but topolet would not prepare it: " + oneLine(err)})
			return
		}
	}
	own := 0
	for _, r := range result.Devices.Results {
		passed, err := e.scheduler.passed(ctx, k.claim, r)
		if err != nil {
			c.Notes = append(c.Notes, "which devices were tried before is not known: "+oneLine(err))
		}
		e.scheduler.hold(c.Namespace+"/"+c.Name, r)
		request := Request{Name: r.Request, Driver: r.Driver, Pool: r.Pool, Device: r.Device, Passed: passed, Consumed: map[string]string{}}
		if of := requestOf(k.claim, r.Request); of != nil {
			request.Class = of.DeviceClassName
		}
		for name, quantity := range r.ConsumedCapacity {
			request.Consumed[string(name)] = quantity.String()
		}
		if node, ok := e.scheduler.numaNode(r); ok {
			request.NUMANodes = []int{node}
		}
		if e.isOwn(r) {
			e.describe(&request, grant.Parts[own], explanations[own])
			own++
		}
		c.Requests = append(c.Requests, request)
	}
	c.Requests = append(c.Requests, k.leftOut...)
	e.scheduler.publish()
}

func (e *explainer) isOwn(r resourceapi.DeviceRequestAllocationResult) bool {
	return r.Driver == draplugin.DriverName && r.Pool == e.node.Name
}

// describe fills in what topolet would give a request.
func (e *explainer) describe(r *Request, part allocator.Part, choice allocator.Explanation) {
	if part.CPUs.IsEmpty() {
		return
	}
	r.CPUs, r.Idle = part.CPUs, part.Idle
	r.NUMANodes = e.nodesOf(part.CPUs)
	r.Choice, r.Why = &choice, choice.Sentences()
	if !choice.CPUs.Equals(part.CPUs) {
		r.Why = []string{fmt.Sprintf("the explanation speaks of CPUs %s: this is a mistake in topolet, please report it", choice.CPUs)}
	}
}

// nodesOf are the NUMA nodes of some CPUs.
func (e *explainer) nodesOf(cpus topology.CPUSet) []int {
	var nodes []int
	for id := range cpus.All() {
		if cpu, ok := e.node.Machine.CPU(id); ok && cpu.NUMANode != topology.None {
			nodes = append(nodes, cpu.NUMANode)
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// settle says what becomes of a pod's claims when they do not all fit: none is
// allocated.
func settle(claims []Claim) {
	if slices.ContainsFunc(claims, func(c Claim) bool { return c.Verdict == DoesNotFit }) {
		return
	}
	for i := range claims {
		if claims[i].Verdict == Waits {
			claims[i].Verdict = DoesNotFit
			claims[i].Refusals = []Refusal{{Reason: "each of the pod's claims fits alone, but not all of them together"}}
		}
	}
}

// heldAlready tells of a claim of the same name that holds something.
func (e *explainer) heldAlready(w wish) []string {
	for _, g := range e.node.Grants {
		if g.Namespace == w.namespace && g.Name == w.name && (w.pod == "" || w.template == "") {
			return []string{fmt.Sprintf("a claim of this name holds CPUs %s already; the answer is about one more", g.CPUs())}
		}
	}
	return nil
}

func uidOf(name string) types.UID { return types.UID("explain-" + name) }

// namesDriver finds the driver whose devices a class selects.
var namesDriver = regexp.MustCompile(`device\.driver\s*==\s*["']([^"']+)["']`)

func driverOf(class *resourceapi.DeviceClass) (string, bool) {
	for _, s := range class.Spec.Selectors {
		if found := namesDriver.FindStringSubmatch(s.CEL.Expression); found != nil {
			return found[1], true
		}
	}
	return "", false
}

func (s *scheduler) hasSlicesOf(driver string) bool {
	return slices.ContainsFunc(s.others, func(slice *resourceapi.ResourceSlice) bool { return slice.Spec.Driver == driver })
}

// ownClasses are the names of topolet's classes.
func (s *scheduler) ownClasses() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s.classes)), func(name string) bool {
		return !strings.HasSuffix(name, "."+draplugin.DriverName)
	})
}

func isFurtherLevel(level string) bool {
	return slices.Contains([]allocator.Level{allocator.L3Level, allocator.SocketLevel, allocator.MachineLevel}, allocator.Level(level))
}
