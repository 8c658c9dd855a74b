package allocator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology"
)

// Explanation says why a claim got its CPUs, as data; [Explanation.Sentences] says
// it in words.
type Explanation struct {
	// Device is the name of the [Domain].
	Device string          `json:"device"`
	CPUs   topology.CPUSet `json:"cpus"`
	// Cores is their number; every one has ThreadsPerCore CPUs.
	Cores          int `json:"cores"`
	ThreadsPerCore int `json:"threadsPerCore"`
	// Scales are those at which the domain has several parts, from the whole to
	// its parts. Caches and clusters of one core each are left out.
	Scales []ScaleUse `json:"scales,omitempty"`
	// Decisions are those between parts that had free cores, in the order in which
	// they were made. In a part that was taken as a whole there are none.
	Decisions []Decision `json:"decisions,omitempty"`
	// Near is how many of the cores are near the claim's devices; nil if nobody
	// said what is near.
	Near *int `json:"near,omitempty"`
}

// ScaleUse is which parts of one scale the cores are in, and how few would do.
type ScaleUse struct {
	// Scale is "socket", "NUMA node", "L3 group" or "cluster".
	Scale string `json:"scale"`
	// Parts are those that cores were taken of, in the domain's order.
	Parts []PartUse `json:"parts"`
	// Of is how many parts the domain has.
	Of int `json:"of"`
	// Fewest is how many parts so many cores took at least, if nothing else
	// counted, and Largest how many free cores the Fewest-1 parts with the most
	// had together; 0 if Fewest is 1.
	Fewest  int `json:"fewest"`
	Largest int `json:"largest,omitempty"`
}

// PartUse is a part of the domain, with how many of its cores were taken and how
// many are still free.
type PartUse struct {
	// Number is the one in the names of devices, as in "l3-3".
	Number int `json:"number"`
	Taken  int `json:"taken"`
	Left   int `json:"left"`
}

// Decision is the choice of one part among others.
type Decision struct {
	Scale string `json:"scale"`
	// Within is the part that those to choose from are in, such as "L3 group 3";
	// empty for the domain itself.
	Within string `json:"within,omitempty"`
	// Needed is how many cores were still to be taken.
	Needed int `json:"needed"`
	// Candidates had free cores, WithRoom of them as many as needed.
	Candidates int `json:"candidates"`
	WithRoom   int `json:"withRoom"`
	// Part was taken. Before that it had so many Free cores.
	Part int `json:"part"`
	Free int `json:"free"`
	// By is what decided between the part and the last of the others: "room" (it
	// alone has enough; or none has, and it has the most), "spread" (it is divided
	// the least), "fragment" (it is left with the fewest free cores), "nearness" (it
	// has the most free cores near the claim's devices) or "number" (it is the
	// first).
	By string `json:"by"`
	// Alike is how many, the part too, were equal in all that counts for more.
	Alike int `json:"alike"`
	// Measure is what the part has of what decided: how many parts of the scale
	// Divided for "spread", the cores left for "fragment", those near for "nearness".
	Measure int    `json:"measure,omitempty"`
	Divided string `json:"divided,omitempty"`
}

// Explain chooses as [Domain.Choose] does, and says why. Its errors are the same.
func (d *Domain) Explain(free topology.CPUSet, n int, near topology.CPUSet) (Explanation, error) {
	var decisions []decision
	p, err := d.pick(free, n, near, &decisions)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Device: d.Name, CPUs: p.cpus(), Cores: len(p.taken), ThreadsPerCore: d.ThreadsPerCore}
	var telling [scales]bool
	for s := range scales {
		// Caches and clusters of one core each say nothing.
		use := p.use(s)
		telling[s] = use.Of > 1 && (s <= nodeScale || use.Of < len(d.cores))
		if telling[s] {
			e.Scales = append(e.Scales, use)
		}
	}
	for i, made := range decisions {
		if telling[made.best.scale] && made.candidates > 1 && !settled(made, decisions[:i]) {
			e.Decisions = append(e.Decisions, d.tell(made, decisions[:i]))
		}
	}
	if !near.IsEmpty() {
		count := 0
		for _, i := range p.taken {
			if p.cores[i].near {
				count++
			}
		}
		e.Near = &count
	}
	return e, nil
}

// Explain says why the parts of a claim's grant have their CPUs: one explanation
// for each part, in their order, and an empty one for a part without CPUs. It
// chooses again, beside what others hold at present; if they have come or gone
// since the claim was granted, the CPUs may be other ones than the claim has. An
// unknown claim has no explanations.
func (l *Ledger) Explain(uid ClaimUID) ([]Explanation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, ok := l.grants[uid]
	if !ok {
		return nil, nil
	}
	delete(l.grants, uid)
	free := l.inventory.Machine.Online.Difference(l.busy())
	l.grants[uid] = g

	requests := make([]Request, 0, len(g.Parts))
	for _, part := range g.Parts {
		requests = append(requests, part.Request)
	}
	near := l.inventory.near(requests)
	explanations := make([]Explanation, len(g.Parts))
	for i, part := range g.Parts {
		if part.CPUs.IsEmpty() {
			continue
		}
		d, ok := l.inventory.Domain(part.Domain)
		if !ok {
			return nil, &UnknownDomainError{Domain: part.Domain}
		}
		e, err := d.Explain(free, part.Count, near)
		if err != nil {
			return nil, fmt.Errorf("request %q: %w", part.Name, err)
		}
		explanations[i] = e
		free = free.Difference(e.CPUs)
	}
	return explanations, nil
}

// decision is what the picker notes of one.
type decision struct {
	best                        candidate
	need                        int
	candidates, withRoom, alike int
	by                          criterion
	divided                     scale // for bySpread: where it shows
}

// decision compares the best group with the others, as they were compared to find
// it. The criterion that counts the least is what decided in the end.
func (p *picker) decision(groups []group, best candidate, need int) decision {
	made := decision{best: best, need: need, by: byRoom, alike: 1}
	for _, g := range groups {
		c := p.candidate(g)
		if c.count == 0 {
			continue
		}
		made.candidates++
		if c.count >= need {
			made.withRoom++
		}
		if c.from == best.from {
			continue
		}
		_, by := p.better(&best, &c, need)
		if by < made.by {
			made.by, made.alike = by, 1
		}
		if by == made.by {
			made.alike++
		}
		if by == bySpread {
			for made.divided = 0; best.spread[made.divided] == c.spread[made.divided]; {
				made.divided++
			}
		}
	}
	return made
}

// settled reports whether the decision was made inside of a group that was taken as
// a whole: it decided nothing.
func settled(made decision, earlier []decision) bool {
	return slices.ContainsFunc(earlier, func(e decision) bool { return e.contains(made) && e.best.count <= e.need })
}

// contains reports whether the other one was made inside of this one's group.
func (made decision) contains(o decision) bool {
	return made.best.scale < o.best.scale && made.best.from <= o.best.from && o.best.to <= made.best.to
}

// tell makes data of a decision.
func (d *Domain) tell(made decision, earlier []decision) Decision {
	told := Decision{
		Scale:      made.best.scale.String(),
		Needed:     made.need,
		Candidates: made.candidates,
		WithRoom:   made.withRoom,
		Part:       d.cores[made.best.from].at(made.best.scale),
		Free:       made.best.count,
		By:         [...]string{"number", "nearness", "fragment", "spread", "room"}[made.by],
		Alike:      made.alike,
	}
	for _, e := range earlier {
		if e.contains(made) && e.candidates > 1 {
			told.Within = fmt.Sprintf("%s %d", e.best.scale, d.cores[e.best.from].at(e.best.scale))
		}
	}
	switch made.by {
	case bySpread:
		told.Measure, told.Divided = made.best.spread[made.divided], made.divided.String()
	case byFragment:
		told.Measure = made.best.count - made.need
	case byNearness:
		told.Measure = made.best.near
	}
	return told
}

// use is how the cores that were taken lie in the parts of one scale.
func (p *picker) use(s scale) ScaleUse {
	parts := map[int]*PartUse{}
	var order []int
	part := func(i int) *PartUse {
		c := p.domain.cores[i]
		if parts[c.at(s)] == nil {
			parts[c.at(s)] = &PartUse{Number: c.at(s)}
			order = append(order, c.at(s))
		}
		return parts[c.at(s)]
	}
	for i, state := range p.cores {
		if part := part(i); state.free {
			part.Left++
		}
	}
	for _, i := range p.taken {
		part(i).Taken++
	}
	use := ScaleUse{Scale: s.String(), Of: len(order)}
	var had []int
	for _, at := range order {
		had = append(had, parts[at].Taken+parts[at].Left)
		if parts[at].Taken > 0 {
			use.Parts = append(use.Parts, *parts[at])
		}
	}
	slices.Sort(had)
	slices.Reverse(had)
	for sum := 0; sum < len(p.taken); use.Fewest++ {
		use.Largest = sum
		sum += had[use.Fewest]
	}
	return use
}

// String is the scale's name for people.
func (s scale) String() string {
	return [scales]string{"socket", "NUMA node", "L3 group", "cluster"}[s]
}

// Sentences says it in words, for a person who knows the machine: short, without
// full stops.
func (e Explanation) Sentences() []string {
	said := []string{fmt.Sprintf("%s of %s", count(e.Cores, "whole core"), count(e.ThreadsPerCore, "thread"))}
	for i, use := range e.Scales {
		said = append(said, use.sentence(e.Cores, e.Scales[:i]))
	}
	for _, d := range e.Decisions {
		if s := d.sentence(); s != "" {
			said = append(said, s)
		}
	}
	switch {
	case e.Near == nil:
	case *e.Near == e.Cores:
		said = append(said, "near the claim's devices")
	default:
		said = append(said, fmt.Sprintf("%d of the %s near the claim's devices", *e.Near, count(e.Cores, "core")))
	}
	return said
}

func (u ScaleUse) sentence(cores int, larger []ScaleUse) string {
	left := 0
	numbers := make([]string, 0, len(u.Parts))
	for _, part := range u.Parts {
		left += part.Left
		numbers = append(numbers, strconv.Itoa(part.Number))
	}
	const most = 8
	if len(numbers) > most {
		numbers = append(numbers[:most], "…")
	}
	remain := "no free core"
	if left > 0 {
		remain = count(left, "free core")
	}
	said := fmt.Sprintf("%d of %s (%s), with %s left", len(u.Parts), count(u.Of, u.Scale), strings.Join(numbers, ", "), remain)
	switch {
	case len(u.Parts) > u.Fewest:
		return fmt.Sprintf("%s; %d would do, but fewer %ss count for more", said, u.Fewest, larger[len(larger)-1].Scale)
	case u.Fewest == 2:
		return fmt.Sprintf("%s; no %s has %s, the largest has %d", said, u.Scale, count(cores, "free core"), u.Largest)
	case u.Fewest > 2:
		return fmt.Sprintf("%s; the %d largest %ss have no more than %s", said, u.Fewest-1, u.Scale, count(u.Largest, "free core"))
	}
	return said
}

func (d Decision) sentence() string {
	_, short, _ := strings.Cut(d.Scale, " ") // "group" of "L3 group"
	if short == "" {
		short = d.Scale
	}
	those := func(n int) string {
		if d.Within != "" {
			return fmt.Sprintf("%s of %s", count(n, d.Scale), d.Within)
		}
		return count(n, d.Scale)
	}
	switch {
	case d.WithRoom == 0:
		return "" // which the parts' numbers say
	case d.WithRoom == 1:
		return fmt.Sprintf("only %s %d has room for %s", d.Scale, d.Part, count(d.Needed, "core"))
	case d.By == "spread":
		return fmt.Sprintf("of %s with room for %s, %s %d takes the fewest %ss: %d",
			those(d.Alike), count(d.Needed, "core"), short, d.Part, d.Divided, d.Measure)
	case d.By == "fragment":
		which := fmt.Sprintf("with room for %s", count(d.Needed, "core"))
		if d.Alike < d.WithRoom {
			which += " that are divided the least"
		}
		return fmt.Sprintf("of %s %s, %s %d is left with the fewest free cores: %d", those(d.Alike), which, short, d.Part, d.Measure)
	case d.By == "nearness":
		return fmt.Sprintf("of %s that are equally good, %s %d has the most free cores near the claim's devices: %d",
			those(d.Alike), short, d.Part, d.Measure)
	}
	return fmt.Sprintf("of %s that are equally good, %s %d is the first", those(d.Alike), short, d.Part)
}

// count is so many of something.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
