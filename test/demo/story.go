package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/topolet/topolet/test/demo/internal/picture"
)

// steps is how many steps the demonstration has.
const steps = 6

// heartbeat is how often a long wait says that it is still there.
const heartbeat = 10 * time.Second

const clock = "15:04:05.000"

// story tells a person what happens, and how long each step took.
type story struct {
	out     io.Writer
	palette picture.Palette

	begun   time.Time
	current string
	since   time.Time
	number  int
	times   []string
	// right counts the checks that were.
	right int
}

func newStory(out io.Writer, p picture.Palette) *story {
	return &story{out: out, palette: p, begun: time.Now()}
}

// step begins the next step. The sentence says what is done in it.
func (s *story) step(title, sentence string) {
	s.endStep()
	s.number++
	s.current, s.since = title, time.Now()
	fmt.Fprintf(s.out, "\n%s\n", s.palette.Strong(fmt.Sprintf("%d of %d  %s", s.number, steps, title)))
	s.say(sentence)
}

// last begins the last step, also when those before it were broken off.
func (s *story) last(title, sentence string) {
	s.endStep()
	s.number = steps - 1
	s.step(title, sentence)
}

func (s *story) endStep() {
	if s.current != "" {
		s.times = append(s.times, fmt.Sprintf("%s %.1f s", strings.ToLower(s.current), time.Since(s.since).Seconds()))
	}
	s.current = ""
}

// say writes text in lines that fit.
func (s *story) say(text string) {
	for _, line := range wrap(text, picture.Width-len("   ")) {
		fmt.Fprintln(s.out, "   "+line)
	}
}

// command shows what a person would type.
func (s *story) command(line string) {
	fmt.Fprintln(s.out, "     $ "+line)
}

func (s *story) blank() { fmt.Fprintln(s.out) }

// event is something that happened at a time.
type event struct {
	at   time.Time
	what string
}

// events shows two events and how long it was from the first to the second.
func (s *story) events(first, second event) {
	s.blank()
	fmt.Fprintf(s.out, "   %s  %s\n", s.palette.Faint(first.at.Local().Format(clock)), first.what)
	fmt.Fprintf(s.out, "   %s  %s  %s\n", s.palette.Faint(second.at.Local().Format(clock)), second.what,
		s.palette.Strong(fmt.Sprintf("%+d ms", second.at.Sub(first.at).Milliseconds())))
}

// checks shows what was seen to be right or wrong, and fails if something was
// wrong.
func (s *story) checks(list []check) error {
	s.blank()
	wrong := 0
	for _, c := range list {
		if c.right() {
			s.right++
			fmt.Fprintln(s.out, "   "+s.palette.Good("ok")+"     "+c.what)
			continue
		}
		fmt.Fprintf(s.out, "   %s  %s\n          expected %s, seen %s\n", s.palette.Bad("WRONG"), c.what, c.want, c.seen)
		wrong++
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d checks of this step were WRONG, as shown above", wrong, len(list))
	}
	return nil
}

// working says from time to time that something that takes long goes on, until
// the returned function is called.
func (s *story) working(what string) (done func()) {
	start, stop := time.Now(), make(chan struct{})
	var over sync.WaitGroup
	over.Go(func() {
		tick := time.NewTicker(heartbeat)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				s.say(fmt.Sprintf("… %.0f s: %s", time.Since(start).Seconds(), what))
			}
		}
	})
	return func() {
		close(stop)
		over.Wait()
	}
}

// close says how it all ended.
func (s *story) close(err error) {
	s.endStep()
	s.blank()
	if err == nil {
		fmt.Fprintln(s.out, "   "+s.palette.Good(fmt.Sprintf("All %d checks were right.", s.right)))
	}
	s.say(fmt.Sprintf("Took %.1f s: %s.", time.Since(s.begun).Seconds(), strings.Join(s.times, ", ")))
}

// wrap breaks a text between its words into lines of a width.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
