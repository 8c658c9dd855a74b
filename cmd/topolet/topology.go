package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/render"
	"github.com/topolet/topolet/topology/snapshot"
)

// outputs are the forms in which a machine can be shown. Who holds what is for the
// picture only.
var outputs = map[string]func(io.Writer, *topology.Machine, []render.Holding) error{
	"tree": func(w io.Writer, m *topology.Machine, _ []render.Holding) error {
		if wantsColour(w) {
			return render.ColourTree(w, m, pciNames)
		}
		return render.Tree(w, m, pciNames)
	},
	"json": func(w io.Writer, m *topology.Machine, _ []render.Holding) error { return render.JSON(w, m) },
	"svg": func(w io.Writer, m *topology.Machine, holdings []render.Holding) error {
		return render.SVG(w, m, pciNames, holdings)
	},
}

func newTopologyCommand() *cobra.Command {
	var root, output, grants string
	cmd := &cobra.Command{
		Use:   "topology",
		Short: "Show the machine: sockets, caches, cores, NUMA nodes, PCI devices",
		Long: `Show the machine as topolet sees it: sockets, dies, caches, cores and CPUs,
the NUMA nodes with their memory, and the PCI devices at the CPUs that they are
near to.

With --root the answer is about another machine, or an earlier time: the archive
that topolet snapshot made there, or a directory that holds a copy of that
machine's /sys.

With --output svg the answer is a picture, and with --grants it also shows which
claim holds which CPUs, as the checkpoint of a running topolet has it.`,
		Example: `  topolet topology
  topolet topology --root snapshot.tar.gz --output json
  topolet topology --output svg --grants /var/lib/topolet/checkpoint.json > node.svg`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write, known := outputs[output]
			if !known {
				return fmt.Errorf("--output %q is not known: it must be one of %s",
					output, strings.Join(slices.Sorted(maps.Keys(outputs)), ", "))
			}
			if grants != "" && output != "svg" {
				return fmt.Errorf("--grants %s has no effect with --output %s: it needs --output svg", grants, output)
			}
			m, err := discover(root)
			if err != nil {
				return fmt.Errorf("--root %s: %w", root, err)
			}
			held, err := holdings(grants)
			if err != nil {
				return fmt.Errorf("--grants %s: %w", grants, err)
			}
			return write(cmd.OutOrStdout(), m, held)
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "directory or snapshot that is read in place of /")
	cmd.Flags().StringVarP(&output, "output", "o", "tree", "form of the answer: tree, json or svg")
	cmd.Flags().StringVar(&grants, "grants", "", "checkpoint of topolet; the picture shows who holds what")
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

// holdings reads who holds what from a checkpoint; nil is without one.
func holdings(checkpoint string) ([]render.Holding, error) {
	grants, err := heldGrants(checkpoint)
	if checkpoint == "" || err != nil {
		return nil, err
	}
	held := []render.Holding{}
	for _, g := range grants {
		held = append(held, render.Holding{Name: g.Namespace + "/" + g.Name, CPUs: g.CPUs()})
	}
	return held, nil
}

// heldGrants reads the grants of a checkpoint; none without one.
func heldGrants(checkpoint string) ([]allocator.Grant, error) {
	if checkpoint == "" {
		return nil, nil
	}
	// To the daemon, a file that is not there means a node without claims.
	if _, err := os.Stat(checkpoint); err != nil {
		return nil, err
	}
	return allocator.FileStore{Path: checkpoint}.Load()
}
