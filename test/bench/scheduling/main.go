// Command scheduling measures how fast Kubernetes' own scheduler serves claims for
// CPUs in a large cluster, with the devices that topolet publishes, and with one
// device for each CPU of the same machines. API server, etcd and scheduler are real.
// The nodes are objects only: nothing runs on them.
//
// Data passes through it like this:
//
//	model.go      the two ways to publish a machine, and a claim for each
//	cluster.go    a new testbed with the nodes, their slices and the device classes
//	measure.go    pods with a claim each, and when they are bound
//	histogram.go  the scheduler's own latencies
//
// Each measurement has a cluster of its own, which is removed after it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"
)

type options struct {
	state, podCIDR, nodeName string
	nodes, pods              int
	limit                    time.Duration
}

// mixes are which part of the pods asks for what no machine has: one in so many, or
// none.
var mixes = []int{0, 10}

func main() {
	var o options
	flag.StringVar(&o.state, "state", "/var/lib/topolet-bench", "`folder` that holds everything of the cluster")
	flag.StringVar(&o.podCIDR, "pod-cidr", "10.218.0.0/24", "IPv4 `network` of the pods")
	flag.StringVar(&o.nodeName, "node-name", "bench-node", "name of the cluster's one real node")
	flag.IntVar(&o.nodes, "nodes", 1000, "how many nodes are simulated")
	flag.IntVar(&o.pods, "pods", 500, "how many pods with a claim are created, at most one for each node")
	flag.DurationVar(&o.limit, "limit", 3*time.Minute, "after which a measurement ends, however many pods are bound")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Further signals change nothing: removing the cluster has a limit of its own.
	defer stop()
	if err := run(ctx, os.Stdout, os.Stderr, o); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "scheduling:", err)
		os.Exit(1)
	}
}

func (o options) validate() error {
	switch {
	case os.Geteuid() != 0:
		return errors.New(`not root, and only root can start a cluster: sudo env "PATH=$PATH" make bench-scheduling`)
	case o.nodes < 1:
		return fmt.Errorf("-nodes %d: must be at least 1", o.nodes)
	case o.pods < 1 || o.pods > o.nodes:
		return fmt.Errorf("-pods %d: must be from 1 to -nodes, which is %d: each node has room for one at least", o.pods, o.nodes)
	case o.limit <= 0:
		return fmt.Errorf("-limit %v: must be more than nothing", o.limit)
	}
	return nil
}

// run measures everything and prints a line for each measurement. After an error it
// prints those that were done.
func run(ctx context.Context, out, progress io.Writer, o options) error {
	if err := o.validate(); err != nil {
		return err
	}
	var results []result
	var failed error
	for _, m := range models() {
		for _, mix := range mixes {
			r, err := measureOnce(ctx, progress, o, m, mix)
			if err != nil {
				failed = fmt.Errorf("%s: %w", m.name, err)
				break
			}
			results = append(results, r)
		}
		if failed != nil {
			break
		}
	}
	if len(results) == 0 {
		return failed
	}
	return errors.Join(failed, report(out, o, results))
}

// report prints a table. The buckets of the latencies double, so they are rough.
func report(w io.Writer, o options, results []result) error {
	fmt.Fprintf(w, "\n%d nodes; pods that ask for %d CPUs of one NUMA node each\n\n", o.nodes, claimCPUs)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "published\tpods\timpossible\tbound\tin\tclaims/s\talgorithm p50\tp99\tattempt p50\tp99\tunschedulable\terrors\t")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%.2f\t%s\t%s\t%s\t%s\t%d\t%d\t\n",
			r.model, r.pods, r.impossible, r.bound, r.took.Round(100*time.Millisecond), r.rate(),
			r.algorithm.quantile(0.5), r.algorithm.quantile(0.99), r.attempts.quantile(0.5), r.attempts.quantile(0.99),
			r.unschedulable, r.errors)
	}
	return t.Flush()
}
