package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/topolet/topolet/test/demo/internal/picture"
)

func TestTextFitsTheTerminal(t *testing.T) {
	var out bytes.Buffer
	s := newStory(&out, picture.Palette{})
	s.step("First", strings.Repeat("a sentence of some length, ", 20))
	s.step("Second", "short")
	s.close(nil)
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(line) - 1; n > picture.Width {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if said := out.String(); !strings.Contains(said, "1 of 6  First") || !strings.Contains(said, "first 0.0 s, second 0.0 s") {
		t.Errorf("steps or times are missing:\n%s", said)
	}
}

func TestEventsShowTheDifference(t *testing.T) {
	var out bytes.Buffer
	newStory(&out, picture.Palette{}).events(event{noon, "one"}, event{noon.Add(-94 * time.Millisecond), "two"})
	if !strings.Contains(out.String(), "two  -94 ms") {
		t.Errorf("got %s", out.String())
	}
}

func TestIndent(t *testing.T) {
	var out bytes.Buffer
	w := indented(&out)
	for _, s := range []string{"a\nb", "c\n", "", "d\n"} {
		if _, err := io.WriteString(w, s); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := out.String(), "     a\n     bc\n     d\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"--keep", "--state", "/var/lib/x"}, io.Discard)
	if want := (options{state: "/var/lib/x", podCIDR: defaultPodCIDR, keep: true}); err != nil || o != want {
		t.Errorf("got %+v, %v", o, err)
	}
	var said bytes.Buffer
	if _, err := parse([]string{"down"}, &said); err == nil || !strings.Contains(said.String(), `"down"`) {
		t.Errorf("got %v, said %q", err, said.String())
	}
}

func TestShortName(t *testing.T) {
	for key, want := range map[string]string{
		"default/plain-pod/main":               "plain-pod",
		"topolet-system/topolet-x7k2p/topolet": "topolet",
	} {
		if got := shortName(key); got != want {
			t.Errorf("%s: got %s, want %s", key, got, want)
		}
	}
}
