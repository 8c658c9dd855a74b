package testbed

import (
	"context"
	"errors"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/component"
	"github.com/topolet/topolet/test/testbed/internal/process"
	"github.com/topolet/topolet/test/testbed/numa/machine"
)

// Status is what is there of a testbed at one moment.
type Status struct {
	State string `json:"state"`
	Node  string `json:"node,omitempty"`
	// Ready is true when every component runs and is healthy, the node's
	// condition included.
	Ready      bool              `json:"ready"`
	Components []ComponentStatus `json:"components"`
	// Other counts the remaining processes: shims and containers.
	Other int `json:"otherProcesses"`
}

// ComponentStatus is one component's part of the status.
type ComponentStatus struct {
	Name string `json:"name"`
	// PID is zero when the component does not run.
	PID   int       `json:"pid,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Healthy is the component's own answer; for the kubelet, that the node
	// is Ready.
	Healthy bool `json:"healthy"`
	// Problem says what is wrong when the component is not healthy.
	Problem string `json:"problem,omitempty"`
	Log     string `json:"log"`
}

// Status looks at every component once. A testbed that was never created is a
// status like any other, with nothing running.
func (t *Testbed) Status(ctx context.Context) (Status, error) {
	s := Status{State: t.layout.State}
	all, err := process.Finder{State: t.layout.State, Cgroup: t.layout.Cgroup()}.All()
	if err != nil {
		return s, err
	}
	c, err := t.recorded()
	if err != nil && !errors.Is(err, ErrNone) {
		return s, err
	}
	s.Ready = true
	s.Other = len(all)
	if _, runs := process.Pick(all, machine.Program); runs {
		s.Other--
	}
	for _, name := range component.Names() {
		cs := ComponentStatus{Name: name, Log: t.layout.Logs() + "/" + name + ".log"}
		p, runs := process.Pick(all, name)
		switch {
		case !runs:
			cs.Problem = "does not run"
		case c == nil:
			cs.Problem = "runs, but the state folder is gone: run `testbed down`"
		default:
			if err := c.Healthy(ctx, name); err != nil {
				cs.Problem = err.Error()
			}
		}
		if runs {
			cs.PID, cs.Since = p.PID, p.Since()
			s.Other--
		}
		cs.Healthy = cs.Problem == ""
		s.Ready = s.Ready && cs.Healthy
		s.Components = append(s.Components, cs)
	}
	if c != nil {
		s.Node = c.Cluster.NodeName
	}
	return s, nil
}
