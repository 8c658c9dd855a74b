package draplugin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts and times what the kubelet asks for.
type metrics struct {
	seconds       *prometheus.HistogramVec
	staleReleases prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "topolet_dra_claim_seconds",
			Help:    "Time to prepare or unprepare one claim, by operation and outcome (ok, error).",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"operation", "outcome"}),
		staleReleases: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "topolet_stale_claims_released_total",
			Help: "Claims that no longer exist for this node and that the kubelet did not release.",
		}),
	}
}

// observe starts the clock and returns the function that stops it. The error is
// read when it stops.
func (m *metrics) observe(operation string, err *error) func() {
	start := time.Now()
	return func() {
		outcome := "ok"
		if *err != nil {
			outcome = "error"
		}
		m.seconds.WithLabelValues(operation, outcome).Observe(time.Since(start).Seconds())
	}
}

// Describe implements [prometheus.Collector].
func (p *Plugin) Describe(ch chan<- *prometheus.Desc) {
	p.metrics.seconds.Describe(ch)
	p.metrics.staleReleases.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (p *Plugin) Collect(ch chan<- prometheus.Metric) {
	p.metrics.seconds.Collect(ch)
	p.metrics.staleReleases.Collect(ch)
}
