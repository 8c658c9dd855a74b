package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
)

const exposition = `# HELP scheduler_scheduling_attempt_duration_seconds Scheduling attempt latency
# TYPE scheduler_scheduling_attempt_duration_seconds histogram
scheduler_scheduling_attempt_duration_seconds_bucket{profile="default-scheduler",result="scheduled",le="0.001"} 0
scheduler_scheduling_attempt_duration_seconds_bucket{profile="default-scheduler",result="scheduled",le="0.002"} 6
scheduler_scheduling_attempt_duration_seconds_bucket{profile="default-scheduler",result="scheduled",le="0.004"} 8
scheduler_scheduling_attempt_duration_seconds_bucket{profile="default-scheduler",result="scheduled",le="+Inf"} 8
scheduler_scheduling_attempt_duration_seconds_sum{profile="default-scheduler",result="scheduled"} 1
scheduler_scheduling_attempt_duration_seconds_bucket{profile="default-scheduler",result="error",le="0.001"} 0
scheduler_scheduling_attempt_duration_seconds_bucket{profile="default-scheduler",result="error",le="0.002"} 0
scheduler_scheduling_attempt_duration_seconds_bucket{profile="default-scheduler",result="error",le="0.004"} 0
scheduler_scheduling_attempt_duration_seconds_bucket{profile="default-scheduler",result="error",le="+Inf"} 2
scheduler_scheduling_algorithm_duration_seconds_bucket{le="0.001"} 10
scheduler_scheduling_algorithm_duration_seconds_bucket{le="+Inf"} 10
`

func TestTheSchedulersHistogramsAreReadAsPrometheusWould(t *testing.T) {
	m, err := parseMetrics([]byte(exposition))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		of   histogram
		q    float64
		want string
	}{
		{"in the middle of a bucket, over all results", m.attempts, 0.5, "1.8ms"},
		{"at a bucket's end", m.attempts, 0.6, "2ms"},
		{"in the bucket without an end", m.attempts, 0.99, "over 4ms"},
		{"in the first bucket", m.algorithm, 0.5, "500µs"},
	} {
		if got := test.of.quantile(test.q); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	if m.errors != 2 || m.unschedulable != 0 || m.attempts.count() != 10 {
		t.Errorf("%d errors, %d unschedulable, %d attempts", m.errors, m.unschedulable, m.attempts.count())
	}
	if got := m.since(m).attempts.quantile(0.5); got != "-" {
		t.Errorf("%s is a quantile of no observations", got)
	}
}

func TestBothModelsPublishTheSameCPUs(t *testing.T) {
	perNode := map[int64]int64{}
	for _, m := range models() {
		counts := map[int64]int64{}
		for _, d := range m.devices {
			n := int64(1)
			if capacity, ok := d.Capacity["topolet.dev/cpus"]; ok {
				n = capacity.Value.Value()
			}
			counts[*d.Attributes[deviceattribute.StandardDeviceAttributeNUMANode].IntValue] += n
			if len(d.ConsumesCounters) > 0 {
				t.Errorf("%s: %s needs counters, which have no slice", m.name, d.Name)
			}
		}
		if len(m.devices) > resourceapi.ResourceSliceMaxDevices {
			t.Errorf("%s: %d devices in a slice", m.name, len(m.devices))
		}
		for node, n := range counts {
			if n >= impossibleCPUs {
				t.Errorf("%s: %d CPUs are not impossible on NUMA node %d, which has %d", m.name, impossibleCPUs, node, n)
			}
			if before, ok := perNode[node]; ok && before != n {
				t.Errorf("%s: %d CPUs on NUMA node %d, and %d in the other model", m.name, n, node, before)
			}
			perNode[node] = n
		}
	}
	if len(perNode) != 8 {
		t.Errorf("%d NUMA nodes", len(perNode))
	}
}

func TestAPodIsBoundOnceAndNotBeforeItHasANode(t *testing.T) {
	events := watch.NewFakeWithChanSize(8, false)
	pod := func(name, node string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: node}}
	}
	events.Add(pod("pending", ""))
	events.Add(pod("a", ""))
	events.Modify(pod("a", "node"))
	events.Modify(pod("a", "node"))
	events.Add(pod("b", "node"))
	b := &boundPods{events: events, seen: map[string]bool{}}
	for _, want := range []string{"a", "b"} {
		if got, err := b.next(t.Context()); err != nil || got != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	errLimit := errors.New("the limit")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errLimit)
	defer cancel()
	if got, err := b.next(ctx); !errors.Is(err, errLimit) {
		t.Errorf("after all pods: %q, %v", got, err)
	}
	events.Stop()
	if got, err := b.next(t.Context()); err == nil {
		t.Errorf("after the watch: %q", got)
	}
}

func TestTheLastObjectIsCreatedLast(t *testing.T) {
	const n = 100
	order := make(chan int, 2*n)
	if err := inParallel(t.Context(), n, func(_ context.Context, i int) error { order <- i; return nil }); err != nil {
		t.Fatal(err)
	}
	close(order)
	seen, times, last := map[int]bool{}, len(order), -1
	for i := range order {
		seen[i], last = true, i
	}
	if len(seen) != n || times != n || last != n-1 {
		t.Errorf("%d of %d were done, %d times, and %d last", len(seen), n, times, last)
	}
	refused := errors.New("refused")
	err := inParallel(t.Context(), n, func(_ context.Context, i int) error {
		if i == 3 {
			return refused
		}
		return nil
	})
	if !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
}

func TestTheReportSaysWhatWasNotReached(t *testing.T) {
	m, err := parseMetrics([]byte(exposition))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	r := result{model: "some", pods: 100, impossible: 10, bound: 45, took: 90 * time.Second, metrics: m}
	if err := report(&text, options{nodes: 7}, []result{r}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"100", "45", "1m30s", "0.50"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %s in:\n%s", want, text.String())
		}
	}
}
