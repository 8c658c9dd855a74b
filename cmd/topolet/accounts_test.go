package main

import (
	"testing"

	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/nriplugin"
)

func TestPodsThatRequestTooLittle(t *testing.T) {
	short := nriplugin.ShortageError{Namespace: "ns", Pod: "p", UID: "u", Field: "resources.requests[cpu]", Requested: "1", Held: "4"}
	const said = "Pod ns/p RequestsTooLow: pod ns/p field resources.requests[cpu]: 1 is less than the 4 that its claims hold: set it to 4"
	for _, tc := range []struct {
		name    string
		mode    v1alpha1.CPURequests
		counted bool
		refused bool
		said    []string
	}{
		{name: "are warned", mode: v1alpha1.Warn, said: []string{said}},
		{name: "are refused", mode: v1alpha1.Refuse, refused: true},
		{name: "are left alone", mode: v1alpha1.Ignore},
		{name: "are left alone where the scheduler counts claims", mode: v1alpha1.Refuse, counted: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var notes warnings
			a := &accounts{mode: tc.mode, notes: &notes, counted: func() bool { return tc.counted }}
			if err := a.TooLittle(t.Context(), short); (err != nil) != tc.refused {
				t.Errorf("the error is %v", err)
			}
			if len(notes.said) != len(tc.said) || len(tc.said) > 0 && notes.said[0] != tc.said[0] {
				t.Errorf("said %q, want %q", notes.said, tc.said)
			}
		})
	}
}
