// Command churn has containers come and go on a real node, with and without claims for
// CPUs, and finds out whether the claimed CPUs were ever anyone else's, and what that
// costs. The cluster is the testbed's; the node is this machine, or the emulated one with
// many NUMA nodes.
//
// Data passes through it like this:
//
//	load.go        pods that live for a random time and are replaced, and their logs
//	pods.go        what the API server says of them
//	observer.go    a program on the node that looks at all cgroups (package sample)
//	runtimelog.go  how long containerd took to create and to start each container
//	nri.go         how long topolet took of that, by its own metrics
//	report.go      the progress, the table and the line of JSON
//
// The emulated machine takes seconds to start a container. To have all of them up, give it
// time and let them live: -machine numa -starting 2 -life 15m -for 25m. With few CPUs reserved
// the claims leave everything else, the runtime and topolet too, one of its slow CPUs, so that
// it has a NUMA node of them by default.
//
// With -without the same pods come and go without topolet. What starting containers takes
// longer with it is then the difference of two runs, and the observer shows that it can
// find something: exclusive pods share their CPUs with everyone.
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
	"time"

	"github.com/topolet/topolet/test/harness"
)

const (
	hostMachine = "host"
	numaMachine = "numa"

	upLimit   = 40 * time.Minute // on a machine that has to build Kubernetes first
	downLimit = 5 * time.Minute
)

type options struct {
	state, podCIDR       string
	machine, enforcement string
	layout, reserved     string
	without, keep        bool
	duration, life       time.Duration
	containers, perPod   int
	exclusive, starting  int
	seed                 uint64
	json                 string
}

func main() {
	var o options
	flag.StringVar(&o.state, "state", "/var/lib/topolet-churn", "`folder` that holds everything of the cluster")
	flag.StringVar(&o.podCIDR, "pod-cidr", "10.225.0.0/24", "IPv4 `network` of the pods")
	flag.StringVar(&o.machine, "machine", hostMachine, "the node: host is this machine, numa an emulated one")
	flag.StringVar(&o.layout, "layout", "many-containers", "shape of the emulated machine")
	flag.StringVar(&o.reserved, "reserved", "", "the chart's config.reservedCPUs; empty is its default, and 0-3 on the emulated machine")
	flag.StringVar(&o.enforcement, "enforcement", "", "the chart's config.enforcement: Auto, Kernel or Runtime")
	flag.BoolVar(&o.without, "without", false, "do not install topolet; exclusive pods have no claims then")
	flag.BoolVar(&o.keep, "keep", false, "leave the cluster up; its metrics then count several runs")
	flag.DurationVar(&o.duration, "for", 10*time.Minute, "how long pods come and go")
	flag.DurationVar(&o.life, "life", 20*time.Second, "how long a pod runs on average, from half of that to half as much again")
	flag.IntVar(&o.containers, "containers", 200, "how many shared containers there are")
	flag.IntVar(&o.perPod, "per-pod", 10, "how many of them are in a pod; a kubelet takes 110 pods")
	flag.IntVar(&o.exclusive, "exclusive", 20, "how many pods with a claim for one core each there are, running or pending")
	flag.IntVar(&o.starting, "starting", 4, "how many pods of each kind may be started at the same time; 1 for the emulated machine")
	flag.Uint64Var(&o.seed, "seed", 1, "of the pods' lives")
	flag.StringVar(&o.json, "json", "", "append the result to this `file`, as a line of JSON")
	flag.Parse()
	if o.machine == numaMachine && o.reserved == "" {
		o.reserved = "0-3"
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Further signals change nothing: removing the cluster has a limit of its own.
	defer stop()
	if err := run(ctx, os.Stdout, os.Stderr, o); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "churn:", err)
		os.Exit(1)
	}
}

func (o options) validate() error {
	switch {
	case os.Geteuid() != 0:
		return errors.New(`not root, and only root can start a cluster: sudo env "PATH=$PATH" make bench-churn`)
	case o.machine != hostMachine && o.machine != numaMachine:
		return fmt.Errorf("-machine %q: must be %s or %s", o.machine, hostMachine, numaMachine)
	case o.without && o.enforcement != "":
		return fmt.Errorf("-enforcement %q: there is nobody to enforce anything with -without", o.enforcement)
	case o.duration <= 0 || o.life <= 0:
		return fmt.Errorf("-for %v -life %v: both must be more than nothing", o.duration, o.life)
	case o.perPod < 1 || o.containers < o.perPod || o.containers%o.perPod != 0:
		return fmt.Errorf("-containers %d: must be a multiple of -per-pod, which is %d", o.containers, o.perPod)
	case o.starting < 1:
		return fmt.Errorf("-starting %d: must be at least 1", o.starting)
	case o.exclusive < 1 || o.sharedPods()+o.exclusive > maxPods:
		return fmt.Errorf("-exclusive %d and %d pods of shared containers: there must be one exclusive pod at least, and %d pods at most", o.exclusive, o.sharedPods(), maxPods)
	}
	return nil
}

// maxPods is the kubelet's default limit of 110, less topolet's own pod and some that are
// being replaced.
const maxPods = 100

func (o options) sharedPods() int { return o.containers / o.perPod }

// run starts the cluster, measures, reports and removes the cluster.
func run(ctx context.Context, out, progress io.Writer, o options) (err error) {
	if err := o.validate(); err != nil {
		return err
	}
	testbed, err := harness.New(o.state, progress)
	if err != nil {
		return err
	}
	if !o.keep {
		defer func() {
			fmt.Fprintln(progress, "churn: removing the cluster")
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
			defer cancel()
			err = errors.Join(err, testbed.Down(ctx))
		}()
	}
	node, err := up(ctx, testbed, o)
	if err != nil {
		return err
	}
	b := &bench{Cluster: testbed, node: node, options: o, progress: progress}
	r, err := b.measure(ctx)
	if r == nil {
		return err
	}
	return errors.Join(err, r.report(out, o), r.verdict(o))
}

// up starts the cluster, with topolet unless it is to be without, and returns the node
// that is measured.
func up(ctx context.Context, testbed *harness.Cluster, o options) (harness.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, upLimit)
	defer cancel()
	flags := []string{}
	if o.without {
		flags = append(flags, "--without-topolet")
	}
	if err := testbed.Up(ctx, append([]string{"--pod-cidr", o.podCIDR}, flags...)...); err != nil {
		return harness.Node{}, err
	}
	node := testbed.Node()
	if o.machine == numaMachine {
		if err := testbed.NUMAUp(ctx, append([]string{"--layout", o.layout}, flags...)...); err != nil {
			return harness.Node{}, err
		}
		node = testbed.NUMANode()
	}
	if o.without {
		return node, nil
	}
	values := []string{}
	if o.enforcement != "" {
		values = append(values, "config.enforcement="+o.enforcement)
	}
	if o.reserved != "" {
		values = append(values, "config.reservedCPUs="+o.reserved)
	}
	return node, testbed.Install(ctx, values...)
}
