package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
)

// statusSocketName is in the state folder, which only root may enter.
const statusSocketName = "status.sock"

// nodeStatus is what the daemon says of itself, as `topolet status --output json` prints it.
type nodeStatus struct {
	Node string `json:"node"`
	// Problem is why claims cannot be served at present; empty if they can.
	Problem string `json:"problem,omitempty"`
	// Runtime is why the kernel does not keep others off claimed CPUs; empty if it does.
	Runtime    string            `json:"runtime,omitempty"`
	SharedPool topology.CPUSet   `json:"sharedPool"`
	Grants     []allocator.Grant `json:"grants"`
	Containers []containerStatus `json:"containers"`
	Conflicts  []string          `json:"conflicts,omitempty"`
}

// containerStatus is a container with CPUs of claims.
type containerStatus struct {
	Namespace string          `json:"namespace"`
	Pod       string          `json:"pod"`
	Name      string          `json:"name"`
	CPUs      topology.CPUSet `json:"cpus"`
	Tier      allocator.Tier  `json:"tier,omitempty"`
	Reason    string          `json:"reason,omitempty"`
}

// statusOf reads the ledger.
func statusOf(node string, ledger *allocator.Ledger, why string, problem error) nodeStatus {
	s := nodeStatus{Node: node, Runtime: why, SharedPool: ledger.Pool(), Grants: ledger.Grants()}
	if problem != nil {
		s.Problem = problem.Error()
	}
	for _, h := range ledger.Holders() {
		s.Containers = append(s.Containers, containerStatus{h.PodNamespace, h.PodName, h.Name, h.Desired, h.Enforcement.Tier, h.Enforcement.Reason})
	}
	for _, c := range ledger.Conflicts() {
		s.Conflicts = append(s.Conflicts, c.Message)
	}
	slices.SortFunc(s.Containers, func(a, b containerStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Name, b.Name))
	})
	return s
}

// serveStatus answers `topolet status` until the context ends. The channel is closed when the
// server has stopped.
func serveStatus(ctx context.Context, stateDir string, read func() nodeStatus) (<-chan struct{}, error) {
	path := filepath.Join(stateDir, statusSocketName)
	// Whoever holds the folder's lock is the only one: what is there is left over.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("status socket: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(read()); err != nil {
			klog.FromContext(ctx).V(2).Info("A status was not read to its end", "err", err)
		}
	})}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			klog.FromContext(ctx).Error(err, "Status server ended")
		}
	}()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return stopped, nil
}

func newStatusCommand() *cobra.Command {
	var stateDir, output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Ask the node agent of this machine who holds which CPUs, and who keeps others off them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("flag --output is %q: use text or json", output)
			}
			s, err := askStatus(cmd.Context(), stateDir)
			if err != nil {
				return err
			}
			if output == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(s)
			}
			return s.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", "/var/lib/topolet", "the daemon's folder of the same flag")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

func askStatus(ctx context.Context, stateDir string) (nodeStatus, error) {
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	path := filepath.Join(stateDir, statusSocketName)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://topolet/", nil)
	if err != nil {
		return nodeStatus{}, err
	}
	var s nodeStatus
	answer, err := client.Do(req)
	if err != nil {
		return s, fmt.Errorf("no topolet answers at %s (does it run on this machine, and are you root?): %w", path, err)
	}
	err = json.NewDecoder(answer.Body).Decode(&s)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return s, fmt.Errorf("topolet's answer at %s: %w", path, err)
	}
	return s, nil
}

// print writes the status for people.
func (s nodeStatus) print(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "node\t%s\n", s.Node)
	fmt.Fprintf(w, "serves claims\t%s\n", cmp.Or(s.Problem, "yes"))
	fmt.Fprintf(w, "kernel enforces\t%s\n", cmp.Or(s.Runtime, "yes"))
	fmt.Fprintf(w, "shared pool\t%s\n", s.SharedPool)
	if len(s.Grants) > 0 {
		fmt.Fprint(w, "\nCLAIM\tREQUEST\tDEVICE\tCPUS\tMEMORY NODES\n")
	}
	for _, g := range s.Grants {
		for _, p := range g.Parts {
			fmt.Fprintf(w, "%s/%s\t%s\t%s\t%s\t%s\n", g.Namespace, g.Name, p.Name, p.Domain, p.CPUs, strings.Trim(fmt.Sprint(p.MemoryNodes), "[]"))
		}
	}
	if len(s.Containers) > 0 {
		fmt.Fprint(w, "\nCONTAINER\tCPUS\tTIER\tWHY\n")
	}
	for _, c := range s.Containers {
		fmt.Fprintf(w, "%s/%s %s\t%s\t%s\t%s\n", c.Namespace, c.Pod, c.Name, c.CPUs, c.Tier, c.Reason)
	}
	for _, message := range s.Conflicts {
		fmt.Fprintf(w, "\nconflict: %s\n", message)
	}
	return w.Flush()
}
