package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/topolet/topolet/topology/snapshot"
)

func newSnapshotCommand() *cobra.Command {
	var root, output string
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Save what describes this machine in a file that can be passed on",
		Long: `Save what describes this machine in one archive (tar.gz), which topolet topology
shows anywhere with --root.

The archive holds the few files of /sys that topolet reads to know the CPUs, caches,
NUMA nodes and PCI devices, and of these only what it understands. There are no
serial numbers, MAC addresses, host names, UUIDs or firmware tables in it; to see for
yourself: tar xzOf snapshot.tar.gz | less`,
		Example: `  topolet snapshot
  ssh node7 topolet snapshot --output - > node7.tar.gz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == "" {
				return fmt.Errorf(`--output "" is no place to write to: it must be the name of a file, or - for standard output`)
			}
			archive, err := capture(root)
			if err != nil {
				return fmt.Errorf("--root %s: %w", root, err)
			}
			if output == "-" {
				_, err := cmd.OutOrStdout().Write(archive)
				return err
			}
			if err := os.WriteFile(output, archive, 0o644); err != nil { //nolint:gosec // G306: it is there to be passed on
				return fmt.Errorf("--output: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "directory or snapshot that is read in place of /")
	cmd.Flags().StringVarP(&output, "output", "o", "snapshot.tar.gz", "file to write, - for standard output")
	return cmd
}

// capture returns the archive as a whole: a failure leaves no half of one.
func capture(path string) ([]byte, error) {
	root, err := snapshot.Open(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	tree, err := snapshot.Capture(root)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	err = tree.Archive(&archive)
	return archive.Bytes(), err
}
