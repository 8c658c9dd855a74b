package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/topolet/topolet/allocator"
)

// ledgerMetrics reads the ledger when it is asked: nothing is counted twice.
type ledgerMetrics struct {
	ledger *allocator.Ledger
	// bad is how many grants of the checkpoint were set aside at the start.
	bad int

	claims, conflicts, containers, tiers, cpus, quarantined *prometheus.Desc
}

func newLedgerMetrics(l *allocator.Ledger, bad int) *ledgerMetrics {
	return &ledgerMetrics{
		ledger:      l,
		bad:         bad,
		claims:      prometheus.NewDesc("topolet_claims", "Claims that hold CPUs.", nil, nil),
		conflicts:   prometheus.NewDesc("topolet_conflicts", "Grants and containers that contradict the machine or each other.", nil, nil),
		containers:  prometheus.NewDesc("topolet_containers", "Containers known, by kind (exclusive, shared, orphan).", []string{"kind"}, nil),
		tiers:       prometheus.NewDesc("topolet_enforced_containers", "Running containers with claims, by who keeps others off their CPUs (kernel, runtime, degraded: nobody).", []string{"tier"}, nil),
		cpus:        prometheus.NewDesc("topolet_cpus", "CPUs, by state (granted, shared).", []string{"state"}, nil),
		quarantined: prometheus.NewDesc("topolet_checkpoint_quarantined_grants", "Grants of the checkpoint that could not be used and were set aside at the last start.", nil, nil),
	}
}

// Describe implements [prometheus.Collector].
func (m *ledgerMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.claims, m.conflicts, m.containers, m.tiers, m.cpus, m.quarantined} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *ledgerMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	grants := m.ledger.Grants()
	granted := 0
	for _, g := range grants {
		granted += g.CPUs().Size()
	}
	kinds := map[string]int{"exclusive": 0, "shared": 0, "orphan": 0}
	tiers := map[allocator.Tier]int{allocator.KernelTier: 0, allocator.RuntimeTier: 0, allocator.DegradedTier: 0}
	for _, e := range m.ledger.Entries() {
		if e.Enforcement.Tier != "" {
			tiers[e.Enforcement.Tier]++
		}
		switch {
		case e.Orphan:
			kinds["orphan"]++
		case e.Granted.IsEmpty():
			kinds["shared"]++
		default:
			kinds["exclusive"]++
		}
	}
	gauge(m.claims, len(grants))
	gauge(m.quarantined, m.bad)
	gauge(m.conflicts, len(m.ledger.Conflicts()))
	for kind, n := range kinds {
		gauge(m.containers, n, kind)
	}
	for tier, n := range tiers {
		gauge(m.tiers, n, string(tier))
	}
	gauge(m.cpus, granted, "granted")
	gauge(m.cpus, m.ledger.Pool().Size(), "shared")
}
