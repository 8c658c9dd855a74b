package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// histogram counts observations by the upper bounds of their buckets, each with all
// below it, as Prometheus writes them.
type histogram map[float64]float64

// quantile is a number of seconds for people. Within a bucket it is interpolated as
// PromQL's histogram_quantile does; the last bucket has no upper bound.
func (h histogram) quantile(q float64) string {
	if h.count() == 0 {
		return "-"
	}
	rank := q * h[math.Inf(1)]
	lower, below := 0.0, 0.0
	for _, upper := range slices.Sorted(maps.Keys(h)) {
		if h[upper] >= rank && h[upper] > below {
			if math.IsInf(upper, 1) {
				break
			}
			return seconds(lower + (upper-lower)*(rank-below)/(h[upper]-below))
		}
		lower, below = upper, h[upper]
	}
	return "over " + seconds(lower)
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Microsecond).String()
}

// count is how many observations there are.
func (h histogram) count() int { return int(h[math.Inf(1)]) }

// since leaves out what had been observed before.
func (h histogram) since(before histogram) histogram {
	left := histogram{}
	for bound, n := range h {
		left[bound] = n - before[bound]
	}
	return left
}

// readHistogram sums up the series of a metric in Prometheus' text format whose
// labels contain the text, such as result="error"; all if it is empty.
func readHistogram(r io.Reader, name, label string) (histogram, error) {
	h := histogram{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		series, value, ok := strings.Cut(lines.Text(), "} ")
		labels, of := strings.CutPrefix(series, name+"_bucket{")
		if !ok || !of || !strings.Contains(labels, label) {
			continue
		}
		_, rest, _ := strings.Cut(","+labels, `,le="`)
		bound, _, _ := strings.Cut(rest, `"`)
		upper, err := strconv.ParseFloat(bound, 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: bucket %q: %w", name, bound, err)
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: value %q: %w", name, value, err)
		}
		h[upper] += n
	}
	return h, lines.Err()
}
