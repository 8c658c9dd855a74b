package main

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// runtimeTimes is what containerd's log says of the containers of a namespace, by kind.
type runtimeTimes struct {
	create, start map[string]durations
	// failed counts calls that ended with an error, and failure is the first of them.
	failed  int
	failure string
}

// Lines as instrumented_service.go of containerd's internal/cri/instrument writes them. The
// metadata are in protobuf's text form, whose spaces vary on purpose.
var (
	logLine         = regexp.MustCompile(`^time="([^"]+)" level=(\w+) msg=("(?:[^"\\]|\\.)*")`)
	sandboxReturned = regexp.MustCompile(`^RunPodSandbox for (.*) returns sandbox id "(\w+)"`)
	createCalled    = regexp.MustCompile(`^CreateContainer within sandbox "(\w+)" for container (.*)$`)
	createReturned  = regexp.MustCompile(`^CreateContainer within sandbox "(\w+)" for (.*) returns container id "(\w+)"`)
	createFailed    = regexp.MustCompile(`^CreateContainer within sandbox "(\w+)" for (.*) failed`)
	startCalled     = regexp.MustCompile(`^StartContainer for "(\w+)"$`)
	startReturned   = regexp.MustCompile(`^StartContainer for "(\w+)" returns successfully`)
	startFailed     = regexp.MustCompile(`^StartContainer for "(\w+)" failed`)
	metadataField   = regexp.MustCompile(`(\w+):"?([^"\s]*)"?`)
)

// readRuntimeLog pairs the calls with their returns. A call without a return is left
// out: the log may end in between.
func readRuntimeLog(log, namespace string) (runtimeTimes, error) {
	t := runtimeTimes{create: map[string]durations{}, start: map[string]durations{}}
	ours := map[string]bool{}          // by sandbox
	creating := map[string]time.Time{} // by sandbox, name and attempt
	starting := map[string]time.Time{} // by container
	kindOf := map[string]string{}      // by container
	fail := func(line string) {
		t.failed++
		if t.failure == "" {
			t.failure = strings.TrimSpace(line)
		}
	}
	for line := range strings.Lines(log) {
		parts := logLine.FindStringSubmatch(line)
		if parts == nil {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, parts[1])
		if err != nil {
			return t, fmt.Errorf("log of containerd: %w", err)
		}
		message, err := strconv.Unquote(parts[3])
		if err != nil {
			return t, fmt.Errorf("log of containerd: %s: %w", parts[3], err)
		}
		if m := sandboxReturned.FindStringSubmatch(message); m != nil {
			ours[m[2]] = metadata(m[1])["namespace"] == namespace
		} else if m := createReturned.FindStringSubmatch(message); m != nil && ours[m[1]] {
			of := metadata(m[2])
			kind, _, _ := strings.Cut(of["name"], "-")
			kindOf[m[3]] = kind
			if begin, ok := creating[m[1]+of["name"]+of["attempt"]]; ok {
				t.create[kind] = append(t.create[kind], at.Sub(begin))
			}
		} else if m := createFailed.FindStringSubmatch(message); m != nil && ours[m[1]] {
			fail(line)
		} else if m := createCalled.FindStringSubmatch(message); m != nil && ours[m[1]] {
			of := metadata(m[2])
			creating[m[1]+of["name"]+of["attempt"]] = at
		} else if m := startReturned.FindStringSubmatch(message); m != nil && kindOf[m[1]] != "" {
			if begin, ok := starting[m[1]]; ok {
				t.start[kindOf[m[1]]] = append(t.start[kindOf[m[1]]], at.Sub(begin))
			}
		} else if m := startFailed.FindStringSubmatch(message); m != nil && kindOf[m[1]] != "" {
			fail(line)
		} else if m := startCalled.FindStringSubmatch(message); m != nil && kindOf[m[1]] != "" {
			starting[m[1]] = at
		}
	}
	return t, nil
}

func metadata(text string) map[string]string {
	fields := map[string]string{}
	for _, m := range metadataField.FindAllStringSubmatch(text, -1) {
		fields[m[1]] = m[2]
	}
	return fields
}

// durations are how long each of something took.
type durations []time.Duration

// quantile is the least of them that so large a part of them does not exceed.
func (d durations) quantile(q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
