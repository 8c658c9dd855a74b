package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/test/bench/churn/sample"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

const (
	progressInterval = 10 * time.Second
	finishLimit      = 5 * time.Minute
)

// bench is one run on a cluster that is up.
type bench struct {
	*harness.Cluster
	node     harness.Node
	options  options
	progress io.Writer
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, "churn: "+format+"\n", args...)
}

var (
	errOver   = errors.New("the time is over")
	errUnseen = errors.New("the sampler ended early")
)

// measure has pods come and go for the time of the run. The result is nil if there is
// none; it may come with an error that ended the run early.
func (b *bench) measure(ctx context.Context) (*result, error) {
	namespace := fmt.Sprintf("churn-%x", time.Now().UnixMilli())
	cores, err := b.threads()
	if err != nil {
		return nil, err
	}
	o, err := b.startObserver(ctx, filepath.Join(b.Var("TESTBED_STATE"), namespace))
	if err != nil {
		return nil, err
	}
	l := &load{bench: b, namespace: namespace, observer: o, cores: cores, starting: map[string]chan struct{}{
		sharedKind: make(chan struct{}, b.options.starting), exclusiveKind: make(chan struct{}, b.options.starting),
	}}
	r := newResult(b.options)
	failed := l.loadFor(ctx, r)
	interrupted := ctx.Err() != nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishLimit)
	defer cancel()
	if interrupted {
		if b.options.keep {
			_, err = o.end(ctx)
			err = errors.Join(err, l.remove(ctx))
		}
		return nil, errors.Join(failed, err)
	}
	err = b.finish(ctx, o, namespace, r)
	if b.options.keep {
		err = errors.Join(err, l.remove(ctx))
	}
	return r, errors.Join(failed, err)
}

// loadFor runs the load for its time and counts what became of it.
func (l *load) loadFor(ctx context.Context, r *result) error {
	watching, cancelWatch := context.WithCancel(ctx)
	defer cancelWatch()
	var err error
	if err = l.prepare(ctx); err != nil {
		return err
	}
	if l.pods, err = watchPods(watching, l.Client, l.namespace); err != nil {
		return err
	}
	// Not a deadline: the client refuses requests that it could send only after one.
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := time.AfterFunc(l.options.duration, func() { cancel(errOver) })
	defer over.Stop()
	begin := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- l.run(limited) }()
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-ticker.C:
			if seen := l.tell(time.Since(begin)); seen.Ended {
				cancel(errUnseen)
			}
		}
	}
	r.Seconds = time.Since(begin).Seconds()
	now := l.pods.count()
	r.Created, r.Running, r.Pending, r.Restarts = now.created, now.running, now.pending, now.restarts
	r.Logs = l.logged()
	if errors.Is(err, errOver) {
		return nil
	}
	return err
}

// tell says how far the run is, and returns what the sampler has seen.
func (l *load) tell(after time.Duration) sample.Result {
	now := l.pods.count()
	seen, err := l.observer.result()
	if err != nil {
		l.say("%v", err)
	}
	l.say("%4.0fs: %d containers created, %d running, %d claims pending, %d violations, %d logs of a start elsewhere; %d samples, longest gap %v",
		after.Seconds(), now.created, now.running, now.pending, seen.Violations, l.logged().Elsewhere, seen.Samples, seen.LongestGap.Round(time.Millisecond))
	return seen
}

// finish asks all who watched.
func (b *bench) finish(ctx context.Context, o *observer, namespace string, r *result) error {
	seen, err := o.end(ctx)
	r.Seen = seen
	if !b.options.without {
		// The daemon is on the network of its node.
		page, failed := o.fetch(ctx, b.Var("TOPOLET_HTTP")+"/metrics")
		if failed == nil {
			r.NRI, failed = readNRIEvents(page)
		}
		err = errors.Join(err, failed, b.complaints(ctx, r))
	}
	log, failed := b.node.ReadFile(filepath.Join(b.Var("TESTBED_LOGS"), "containerd.log"))
	if failed != nil {
		return errors.Join(err, fmt.Errorf("log of containerd: %w", failed))
	}
	times, failed := readRuntimeLog(string(log), namespace)
	r.take(times)
	return errors.Join(err, failed)
}

// complaints counts the errors in the log of topolet on the node, as klog marks them.
func (b *bench) complaints(ctx context.Context, r *result) error {
	daemons := b.Client.CoreV1().Pods(harness.Namespace)
	list, err := daemons.List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + b.node.Name})
	if err != nil {
		return fmt.Errorf("topolet's pod: %w", err)
	}
	for _, pod := range list.Items {
		log, err := daemons.GetLogs(pod.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
		if err != nil {
			return fmt.Errorf("topolet's log: %w", err)
		}
		for line := range strings.Lines(string(log)) {
			if !strings.HasPrefix(line, "E") {
				continue
			}
			r.Complaints++
			if r.Complaint == "" {
				r.Complaint = strings.TrimSpace(line)
			}
		}
	}
	return nil
}

// threads is how many CPUs a core has on the node.
func (b *bench) threads() (int, error) {
	const file = "/sys/devices/system/cpu/cpu0/topology/thread_siblings_list"
	data, err := b.node.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("threads of a core: %w", err)
	}
	siblings, err := topology.ParseCPUSet(strings.TrimSpace(string(data)))
	if err != nil {
		return 0, fmt.Errorf("threads of a core: %w", err)
	}
	return siblings.Size(), nil
}
