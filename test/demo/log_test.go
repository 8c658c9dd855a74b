package main

import (
	"strings"
	"testing"
	"time"

	"github.com/topolet/topolet/test/harness"
)

func TestTimesOfALog(t *testing.T) {
	tests := map[string]struct {
		log        []string
		left, back int // the line, or -1
	}{
		"empty":              {nil, -1, -1},
		"nothing happened":   {[]string{"0-1"}, -1, 0},
		"left":               {[]string{"0-1", "0"}, 1, -1},
		"left and back":      {[]string{"0-1", "0", "0-1"}, -1, 2},
		"left twice":         {[]string{"0-1", "0", "0-1", "0"}, 3, -1},
		"left, then lost":    {[]string{"0-2", "0,2", "0"}, 1, -1},
		"not a list":         {[]string{"0-1", "?"}, -1, -1},
		"a hole in the time": {[]string{"0", "?", "0"}, 2, -1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var lines []harness.Line
			for i, s := range test.log {
				lines = append(lines, harness.Line{Time: noon.Add(time.Duration(i) * time.Second), CPUsAllowed: s})
			}
			left, err := leftAt(lines, set(t, "1"))
			expectLine(t, "left", test.left, left, err)
			back, err := backAt(lines, set(t, "0-1"))
			expectLine(t, "back", test.back, back, err)
		})
	}
}

func expectLine(t *testing.T, what string, want int, at time.Time, err error) {
	t.Helper()
	switch {
	case want < 0 && err == nil:
		t.Errorf("%s at %s, want an error", what, at)
	case want >= 0 && err != nil:
		t.Errorf("%s: %v", what, err)
	case want >= 0 && !at.Equal(noon.Add(time.Duration(want)*time.Second)):
		t.Errorf("%s at %s, want line %d", what, at, want)
	}
}

func TestLogErrorsSayWhatIsSeen(t *testing.T) {
	_, err := leftAt([]harness.Line{{CPUsAllowed: "0-1"}}, set(t, "1"))
	if err == nil || !strings.Contains(err.Error(), "CPUs 0-1") {
		t.Errorf("got %v", err)
	}
}
