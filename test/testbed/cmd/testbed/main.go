// Command testbed creates, inspects, disturbs and removes a one-node
// Kubernetes cluster on this host. See `testbed --help`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/test/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		if code, ok := errors.AsType[programError](err); ok {
			stop()
			os.Exit(int(code))
		}
		fmt.Fprintln(os.Stderr, "testbed:", err)
		stop()
		os.Exit(1)
	}
}

func root() *cobra.Command {
	o := testbed.Options{Progress: os.Stderr}
	cmd := &cobra.Command{
		Use:           "testbed",
		Short:         "A real one-node Kubernetes cluster on this host, for tests",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	f := cmd.PersistentFlags()
	f.StringVar(&o.State, "state", testbed.DefaultState, "folder that holds everything of the testbed")
	f.StringVar(&o.Source, "source", "", "folder of the testbed's Go module (default: looked for from here upwards)")
	f.StringVar(&o.Cache, "cache", "", "folder of built programs (default: in the user's cache folder)")
	cmd.AddCommand(packages(&o), build(&o), up(&o), status(&o), down(&o), load(&o), env(&o), kill(&o), start(&o), restart(&o), numa(&o))
	return cmd
}

// simple is a command that only calls a method.
func simple(o *testbed.Options, use, short string, do func(*testbed.Testbed, context.Context) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		t, err := testbed.New(*o)
		if err != nil {
			return err
		}
		return do(t, cmd.Context())
	}}
}

func packages(o *testbed.Options) *cobra.Command {
	return simple(o, "packages", "Install the Debian packages that building needs", (*testbed.Testbed).InstallPackages)
}

func build(o *testbed.Options) *cobra.Command {
	return simple(o, "build", "Build the programs that the cache does not have", (*testbed.Testbed).Build)
}

func up(o *testbed.Options) *cobra.Command {
	var gates, runtimeConfig string
	cmd := simple(o, "up", "Create the cluster, or repair it, or do nothing if it runs", (*testbed.Testbed).Up)
	cmd.Long = cmd.Short + ".\n\nFlags that are not given keep what an earlier up recorded in the state folder."
	f := cmd.Flags()
	f.StringVar(&o.NodeName, "node-name", "", "name of the node (default "+testbed.DefaultNodeName+")")
	f.StringVar(&o.PodCIDR, "pod-cidr", "", "IPv4 network of the pods (default "+testbed.DefaultPodCIDR+", or the next that is free)")
	f.StringVar(&gates, "feature-gates", "", "Name=true,Other=false for API server, controller manager, scheduler and kubelet")
	f.StringVar(&runtimeConfig, "runtime-config", "", "API versions to switch, as in the API server's flag")
	f.BoolVar(&o.WithoutTopolet, "without-topolet", false, "leave the topolet image alone, for a tree that does not compile")
	f.StringSliceVar(&o.TopoletTags, "topolet-tags", nil, "build tags of the topolet image, until the next up")
	f.IntVar(&o.APIServerPort, "api-server-port", 0, "API server's port on loopback (default 6443, or a free one)")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("runtime-config") {
			o.RuntimeConfig = &runtimeConfig
		}
		if !cmd.Flags().Changed("feature-gates") {
			return nil
		}
		var err error
		o.FeatureGates, err = testbed.ParseFeatureGates(gates)
		return err
	}
	return cmd
}

func down(o *testbed.Options) *cobra.Command {
	return simple(o, "down", "Remove the cluster and everything it left on this host", (*testbed.Testbed).Down)
}

func status(o *testbed.Options) *cobra.Command {
	var output string
	cmd := simple(o, "status", "Tell what runs; exit 1 unless all of it is healthy", func(t *testbed.Testbed, ctx context.Context) error {
		s, err := t.Status(ctx)
		if err != nil {
			return err
		}
		switch output {
		case "json":
			out := json.NewEncoder(os.Stdout)
			out.SetIndent("", "  ")
			err = out.Encode(s)
		case "text":
			err = printStatus(s)
		default:
			return fmt.Errorf("output %q: use text or json", output)
		}
		if err == nil && !s.Ready {
			err = fmt.Errorf("not ready: `testbed up` creates or repairs")
		}
		return err
	})
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func printStatus(s testbed.Status) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tPID\tSINCE\tSTATE")
	for _, c := range s.Components {
		pid, since, state := "-", "-", "healthy"
		if c.PID != 0 {
			pid = fmt.Sprint(c.PID)
			since = time.Since(c.Since).Round(time.Second).String()
		}
		if c.Name == "kubelet" && c.Healthy {
			state = "node " + s.Node + " Ready"
		}
		if c.Problem != "" {
			state = c.Problem
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", c.Name, pid, since, state)
	}
	fmt.Fprintf(w, "shims and containers\t%d\t\t\n", s.Other)
	return w.Flush()
}

func load(o *testbed.Options) *cobra.Command {
	return &cobra.Command{Use: "load IMAGE.tar...", Short: "Import image archives for the cluster's pods", Args: cobra.MinimumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		t, err := testbed.New(*o)
		if err != nil {
			return err
		}
		return t.Load(cmd.Context(), args...)
	}}
}

func env(o *testbed.Options) *cobra.Command {
	return simple(o, "env", "Print shell assignments that tell where everything is", func(t *testbed.Testbed, _ context.Context) error {
		vars, err := t.Env()
		if err != nil {
			return err
		}
		for _, v := range vars {
			fmt.Printf("export %s=%s\n", v.Name, v.Value)
		}
		return nil
	})
}

// component is a command that takes one component's name.
func component(o *testbed.Options, verb, short string, do func(t *testbed.Testbed, ctx context.Context, name string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " COMPONENT", Short: short, ValidArgs: testbed.Components(),
		Long: short + ".\n\nComponents: " + strings.Join(testbed.Components(), ", ") + ".",
		Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := testbed.New(*o)
			if err != nil {
				return err
			}
			return do(t, cmd.Context(), args[0])
		},
	}
}

func kill(o *testbed.Options) *cobra.Command {
	var name string
	cmd := component(o, "kill", "Send a signal to a component; it is not started again", func(t *testbed.Testbed, ctx context.Context, component string) error {
		full := strings.ToUpper(name)
		if !strings.HasPrefix(full, "SIG") {
			full = "SIG" + full
		}
		sig := unix.SignalNum(full)
		if sig == 0 {
			return fmt.Errorf("signal %q: use a name such as KILL, TERM or STOP", name)
		}
		return t.Kill(ctx, component, sig)
	})
	cmd.Flags().StringVarP(&name, "signal", "s", "KILL", "signal to send")
	return cmd
}

func start(o *testbed.Options) *cobra.Command {
	return component(o, "start", "Start a component that does not run and wait until it is ready", func(t *testbed.Testbed, ctx context.Context, name string) error {
		return t.Start(ctx, name)
	})
}

func restart(o *testbed.Options) *cobra.Command {
	return component(o, "restart", "End a component, start it again and wait until it is ready", func(t *testbed.Testbed, ctx context.Context, name string) error {
		return t.Restart(ctx, name)
	})
}
