package allocator

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/topolet/topolet/topology"
)

// BadGrant is a grant of a checkpoint that cannot be believed.
type BadGrant struct {
	// Index is its place in the file's list, from 0 on.
	Index int
	// Claim is what it says of its claim, as far as it can be read.
	Claim  Claim
	Reason string
	// Raw is its text.
	Raw json.RawMessage
}

func (b BadGrant) String() string {
	return fmt.Sprintf("grants[%d] (claim %s/%s, %q): %s", b.Index, b.Claim.Namespace, b.Claim.Name, b.Claim.UID, b.Reason)
}

// BadGrantsError says that some grants of a checkpoint cannot be used, and the
// others can.
type BadGrantsError struct {
	Path   string
	Grants []BadGrant
}

func (e *BadGrantsError) Error() string {
	const most = 5 // one reads in an Event
	var reasons []string
	for _, b := range e.Grants[:min(len(e.Grants), most)] {
		reasons = append(reasons, b.String())
	}
	if more := len(e.Grants) - most; more > 0 {
		reasons = append(reasons, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("checkpoint %s: %s", e.Path, strings.Join(reasons, "; "))
}

// Quarantine moves the bad grants of a checkpoint into a file of their own, which has
// the checkpoint's format, and returns its path: a person who knows better puts them
// back. Good are the others. A crash in between leaves them in both files.
func (s FileStore) Quarantine(bad *BadGrantsError, good []Grant) (string, error) {
	c := checkpoint[json.RawMessage]{Version: checkpointVersion}
	for _, b := range bad.Grants {
		c.Grants = append(c.Grants, b.Raw)
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode bad grants: %w", err)
	}
	aside := s.asideName(data)
	if err := replaceFile(aside, append(data, '\n'), (*os.File).Sync); err != nil {
		return "", fmt.Errorf("set bad grants aside: %w", &SaveError{Path: aside, Err: err})
	}
	return aside, s.Save(good)
}

// sortOut reads the grants of a checkpoint and says which of them no ledger could
// have written.
//
// Of grants that contradict each other none is believed. Whichever were kept might
// be the wrong one, and its container, which runs elsewhere, would be moved onto the
// CPUs of the other's. As it is both containers stay where they are: the runtime
// lists them, their claims are unknown, and nobody else gets their CPUs.
func sortOut(raw []json.RawMessage) (good []Grant, bad []BadGrant) {
	grants, reasons := make([]Grant, len(raw)), make([]error, len(raw))
	for i, text := range raw {
		if reasons[i] = strictly(text, &grants[i]); reasons[i] == nil {
			reasons[i] = grants[i].consistent()
		}
	}
	sets := make([]topology.CPUSet, len(grants))
	for i, g := range grants {
		sets[i] = g.CPUs()
		for j := range i {
			// A grant whose own text is bad may still be right about its CPUs.
			var err error
			if both := sets[i].Intersection(sets[j]); !both.IsEmpty() {
				err = fmt.Errorf("has CPUs %s", both)
			} else if g.UID == grants[j].UID && g.UID != "" {
				err = fmt.Errorf("has uid %s", g.UID)
			} else if owner := bothUse(g, grants[j]); owner != "" {
				err = fmt.Errorf("has hardware of %s", owner)
			}
			if err != nil {
				reasons[i] = errors.Join(reasons[i], fmt.Errorf("%w, and so does grants[%d]", err, j))
				reasons[j] = errors.Join(reasons[j], fmt.Errorf("%w, and so does grants[%d]", err, i))
			}
		}
	}
	for i, reason := range reasons {
		if reason == nil {
			good = append(good, grants[i])
			continue
		}
		said := strings.ReplaceAll(reason.Error(), "\n", "; ")
		bad = append(bad, BadGrant{Index: i, Claim: grants[i].Claim, Reason: said, Raw: raw[i]})
	}
	return good, bad
}

// bothUse is the owner of hardware that two grants have although it is one's only, or
// empty. Grants of the same device may share it.
func bothUse(a, b Grant) string {
	for _, p := range a.Parts {
		for _, q := range b.Parts {
			if p.Hardware != nil && q.Hardware != nil && p.Domain != q.Domain && p.Hardware.Use.Excludes(q.Hardware.Use) {
				return p.Hardware.Use.Owner
			}
		}
	}
	return ""
}

// validName is what claims' UIDs and requests' names are made of: they become names of
// files and of CDI devices.
var validName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_-]*[a-zA-Z0-9])?$`)

// consistent refuses what contradicts itself.
func (g Grant) consistent() error {
	switch {
	case !validName.MatchString(string(g.UID)):
		return fmt.Errorf("uid %q is not the UID of a claim", g.UID)
	case len(g.Parts) == 0:
		return errors.New("has no parts")
	}
	var taken topology.CPUSet
	for j, p := range g.Parts {
		switch {
		case !validName.MatchString(p.Name):
			return fmt.Errorf("parts[%d].request %q is not the name of a request", j, p.Name)
		case p.CPUs.Size() != p.Count || p.Count == 0 && len(p.MemoryNodes) == 0 && p.Hardware == nil:
			return fmt.Errorf("parts[%d] has CPUs %q for a count of %d, memory of NUMA nodes %v, and no device", j, p.CPUs, p.Count, p.MemoryNodes)
		case p.RunsOn().IsEmpty() && p.Count > 0 || !p.Idle.IsSubsetOf(p.CPUs):
			return fmt.Errorf("parts[%d] has CPUs %s, of which %q are idle", j, p.CPUs, p.Idle)
		case p.Hardware != nil && !p.Hardware.Handover.consistent():
			return fmt.Errorf("parts[%d] has a function that is handed over with %+v", j, *p.Hardware.Handover)
		case p.CPUs.Intersects(taken):
			return fmt.Errorf("parts[%d] has CPUs %s, of which %s are granted twice", j, p.CPUs, p.CPUs.Intersection(taken))
		}
		taken = taken.Union(p.CPUs)
	}
	return nil
}
