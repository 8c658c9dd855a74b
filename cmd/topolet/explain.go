package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/topolet/topolet/draplugin/explain"
)

// explainOptions are the flags of `topolet explain`.
type explainOptions struct {
	root, output, grants, config, slices, nodeName string
}

func newExplainCommand() *cobra.Command {
	var opts explainOptions
	cmd := &cobra.Command{
		Use:   "explain FILE…",
		Short: "Say what claims would get on a machine, and why; and if they do not fit, what is nearest",
		Long: `Say what the claims in some files would get on this machine: the device, the CPUs
and what decided between them. For a claim that does not fit it says what is in the
way, and the largest amount that would fit.

The files hold ResourceClaims, ResourceClaimTemplates and Pods, and DeviceClasses
other than topolet's own, as YAML or JSON; - is standard input. Claims are allocated
in their order, those of a pod together, by kube-scheduler's own allocator. No cluster
and no root is needed.

With --root the answer is about another machine, of which topolet snapshot made an
archive. --config is the configuration file of topolet there, and --grants its
checkpoint, which says what claims hold already. --slices is what
"kubectl get resourceslices -o yaml" prints: with it, requests for devices of other
drivers are answered too, for the node of --node-name.

The exit status is 1 if a claim does not fit.`,
		Example: `  topolet explain claim.yaml
  topolet explain claim.yaml --root node7.tar.gz --grants checkpoint.json
  kubectl get resourceclaim big --output yaml | topolet explain -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if opts.output != "text" && opts.output != "json" {
				return fmt.Errorf("--output %q is not known: it must be one of json, text", opts.output)
			}
			node, err := opts.node()
			if err != nil {
				return err
			}
			var objects []explain.Object
			for _, name := range args {
				some, err := readObjects(name, cmd.InOrStdin())
				if err != nil {
					return err
				}
				objects = append(objects, some...)
			}
			answer, err := explain.Explain(cmd.Context(), node, objects)
			if err != nil {
				return err
			}
			if err := writeAnswer(cmd.OutOrStdout(), opts.output, answer); err != nil {
				return err
			}
			return answer.Err()
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.root, "root", "/", "directory or snapshot that is read in place of /")
	flags.StringVarP(&opts.output, "output", "o", "text", "form of the answer: text or json")
	flags.StringVar(&opts.grants, "grants", "", "checkpoint of topolet; what claims hold there is taken")
	flags.StringVar(&opts.config, "config", "", "configuration file of topolet; none means the defaults")
	flags.StringVar(&opts.slices, "slices", "", "file with the ResourceSlices of other drivers")
	flags.StringVar(&opts.nodeName, "node-name", "this-node", "name of the node, as the slices have it")
	return cmd
}

// node is the node about which is asked.
func (o explainOptions) node() (explain.Node, error) {
	m, err := discover(o.root)
	if err != nil {
		return explain.Node{}, fmt.Errorf("--root %s: %w", o.root, err)
	}
	config, err := loadConfig(o.config)
	if err != nil {
		return explain.Node{}, err
	}
	policy, err := policyOf(m, config)
	if err != nil {
		return explain.Node{}, fmt.Errorf("--config %s: %w", o.config, err)
	}
	grants, err := heldGrants(o.grants)
	if err != nil {
		return explain.Node{}, fmt.Errorf("--grants %s: %w", o.grants, err)
	}
	node := explain.Node{Name: o.nodeName, Machine: m, Policy: policy, Grants: grants}
	if o.slices == "" {
		return node, nil
	}
	objects, err := readObjects(o.slices, nil)
	if err != nil {
		return explain.Node{}, fmt.Errorf("--slices: %w", err)
	}
	for _, object := range objects {
		slice, ok := object.Value.(*resourceapi.ResourceSlice)
		if !ok {
			return explain.Node{}, fmt.Errorf("--slices: %s: %s is no ResourceSlice: give other objects as arguments", object.From, object)
		}
		node.Others = append(node.Others, slice)
	}
	return node, nil
}

// readObjects reads a file, or what stdin is for "-".
func readObjects(name string, stdin io.Reader) ([]explain.Object, error) {
	if name == "-" && stdin != nil {
		return explain.Read("standard input", stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return explain.Read(name, f)
}

func writeAnswer(w io.Writer, output string, answer explain.Answer) error {
	if output == "text" {
		return answer.WriteText(w)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(answer)
}
