package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// nriEvent is how long topolet took to answer the events of one kind, by its own metric
// topolet_nri_event_seconds, since it was started.
type nriEvent struct {
	Event         string
	Count, Errors int
	P50ms, P99ms  float64
	// MeanMs is exact, also beyond the buckets.
	MeanMs float64
	// P99IsMore is true when P99ms is the bound of the last bucket that has one.
	P99IsMore bool `json:",omitempty"`
}

const (
	nriBuckets = "topolet_nri_event_seconds_bucket{"
	nriSums    = "topolet_nri_event_seconds_sum{"
)

// readNRIEvents reads Prometheus' text format. The buckets' bounds double, so the
// quantiles are rough; within a bucket they are interpolated.
func readNRIEvents(text string) ([]nriEvent, error) {
	buckets := map[string]map[float64]float64{} // by event and bound, each with all below
	errorsOf, seconds := map[string]float64{}, map[string]float64{}
	for line := range strings.Lines(text) {
		rest, isBucket := strings.CutPrefix(line, nriBuckets)
		sum, isSum := strings.CutPrefix(rest, nriSums)
		if !isBucket && !isSum {
			continue
		}
		labels, value, _ := strings.Cut(strings.TrimSpace(sum), "} ")
		of := map[string]string{}
		for label := range strings.SplitSeq(labels, ",") {
			name, quoted, _ := strings.Cut(label, "=")
			of[name] = strings.Trim(quoted, `"`)
		}
		event := of["event"]
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("topolet's metrics: %q: %w", line, err)
		}
		if isSum {
			seconds[event] += n
			continue
		}
		bound, err := strconv.ParseFloat(of["le"], 64)
		if err != nil {
			return nil, fmt.Errorf("topolet's metrics: %q: %w", line, err)
		}
		if buckets[event] == nil {
			buckets[event] = map[float64]float64{}
		}
		buckets[event][bound] += n
		if of["outcome"] != "ok" && math.IsInf(bound, 1) {
			errorsOf[event] += n
		}
	}
	var events []nriEvent
	for event, h := range buckets {
		p50, _ := quantile(h, 0.5)
		p99, beyond := quantile(h, 0.99)
		events = append(events, nriEvent{
			Event: event, Count: int(h[math.Inf(1)]), Errors: int(errorsOf[event]),
			P50ms: 1000 * p50, P99ms: 1000 * p99, P99IsMore: beyond,
			MeanMs: 1000 * seconds[event] / h[math.Inf(1)],
		})
	}
	slices.SortFunc(events, func(a, b nriEvent) int { return strings.Compare(a.Event, b.Event) })
	return events, nil
}

// quantile is as PromQL's histogram_quantile; beyond is true if it is more than that.
func quantile(h map[float64]float64, q float64) (value float64, beyond bool) {
	var bounds []float64
	for bound := range h {
		bounds = append(bounds, bound)
	}
	slices.Sort(bounds)
	rank := q * h[math.Inf(1)]
	lower, below := 0.0, 0.0
	for _, upper := range bounds {
		if h[upper] >= rank && h[upper] > below {
			if math.IsInf(upper, 1) {
				return lower, true
			}
			return lower + (upper-lower)*(rank-below)/(h[upper]-below), false
		}
		lower, below = upper, h[upper]
	}
	return lower, false
}
