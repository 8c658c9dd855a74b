// Command topolet gives Kubernetes workloads CPUs, memory and devices that sit
// together on the machine.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set when a release is built.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	if err := newRootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "topolet:", err)
		os.Exit(1)
	}
}

// newRootCommand returns the command with all its subcommands. They return their
// errors; main alone prints them and ends the process.
func newRootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "topolet",
		Short:         "CPUs, memory and devices that sit together, for Kubernetes workloads",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		// An error is one line.
		DisableSuggestions: true,
	}
	cmd.AddCommand(newRunCommand(), newTopologyCommand(), newSnapshotCommand(), newExplainCommand(), newStatusCommand(), newProfileCommand(), newProbeCommand(),
		newDevLinksCommand(), newProgramFPGACommand())
	return cmd
}
