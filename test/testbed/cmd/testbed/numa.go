package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/topolet/topolet/test/testbed"
	"github.com/topolet/topolet/test/testbed/numa/channel"
)

// programError is the exit code of a program that failed in the machine.
type programError int

func (e programError) Error() string {
	return fmt.Sprintf("the program ended with exit code %d", int(e))
}

func numa(o *testbed.Options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "numa",
		Short: "A virtual machine with many NUMA nodes, as a second node of the cluster",
	}
	cmd.AddCommand(
		simple(o, "packages", "Install the Debian packages that the machine needs", (*testbed.Testbed).InstallNUMAPackages),
		numaUp(o), numaStatus(o), numaExec(o),
		device(o, "unplug", "Take a PCI device out of the machine", (*testbed.Testbed).NUMAUnplug),
		device(o, "plug", "Put an unplugged PCI device back", (*testbed.Testbed).NUMAPlug),
		simple(o, "reset", "Cut the machine's power, boot it again and wait until its node is Ready", (*testbed.Testbed).NUMAReset),
		simple(o, "down", "End the machine and remove its node from the cluster", (*testbed.Testbed).NUMADown),
	)
	return cmd
}

func numaUp(o *testbed.Options) *cobra.Command {
	var n testbed.NUMAOptions
	cmd := simple(o, "up", "Boot the machine, or repair it, or do nothing if its node is Ready", func(t *testbed.Testbed, ctx context.Context) error {
		return t.NUMAUp(ctx, n)
	})
	f := cmd.Flags()
	f.StringVar(&n.Layout, "layout", "", "shape of the machine: "+strings.Join(testbed.NUMALayouts(), " or ")+" (default "+testbed.NUMALayouts()[0]+")")
	f.StringVar(&n.NodeName, "node-name", "", "name of its node (default "+testbed.DefaultNUMANode+")")
	f.StringToStringVar(&n.Images, "image", nil, "further image for its pods, as NAME=PROGRAM: the full name, and the path of a static program")
	f.BoolVar(&o.WithoutTopolet, "without-topolet", false, "leave topolet and its image out, for a tree that does not compile")
	return cmd
}

func numaStatus(o *testbed.Options) *cobra.Command {
	return simple(o, "status", "Describe the machine as JSON; exit 1 unless its node is Ready", func(t *testbed.Testbed, ctx context.Context) error {
		s, err := t.NUMAStatus(ctx)
		if err != nil {
			return err
		}
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		if err := out.Encode(s); err != nil {
			return err
		}
		if !s.Ready {
			return fmt.Errorf("not ready: `testbed numa up` creates or repairs")
		}
		return nil
	})
}

func numaExec(o *testbed.Options) *cobra.Command {
	var stdin bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "exec [flags] -- PROGRAM [ARGUMENT...]", Short: "Run a program in the machine; exit with its exit code", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := testbed.New(*o)
			if err != nil {
				return err
			}
			command := channel.Command{Argv: args, TimeoutSeconds: timeout.Seconds()}
			if stdin {
				input, err := io.ReadAll(os.Stdin)
				if err != nil {
					return fmt.Errorf("read the standard input: %w", err)
				}
				command.Stdin = string(input)
			}
			result, err := t.NUMAExec(cmd.Context(), command)
			if err != nil {
				return err
			}
			fmt.Fprint(os.Stdout, result.Stdout)
			fmt.Fprint(os.Stderr, result.Stderr)
			switch {
			case result.TimedOut:
				return fmt.Errorf("the program was ended after %v: give it longer with --timeout", timeout)
			case result.ExitCode != 0:
				return programError(result.ExitCode)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&stdin, "stdin", "i", false, "pass the standard input on, all of it before the start")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "end the program after this time")
	return cmd
}

// device is a command that takes the name of a PCI device.
func device(o *testbed.Options, verb, short string, do func(t *testbed.Testbed, ctx context.Context, id string) error) *cobra.Command {
	return &cobra.Command{Use: verb + " DEVICE", Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		t, err := testbed.New(*o)
		if err != nil {
			return err
		}
		return do(t, cmd.Context(), args[0])
	}}
}
