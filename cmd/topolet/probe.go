package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/gpu"
)

// probeLimit is how long a card may take to answer. One that sleeps is woken up first.
const probeLimit = 10 * time.Second

func newProbeCommand() *cobra.Command {
	var root, stateDir string
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Ask the drivers of GPUs how much memory their cards have, and keep the answers for topolet run",
		Long: `Ask the drivers of GPUs how much memory their cards have, and keep the answers in the
state folder, where topolet run finds them when it starts.

Current i915 and xe drivers have no file for it, but tell it to who opens a card's node
in /dev. That needs root and, in a container, privileges, which this command needs for a
moment and topolet run never. The answers hold until the machine starts anew.

Virtual functions are left out: their memory can change at any time. A card that does not
answer is published without its memory.`,
		Example: `  topolet probe
  topolet probe --root /host --state-dir /var/lib/topolet`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, flag := range []struct{ name, value string }{{"--root", root}, {"--state-dir", stateDir}} {
				if !filepath.IsAbs(flag.value) {
					return fmt.Errorf("flag %s is %q: want an absolute path", flag.name, flag.value)
				}
			}
			host, err := topology.OpenRoot(root)
			if err != nil {
				return fmt.Errorf("--root %s: %w", root, err)
			}
			defer host.Close()
			p := prober{host: host, query: gpu.Ioctl{Root: root}, limit: probeLimit, out: cmd.OutOrStdout(), problems: cmd.ErrOrStderr()}
			answers, err := p.probe(cmd.Context())
			if err != nil {
				return err
			}
			if err := saveGPUMemory(stateDir, answers); err != nil {
				return fmt.Errorf("keep how much memory GPUs have: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "folder that holds the host's sys and dev")
	cmd.Flags().StringVar(&stateDir, "state-dir", "/var/lib/topolet", "folder of topolet run, for the answers")
	return cmd
}

// prober asks the drivers of GPUs for their memory.
type prober struct {
	host  fs.FS
	query gpu.MemoryQuery
	// limit is how long is waited for the answer of each card.
	limit time.Duration
	// out gets a line about each card, problems one about each that does not answer.
	out, problems io.Writer
}

// probe asks the drivers of all cards whose memory no file tells. What does not answer is
// missing in what it returns. The error is that of a context that ended meanwhile.
func (p prober) probe(ctx context.Context) (gpuMemory, error) {
	answers := gpuMemory{Version: gpuMemoryVersion, BootID: bootID(p.host), Cards: []gpuCard{}}
	cards, err := cardsToAsk(p.host)
	switch {
	case err != nil:
		fmt.Fprintf(p.problems, "No GPU is asked how much memory it has: %v\n", err)
	case len(cards) == 0:
		fmt.Fprintln(p.out, "There is no GPU that has to be asked how much memory it has")
	}
	for _, c := range cards {
		about := fmt.Sprintf("%s %s (%s)", c.Address, c.card.Path, c.Driver)
		if c.PhysicalFunction != topology.None {
			fmt.Fprintf(p.out, "%s: not asked, because the memory of a virtual function can change\n", about)
			continue
		}
		bytes, err := p.ask(ctx, c)
		if ctx.Err() != nil {
			return gpuMemory{}, fmt.Errorf("told to end before all GPUs were asked how much memory they have: %w", ctx.Err())
		}
		if err != nil {
			fmt.Fprintf(p.problems, "%s: published without its memory, because it does not tell: %v\n", about, err)
			continue
		}
		fmt.Fprintf(p.out, "%s: %d bytes\n", about, bytes)
		answers.Cards = append(answers.Cards, gpuCardOf(c.PCIFunction, c.card, bytes))
	}
	return answers, nil
}

// ask asks one driver. One that does not answer in time is left alone: nothing can end a
// call that the kernel does not return from.
func (p prober) ask(ctx context.Context, c cardToAsk) (uint64, error) {
	type answer struct {
		bytes uint64
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		bytes, err := p.query.LocalMemory(c.PCIFunction, c.card)
		answered <- answer{bytes, err}
	}()
	limit := time.NewTimer(p.limit)
	defer limit.Stop()
	select {
	case a := <-answered:
		return a.bytes, a.err
	case <-limit.C:
		return 0, fmt.Errorf("no answer within %v", p.limit)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// cardToAsk is a card whose driver alone tells its memory.
type cardToAsk struct {
	topology.PCIFunction
	card device.Node
}

// cardsToAsk finds the cards that the family of GPUs asks for.
func cardsToAsk(host fs.FS) ([]cardToAsk, error) {
	m, err := topology.Discover(host)
	if err != nil {
		return nil, err
	}
	var noted noteCards
	device.Discover(device.NewHost(host, m), gpu.Family{Memory: &noted})
	return noted, nil
}

// noteCards is a query that knows nothing, and notes for what it is asked.
type noteCards []cardToAsk

func (n *noteCards) LocalMemory(f topology.PCIFunction, card device.Node) (uint64, error) {
	*n = append(*n, cardToAsk{f, card})
	return 0, nil
}

// bootID is that of the kernel whose drivers answer. A container in which the host's proc is
// not mounted sees it in its own.
func bootID(host fs.FS) string {
	boot, known := topology.NewFiles(host).Read(bootIDFile)
	if !known {
		text, _ := os.ReadFile("/" + bootIDFile)
		boot = strings.TrimSpace(string(text))
	}
	return boot
}
