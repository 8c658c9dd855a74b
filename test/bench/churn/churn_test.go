package main

import (
	"strings"
	"testing"
	"time"

	"github.com/topolet/topolet/test/bench/churn/sample"
	"github.com/topolet/topolet/test/harness"
)

const runtimeLog = `time="2026-01-01T00:00:00.100000000Z" level=info msg="RunPodSandbox for name:\"shared-00-0000\"  uid:\"u1\"  namespace:\"mine\""
time="2026-01-01T00:00:00.200000000Z" level=info msg="RunPodSandbox for name:\"shared-00-0000\"  uid:\"u1\"  namespace:\"mine\" returns sandbox id \"aa\""
time="2026-01-01T00:00:00.200000000Z" level=info msg="RunPodSandbox for name:\"a\" uid:\"u2\" namespace:\"theirs\" returns sandbox id \"bb\""
time="2026-01-01T00:00:01.000000000Z" level=info msg="CreateContainer within sandbox \"aa\" for container name:\"shared-0\""
time="2026-01-01T00:00:01.000000000Z" level=info msg="CreateContainer within sandbox \"aa\" for container name:\"shared-1\" attempt:2"
time="2026-01-01T00:00:01.000000000Z" level=info msg="CreateContainer within sandbox \"bb\" for container name:\"shared-0\""
time="2026-01-01T00:00:01.020000000Z" level=info msg="CreateContainer within sandbox \"aa\" for name:\"shared-1\"  attempt:2 returns container id \"c1\""
time="2026-01-01T00:00:01.050000000Z" level=info msg="CreateContainer within sandbox \"aa\" for name:\"shared-0\" returns container id \"c0\""
time="2026-01-01T00:00:01.050000000Z" level=info msg="CreateContainer within sandbox \"bb\" for name:\"shared-0\" returns container id \"d0\""
time="2026-01-01T00:00:02.000000000Z" level=info msg="StartContainer for \"c0\""
time="2026-01-01T00:00:02.000000000Z" level=info msg="StartContainer for \"c1\""
time="2026-01-01T00:00:02.000000000Z" level=info msg="StartContainer for \"d0\""
time="2026-01-01T00:00:02.007000000Z" level=info msg="StartContainer for \"c0\" returns successfully"
time="2026-01-01T00:00:02.008000000Z" level=error msg="StartContainer for \"c1\" failed" error="refused"
time="2026-01-01T00:00:02.009000000Z" level=info msg="StartContainer for \"d0\" returns successfully"
not a line of the log
time="2026-01-01T00:00:03.000000000Z" level=info msg="CreateContainer within sandbox \"aa\" for container name:\"exclusive\""
time="2026-01-01T00:00:03.001000000Z" level=info msg="CreateContainer within sandbox \"aa\" for name:\"exclusive\" returns container id \"e\""
`

func TestTheRuntimesLogIsReadPerKindAndForOneNamespace(t *testing.T) {
	got, err := readRuntimeLog(runtimeLog, "mine")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		of   durations
		n    int
		p50  time.Duration
		p99  time.Duration
	}{
		{"shared containers created", got.create[sharedKind], 2, 20 * time.Millisecond, 50 * time.Millisecond},
		{"shared containers started", got.start[sharedKind], 1, 7 * time.Millisecond, 7 * time.Millisecond},
		{"exclusive containers created", got.create[exclusiveKind], 1, time.Millisecond, time.Millisecond},
		{"exclusive containers started", got.start[exclusiveKind], 0, 0, 0},
	} {
		if len(test.of) != test.n || test.of.quantile(0.5) != test.p50 || test.of.quantile(0.99) != test.p99 {
			t.Errorf("%s: %v", test.name, test.of)
		}
	}
	if got.failed != 1 || !strings.Contains(got.failure, "refused") {
		t.Errorf("%d failed: %s", got.failed, got.failure)
	}
}

func TestTheEventsOfAllOutcomesAreOneHistogram(t *testing.T) {
	got, err := readNRIEvents(`# TYPE topolet_nri_event_seconds histogram
topolet_nri_event_seconds_bucket{event="CreateContainer",outcome="error",le="0.001"} 0
topolet_nri_event_seconds_bucket{event="CreateContainer",outcome="error",le="0.002"} 2
topolet_nri_event_seconds_bucket{event="CreateContainer",outcome="error",le="+Inf"} 2
topolet_nri_event_seconds_bucket{event="CreateContainer",outcome="ok",le="0.001"} 4
topolet_nri_event_seconds_bucket{event="CreateContainer",outcome="ok",le="0.002"} 8
topolet_nri_event_seconds_bucket{event="CreateContainer",outcome="ok",le="+Inf"} 8
topolet_nri_event_seconds_sum{event="CreateContainer",outcome="ok"} 0.02
topolet_nri_event_seconds_count{event="CreateContainer",outcome="ok"} 8
topolet_nri_event_seconds_bucket{event="StartContainer",outcome="ok",le="0.001"} 0
topolet_nri_event_seconds_bucket{event="StartContainer",outcome="ok",le="+Inf"} 1
`)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if e := got[0]; e.Event != "CreateContainer" || e.Count != 10 || e.Errors != 2 || e.P50ms < 1.1 || e.P50ms > 1.2 || e.P99IsMore || e.MeanMs != 2 {
		t.Errorf("%+v", e)
	}
	if e := got[1]; e.Count != 1 || !e.P99IsMore || e.P99ms != 1 {
		t.Errorf("%+v", e)
	}
}

func TestALogSaysWhetherAContainerStartedElsewhere(t *testing.T) {
	start := func(cpus string) harness.Line { return harness.Line{Event: "start", CPUsAllowed: cpus} }
	change := func(cpus string) harness.Line { return harness.Line{Event: "change", CPUsAllowed: cpus} }
	for _, test := range []struct {
		name  string
		lines []harness.Line
		well  bool
	}{
		{"on its CPUs all the time", []harness.Line{start("4-5"), change("4-5")}, true},
		{"moved after its start", []harness.Line{start("2-3"), change("4-5")}, false},
		{"on the shared pool", []harness.Line{start("0-5")}, false},
		{"without the first line", []harness.Line{change("4-5")}, false},
	} {
		if got := misplaced(test.lines, 2); (got == "") != test.well {
			t.Errorf("%s: %q", test.name, got)
		}
	}
}

func TestARunFailsWithAViolationOrWithNothing(t *testing.T) {
	good := func() *result {
		return &result{Runtime: []runtimeCall{{Call: startCall, Kind: sharedKind, Count: 10}}, Seen: sample.Result{Samples: 10, Exclusive: 2}}
	}
	for _, test := range []struct {
		name    string
		without bool
		change  func(*result)
		want    string
	}{
		{"all well", false, func(*result) {}, ""},
		{"a violation", false, func(r *result) { r.Seen.Violations = 1 }, "could run"},
		{"a start elsewhere", false, func(r *result) { r.Logs.Elsewhere = 1 }, "elsewhere"},
		{"violations without topolet", true, func(r *result) { r.Seen.Violations = 1 }, ""},
		{"no violation without topolet", true, func(*result) {}, "no violation"},
		{"no container", false, func(r *result) { r.Runtime[0].Count = 0 }, "no shared"},
		{"no exclusive container", false, func(r *result) { r.Seen.Exclusive = 0 }, "no exclusive"},
	} {
		r := good()
		test.change(r)
		err := r.verdict(options{without: test.without})
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
