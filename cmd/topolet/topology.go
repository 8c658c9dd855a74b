package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/render"
	"github.com/topolet/topolet/topology/snapshot"
)

// outputs are the forms in which a machine can be shown.
var outputs = map[string]func(io.Writer, *topology.Machine) error{
	"tree": func(w io.Writer, m *topology.Machine) error { return render.Tree(w, m, pciNames) },
	"json": render.JSON,
}

func newTopologyCommand() *cobra.Command {
	var root, output string
	cmd := &cobra.Command{
		Use:   "topology",
		Short: "Show the machine: sockets, caches, cores, NUMA nodes, PCI devices",
		Long: `Show the machine as topolet sees it: sockets, dies, caches, cores and CPUs,
the NUMA nodes with their memory, and the PCI devices at the CPUs that they are
near to.

With --root the answer is about another machine, or an earlier time: the archive
that topolet snapshot made there, or a directory that holds a copy of that
machine's /sys.`,
		Example: `  topolet topology
  topolet topology --root snapshot.tar.gz --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write, known := outputs[output]
			if !known {
				return fmt.Errorf("--output %q is not known: it must be one of %s",
					output, strings.Join(slices.Sorted(maps.Keys(outputs)), ", "))
			}
			m, err := discover(root)
			if err != nil {
				return fmt.Errorf("--root %s: %w", root, err)
			}
			return write(cmd.OutOrStdout(), m)
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "directory or snapshot that is read in place of /")
	cmd.Flags().StringVarP(&output, "output", "o", "tree", "form of the answer: tree or json")
	return cmd
}

// discover reads the machine below a directory, or in a snapshot.
func discover(path string) (*topology.Machine, error) {
	root, err := snapshot.Open(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return topology.Discover(root)
}
