// Command install puts topolet, as it is in this tree, on the testbed with its
// chart: for looking around, where tests and the demonstration remove all again.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/topolet/topolet/test/harness"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := install(ctx, "/var/lib/topolet-testbed"); err != nil {
		fmt.Fprintln(os.Stderr, "install:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to cancel
	}
}

func install(ctx context.Context, state string) error {
	cluster, err := harness.Up(ctx, state, os.Stderr)
	if err != nil {
		return err
	}
	if err := cluster.Install(ctx); err != nil {
		return err
	}
	fmt.Printf("topolet runs on every node. Look at it with:\n\n  export KUBECONFIG=%s\n  %s get resourceslices,pods --all-namespaces\n",
		cluster.Var("KUBECONFIG"), cluster.Var("TESTBED_KUBECTL"))
	return nil
}
