package nriplugin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts and times the runtime's events.
type metrics struct {
	seconds          *prometheus.HistogramVec
	readBackFailures prometheus.Counter
	drifts           prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "topolet_nri_event_seconds",
			Help:    "Time to answer one event of the container runtime, by event and outcome (ok, error).",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 16),
		}, []string{"event", "outcome"}),
		readBackFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "topolet_readback_failures_total",
			Help: "Container starts refused because the kernel's cpusets were not those promised.",
		}),
		drifts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "topolet_drifts_total",
			Help: "Times that a running container was found on other CPUs than it ought to have, and was told again.",
		}),
	}
}

// observe starts the clock and returns the function that stops it. The error is
// read when it stops.
func (m *metrics) observe(event string, err *error) func() {
	start := time.Now()
	return func() {
		outcome := "ok"
		if *err != nil {
			outcome = "error"
		}
		m.seconds.WithLabelValues(event, outcome).Observe(time.Since(start).Seconds())
	}
}

// Describe implements [prometheus.Collector].
func (p *Plugin) Describe(ch chan<- *prometheus.Desc) {
	p.metrics.seconds.Describe(ch)
	p.metrics.readBackFailures.Describe(ch)
	p.metrics.drifts.Describe(ch)
}

// Collect implements [prometheus.Collector].
func (p *Plugin) Collect(ch chan<- prometheus.Metric) {
	p.metrics.seconds.Collect(ch)
	p.metrics.readBackFailures.Collect(ch)
	p.metrics.drifts.Collect(ch)
}
