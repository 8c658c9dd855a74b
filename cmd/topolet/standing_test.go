package main

import (
	"errors"
	"fmt"
	"testing"
)

func TestAStandbyIsReadyWithItsGuardAndAnActiveOneWithAll(t *testing.T) {
	var guard, rest error
	s := standing{always: func() error { return guard }}
	unguarded, unregistered := errors.New("no guard"), errors.New("not registered")
	for _, step := range []struct {
		name        string
		do          func()
		guard, rest error
		want        string
	}{
		{"it starts", func() {}, unguarded, nil, "topolet starts\nno guard"},
		{"it starts, guarded", func() {}, nil, nil, "topolet starts"},
		{"it stands by without a guard", s.by, unguarded, unregistered, "no guard"},
		{"it stands by", s.by, nil, unregistered, "<nil>"},
		{"it restores the state", s.starts, nil, unregistered, "topolet starts"},
		{"it is active and not registered", func() { s.active(probes{nil, func() error { return rest }}) }, nil, unregistered, "not registered"},
		{"it is active", func() {}, nil, nil, "<nil>"},
		{"it is active and has lost its guard", func() {}, unguarded, nil, "no guard"},
	} {
		step.do()
		guard, rest = step.guard, step.rest
		if got := fmt.Sprint(s.ready()); got != step.want {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
}

func TestOnlyAnActiveProcessCanBeStuck(t *testing.T) {
	asked := 0
	s := standing{}
	s.alive()
	s.by()
	s.alive()
	s.active(probes{alive: func() { asked++ }})
	s.alive()
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
}
