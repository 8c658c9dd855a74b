// Command demo shows on this machine what topolet does: it brings up a
// Kubernetes node, installs topolet, starts a pod without a claim and one with a
// claim for an exclusive CPU, and reads from the kernel where their processes may
// run, before, during and after. In the end it removes everything again. It fails
// when something that it saw was not as it should be.
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

	"github.com/topolet/topolet/test/demo/internal/picture"
	"github.com/topolet/topolet/test/harness"
)

const (
	defaultState = "/var/lib/topolet-demo"
	// defaultPodCIDR is not the testbed's, so that both can be up.
	defaultPodCIDR = "10.216.0.0/24"
	// downLimit includes waiting for an interrupted start to end.
	downLimit = 3 * time.Minute

	exitWrong       = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

type options struct {
	state, podCIDR string
	keep           bool
}

func main() {
	opts, err := parse(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(exitUsage)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		fmt.Fprintln(os.Stderr, "\ndemo: interrupted; once more ends it at once")
		cancel(errInterrupted)
		<-signals
		fmt.Fprintf(os.Stderr, "\ndemo: ended at once; this removes what is left:\n  %s\n", downCommand(opts.state))
		os.Exit(exitInterrupted)
	}()
	err = run(ctx, opts)
	switch {
	case err == nil:
	case errors.Is(err, errInterrupted):
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(exitInterrupted)
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(exitWrong)
	}
}

func parse(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.state, "state", defaultState, "`folder` that holds everything of the cluster")
	flags.StringVar(&o.podCIDR, "pod-cidr", defaultPodCIDR, "IPv4 `network` of the pods")
	flags.BoolVar(&o.keep, "keep", false, "leave the cluster up, and say how to use it")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		err := fmt.Errorf("argument %q is not known: there are only flags, see --help", flags.Arg(0))
		fmt.Fprintln(out, "demo:", err)
		return o, err
	}
	return o, nil
}

// run shows everything, and takes down what it brought up however that ended.
func run(ctx context.Context, opts options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New(`not root, and only root can start a node: sudo env "PATH=$PATH" make demo`)
	}
	node, err := machine()
	if err != nil {
		return err
	}
	s := newStory(os.Stdout, picture.PaletteFor(os.Stdout))
	cluster, err := harness.New(opts.state, indented(os.Stderr))
	if err != nil {
		return err
	}
	defer func() {
		if errors.Is(context.Cause(ctx), errInterrupted) {
			err = errInterrupted // what it broke off is of no interest
		}
		err = errors.Join(err, end(context.WithoutCancel(ctx), s, cluster, opts))
		s.close(err)
	}()
	return (&demo{story: s, cluster: cluster, node: node, podCIDR: opts.podCIDR}).show(ctx)
}

// end takes the cluster down, or says how that is done.
func end(ctx context.Context, s *story, cluster *harness.Cluster, opts options) error {
	if opts.keep {
		s.last("Keep", "The cluster stays up. To look around, and to remove it in the end:")
		if kubeconfig := cluster.Var("KUBECONFIG"); kubeconfig != "" {
			s.command("export KUBECONFIG=" + kubeconfig)
			s.command(cluster.Var("TESTBED_KUBECTL") + " get pods,resourceslices -A")
		}
		s.command(downCommand(opts.state))
		return nil
	}
	s.last("Clean up", "Everything that was started or written is removed from this machine.")
	ctx, cancel := context.WithTimeout(ctx, downLimit)
	defer cancel()
	if err := cluster.Down(ctx); err != nil {
		return fmt.Errorf("not everything could be removed; this tries again: %s\n%w", downCommand(opts.state), err)
	}
	return nil
}

// downCommand is what a person types in the repository to remove the cluster.
func downCommand(state string) string {
	return "go -C test/testbed run ./cmd/testbed --state " + state + " down"
}
