//go:build e2e

// Package e2e tests topolet on a real cluster: API server, scheduler, kubelet,
// containerd, runc and the kernel of this machine. Each test makes its objects in
// a namespace of its own and leaves the node as it found it.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/topolet/topolet/test/harness"
)

var (
	state = flag.String("state", "/var/lib/topolet-e2e", "state `folder` of the testbed")
	pods  = flag.String("pod-cidr", "10.217.0.0/24", "IPv4 `network` of the pods")
	keep  = flag.Bool("keep", false, "leave the testbed up, for looking at it and for a quick next run")

	// cluster has topolet installed with default values.
	cluster *harness.Cluster
)

const (
	upLimit   = 40 * time.Minute // on a machine that has to build Kubernetes first
	downLimit = 2 * time.Minute
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: the testbed needs root: run as root, or leave out -tags e2e")
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), upLimit)
	defer cancel()
	var err error
	cluster, err = harness.Up(ctx, *state, os.Stderr, "--pod-cidr", *pods)
	if cluster != nil && !*keep {
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), downLimit)
			defer cancel()
			if err := cluster.Down(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "e2e:", err)
				code = 1
			}
		}()
	}
	if err == nil {
		err = cluster.Install(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return m.Run()
}
