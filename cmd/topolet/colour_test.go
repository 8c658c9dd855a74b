package main

import (
	"os"
	"strings"
	"testing"
)

func TestColoursAreForTerminalsOnly(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	// The far end of a pseudoterminal is a terminal, too.
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer terminal.Close()
	if !wantsColour(terminal) {
		t.Error("none for a terminal")
	}
	if wantsColour(&strings.Builder{}) {
		t.Error("some for a pipe")
	}
	t.Run("not against the person's will", func(t *testing.T) {
		t.Setenv("NO_COLOR", "1")
		if wantsColour(terminal) {
			t.Error("some despite NO_COLOR")
		}
	})
	t.Run("not where the terminal has none", func(t *testing.T) {
		t.Setenv("TERM", "dumb")
		if wantsColour(terminal) {
			t.Error("some despite TERM=dumb")
		}
	})
}
