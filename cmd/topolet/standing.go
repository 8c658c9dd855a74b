package main

import (
	"errors"
	"sync"
)

// standing is how far the process has come, for the kubelet's probes: it starts; it
// may stand by while another process is active; it is active.
type standing struct {
	// always returns nil while nothing is missing that is needed in each standing.
	always func() error

	mu sync.Mutex
	// now is nil as long as the process starts.
	now *probes
}

// by says that another process is active. Then the guard is all that this one has
// to offer, and the other may end.
func (s *standing) by() { s.set(&probes{func() {}, func() error { return nil }}) }

// starts says that no other process is active, and this one not yet.
func (s *standing) starts() { s.set(nil) }

// active says that the process has the node's state, and answers for it.
func (s *standing) active(p probes) { s.set(&p) }

func (s *standing) alive() {
	if now := s.get(); now != nil {
		now.alive()
	}
}

func (s *standing) ready() error {
	now := s.get()
	if now == nil {
		return errors.Join(errors.New("topolet starts"), s.always())
	}
	return errors.Join(s.always(), now.ready())
}

func (s *standing) set(now *probes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

func (s *standing) get() *probes {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}
