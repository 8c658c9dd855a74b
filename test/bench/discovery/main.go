// Command discovery compares how long topolet and hwloc's lstopo take to read the
// same machines: each archive of a folder is unpacked, and both commands are run
// on it in turn, as a user would run them.
//
//	topolet topology --root ROOT --output json
//	lstopo-no-graphics --of xml       with HWLOC_FSROOT=ROOT
//
// topolet is also the node's daemon, and every start of it initialises the
// libraries of Kubernetes. So the same discovery is measured a second time alone,
// in a process that has nothing but it: this program, run with -read.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/render"
	"github.com/topolet/topolet/topology/topologytest"
)

const lstopo = "lstopo-no-graphics"

func main() {
	var o options
	flag.StringVar(&o.topolet, "topolet", "bin/topolet", "the program that is measured")
	flag.StringVar(&o.machines, "machines", "../shared/fixtures/topology", "folder with a .tar.gz for each machine")
	flag.IntVar(&o.runs, "runs", 20, "how often each command is run on each machine; the fastest counts")
	flag.StringVar(&o.read, "read", "", "measure nothing, but print the machine below this root as JSON")
	flag.BoolVar(&o.version, "version", false, "do nothing: the start alone is measured")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "discovery:", err)
		os.Exit(1)
	}
}

type options struct {
	topolet, machines string
	runs              int
	read              string
	version           bool
}

func run(ctx context.Context, o options) error {
	switch {
	case o.version:
		return nil
	case o.read != "":
		return printMachine(o.read)
	}
	return compare(ctx, o)
}

// compare measures all machines, and reports.
func compare(ctx context.Context, o options) (err error) {
	if o.runs < 1 {
		return fmt.Errorf("-runs %d: must be at least 1", o.runs)
	}
	if _, err := exec.LookPath(lstopo); err != nil {
		return fmt.Errorf("%s is not installed: apt-get install hwloc-nox", lstopo)
	}
	archives, err := filepath.Glob(filepath.Join(o.machines, "*.tar.gz"))
	if err != nil {
		return err
	}
	if len(archives) == 0 {
		return fmt.Errorf("-machines %s: no .tar.gz there", o.machines)
	}
	folder, err := os.MkdirTemp("", "discovery-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()

	self, err := os.Executable()
	if err != nil {
		return err
	}
	start := comparison{name: "nothing but the start"}
	if err := start.measure(ctx, o.runs, nil,
		[]string{o.topolet, "--version"}, []string{self, "-version"}, []string{lstopo, "--version"}); err != nil {
		return err
	}
	var all []comparison
	for _, archive := range archives {
		c := comparison{name: strings.TrimSuffix(filepath.Base(archive), ".tar.gz")}
		root := filepath.Join(folder, c.name)
		if err := unpack(archive, root); err != nil {
			return fmt.Errorf("%s: %w", archive, err)
		}
		// Only the files: on a machine of another kind, lstopo would go on to ask
		// this one's CPUs.
		env := append(os.Environ(), "HWLOC_FSROOT="+root, "HWLOC_COMPONENTS=linux,stop")
		if err := c.measure(ctx, o.runs, env,
			[]string{o.topolet, "topology", "--root", root, "--output", "json"},
			[]string{self, "-read", root},
			[]string{lstopo, "--of", "xml"}); err != nil {
			return err
		}
		all = append(all, c)
	}
	report(os.Stdout, start, all)
	return nil
}

// printMachine is what topolet topology does, without the rest of topolet.
func printMachine(dir string) error {
	root, err := topology.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	m, err := topology.Discover(root)
	if err != nil {
		return err
	}
	return render.JSON(os.Stdout, m)
}

// comparison is the fastest run of each command on one machine.
type comparison struct {
	name                   string
	topolet, alone, lstopo time.Duration
}

// measure runs the commands in turn, so that all suffer the same from what else
// the host does.
func (c *comparison) measure(ctx context.Context, runs int, env []string, topolet, alone, lstopo []string) error {
	for i := range runs {
		for _, side := range []struct {
			args []string
			best *time.Duration
		}{{topolet, &c.topolet}, {alone, &c.alone}, {lstopo, &c.lstopo}} {
			cmd := exec.CommandContext(ctx, side.args[0], side.args[1:]...)
			cmd.Env = env
			begin := time.Now()
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
			}
			if took := time.Since(begin); i == 0 || took < *side.best {
				*side.best = took
			}
		}
	}
	return nil
}

func unpack(archive, root string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	tree, err := topologytest.Untar(f)
	if err != nil {
		return err
	}
	return tree.Write(root)
}

// report prints the times and the ratios to lstopo's for each machine. A ratio of
// 1 is as fast as lstopo, less is faster.
func report(w io.Writer, start comparison, all []comparison) {
	const row = "%-45s %9s %9s %9s %8s %8s\n"
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1e3) }
	whole := func(c comparison) float64 { return c.topolet.Seconds() / c.lstopo.Seconds() }
	alone := func(c comparison) float64 { return c.alone.Seconds() / c.lstopo.Seconds() }
	fmt.Fprintf(w, row, "machine", "topolet", "alone", "lstopo", "ratio", "alone")
	for _, c := range append([]comparison{start}, all...) {
		fmt.Fprintf(w, row, c.name, ms(c.topolet), ms(c.alone), ms(c.lstopo),
			fmt.Sprintf("%.2f", whole(c)), fmt.Sprintf("%.2f", alone(c)))
	}
	for _, kind := range []struct {
		name string
		of   func(comparison) float64
	}{{"the whole command", whole}, {"discovery alone", alone}} {
		slices.SortFunc(all, func(a, b comparison) int { return cmp.Compare(kind.of(a), kind.of(b)) })
		worst := all[len(all)-1]
		fmt.Fprintf(w, "%s: median %.2f, worst %.2f (%s)\n", kind.name, kind.of(all[len(all)/2]), kind.of(worst), worst.name)
	}
}
