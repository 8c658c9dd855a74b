// Package progress tells a person at a terminal, or in a build log, which step
// of a long procedure runs and how long it has taken.
package progress

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// heartbeat is how often a step that takes long says that it is still there.
const heartbeat = 10 * time.Second

// Log writes one line per step.
type Log struct {
	mu  sync.Mutex
	out io.Writer
}

// New writes to out.
func New(out io.Writer) *Log { return &Log{out: out} }

// Printf writes one line.
func (l *Log) Printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.out, format+"\n", args...)
}

// Step is one running step.
type Step struct {
	log     *Log
	label   string
	start   time.Time
	stop    chan struct{}
	mu      sync.Mutex
	waiting string
}

// Start begins step k of n.
func (l *Log) Start(k, n int, title string) *Step {
	s := &Step{log: l, label: fmt.Sprintf("[%*d/%d] %s", len(fmt.Sprint(n)), k, n, title), start: time.Now(), stop: make(chan struct{})}
	go s.beat()
	return s
}

// Waiting says what the step is waiting for, shown while it takes long.
func (s *Step) Waiting(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = fmt.Sprintf(format, args...)
}

func (s *Step) beat() {
	t := time.NewTicker(heartbeat)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
			s.mu.Lock()
			w := s.waiting
			s.mu.Unlock()
			if w != "" {
				w = ": " + w
			}
			s.log.Printf("%s ... %s%s", s.label, s.elapsed(), w)
		}
	}
}

// Done ends the step and prints its line. detail may be empty.
func (s *Step) Done(detail string) {
	close(s.stop)
	if detail != "" {
		detail = "  " + detail
	}
	s.log.Printf("%s  %s%s", s.label, s.elapsed(), detail)
}

// Failed ends the step and prints its line; the error itself is for the
// caller to report.
func (s *Step) Failed() {
	close(s.stop)
	s.log.Printf("%s  %s  FAILED", s.label, s.elapsed())
}

func (s *Step) elapsed() string {
	return fmt.Sprintf("%.1fs", time.Since(s.start).Seconds())
}
