// Command memory measures the memory of `topolet run` on a large and busy node: a
// machine of 512 CPUs with hundreds of containers, some of which hold claims.
//
// The daemon is a process of its own and does everything it does on a node. Around
// it are the machine, as files; an API server that has what the daemon asks for;
// the kubelet's side of its sockets; and the container runtime's, by NRI's own
// code, which carries out what it is told by writing cgroup files.
//
// The node is filled by a first daemon. What is measured is the second: it finds a
// checkpoint and running containers, as after an update of topolet.
//
// Also printed is how long the daemon took to answer, as the kubelet and the runtime
// see it.
//
// The runtime of Go keeps memory for each CPU that it may use. So that any machine
// can stand for one of 512 CPUs, the daemon is told by GOMAXPROCS how many they are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/topolet/topolet/topology/topologytest"
)

const (
	nodeName = "worker"
	claims   = 20
	// claimed is how many CPUs each claim has.
	claimed   = 8
	numaNodes = 8
)

// machine has 2 sockets of 128 cores with 2 threads each, and 72 PCI functions.
var machine = topologytest.Spec{Sockets: 2, NUMAPerSocket: numaNodes / 2, L3PerNUMA: 4, CoresPerL3: 8, Threads: 2, PCI: roots()}

// roots are one at each NUMA node.
func roots() []topologytest.PCIRoot {
	var roots []topologytest.PCIRoot
	for node := range uint32(numaNodes) {
		roots = append(roots, topologytest.PCIRoot{
			NUMANode: int(node), Domain: node,
			Functions: []topologytest.PCIFunction{
				topologytest.HostBridge(), topologytest.Port(topologytest.NVMe()),
				topologytest.Port(topologytest.GPU()), topologytest.Port(topologytest.NIC(8, 2)),
			},
		})
	}
	return roots
}

type options struct {
	topolet    string
	containers int
	churn      int
	idle       time.Duration
	maxProcs   int
}

func main() {
	var o options
	flag.StringVar(&o.topolet, "topolet", "bin/topolet", "the program that is measured")
	flag.IntVar(&o.containers, "containers", 500, "containers on the node")
	flag.IntVar(&o.churn, "churn", 200, "how many containers come and go; with each fourth a claim")
	flag.DurationVar(&o.idle, "idle", 150*time.Second, "how long nothing happens at the end; the runtime of Go collects its garbage after two minutes at the latest")
	flag.IntVar(&o.maxProcs, "gomaxprocs", 4, "the daemon's GOMAXPROCS: 4 is the chart's, 512 what Go takes by itself on such a machine")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "memory:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	if o.containers < claims {
		return fmt.Errorf("-containers %d: must be at least %d, for so many hold claims", o.containers, claims)
	}
	// The sockets in it have short paths.
	dir, err := os.MkdirTemp("", "memory-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	n, err := newNode(ctx, dir)
	if err != nil {
		return err
	}
	defer n.close()

	if err := fill(ctx, n, o); err != nil {
		return fmt.Errorf("fill the node: %w", err)
	}
	return measure(ctx, n, o, out)
}

// fill has a first daemon prepare the claims and see their containers start.
func fill(ctx context.Context, n *node, o options) (err error) {
	for range o.containers - claims {
		if err := n.runtime.found(n.newContainer("shared")); err != nil {
			return err
		}
	}
	d, err := n.start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := n.connect(ctx, d); err != nil {
		return err
	}
	for i := range claims {
		c, err := n.prepare(ctx, i)
		if err != nil {
			return err
		}
		if err := n.runtime.run(ctx, c); err != nil {
			return err
		}
	}
	return n.check(ctx, d, o)
}

// measure has a second daemon take over the node, and prints what it needs.
func measure(ctx context.Context, n *node, o options, out io.Writer) (err error) {
	n.runtime.close()
	clear(n.took)
	d, err := n.start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	t := table{out: out, daemon: d}
	if err := t.head(o); err != nil {
		return err
	}
	if err := d.wait(ctx, "the daemon to have started", "/healthz"); err != nil {
		return err
	}
	if err := t.row(ctx, "started, without a runtime"); err != nil {
		return err
	}
	if err := n.connect(ctx, d); err != nil {
		return err
	}
	if err := n.check(ctx, d, o); err != nil {
		return err
	}
	if err := t.row(ctx, "synchronised"); err != nil {
		return err
	}
	for i := range o.churn {
		if err := n.churn(ctx, i); err != nil {
			return err
		}
	}
	if err := n.check(ctx, d, o); err != nil {
		return err
	}
	if err := t.row(ctx, "after the churn"); err != nil {
		return err
	}
	if err := d.idle(ctx, o.idle); err != nil {
		return err
	}
	if err := t.row(ctx, fmt.Sprintf("after %s of idling", o.idle)); err != nil {
		return err
	}
	n.took.print(out)
	return n.api.unanswered()
}
