package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// durations are how long each call of a kind took.
type durations map[string][]time.Duration

// add notes a call that began then and has just ended.
func (d durations) add(kind string, begin time.Time) {
	d[kind] = append(d[kind], time.Since(begin))
}

func (d durations) print(w io.Writer) {
	fmt.Fprintf(w, "\n%-28s %9s %9s %9s\n", "", "calls", "median", "longest")
	for _, kind := range slices.Sorted(maps.Keys(d)) {
		sorted := slices.Sorted(slices.Values(d[kind]))
		fmt.Fprintf(w, "%-28s %9d %9s %9s\n", kind, len(sorted),
			sorted[len(sorted)/2].Round(10*time.Microsecond), sorted[len(sorted)-1].Round(10*time.Microsecond))
	}
}
