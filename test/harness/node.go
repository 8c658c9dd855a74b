package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Node is a machine of the cluster as its own kernel sees it.
type Node struct {
	// Name is that of the Node object.
	Name string
	machine
	cgroup string
}

// machine is a way to the files and programs of a machine. Paths are absolute.
type machine interface {
	// ReadFile returns an error that is fs.ErrNotExist when there is no such file.
	ReadFile(path string) ([]byte, error)
	// WriteFile writes to a file that exists.
	WriteFile(path, content string) error
	// Run returns what a program printed; one that fails is an error.
	Run(ctx context.Context, argv ...string) (string, error)
}

// Node returns the testbed's node that runs on this host.
func (c *Cluster) Node() Node {
	return Node{Name: c.Var("TESTBED_NODE"), machine: host{}, cgroup: c.Var("TESTBED_CGROUP")}
}

// NUMANode returns the node that runs on the NUMA machine, after NUMAUp.
func (c *Cluster) NUMANode() Node {
	return Node{Name: c.Var("TESTBED_NUMA_NODE"), machine: guest(c.Var("TESTBED_NUMA_CHANNEL")), cgroup: c.Var("TESTBED_CGROUP")}
}

// Nodes are the nodes that can be looked at: the host's, and the NUMA machine
// while there is one.
func (c *Cluster) Nodes() []Node {
	if c.NUMANode().Name == "" {
		return []Node{c.Node()}
	}
	return []Node{c.Node(), c.NUMANode()}
}

func (c *Cluster) node(name string) (Node, error) {
	for _, n := range c.Nodes() {
		if n.Name == name {
			return n, nil
		}
	}
	return Node{}, fmt.Errorf("node %q has no machine that can be looked at", name)
}

// host is this machine.
type host struct{}

func (host) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

func (host) WriteFile(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

func (host) Run(ctx context.Context, argv ...string) (string, error) {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return string(out), nil
}

// guest is a virtual machine, by the address of its command channel.
type guest string

// requestLimit is longer than the guest lets a program run.
const requestLimit = 90 * time.Second

func (g guest) ReadFile(path string) ([]byte, error) {
	return g.ask(context.Background(), http.MethodGet, "/files"+path, nil)
}

func (g guest) WriteFile(path, content string) error {
	_, err := g.ask(context.Background(), http.MethodPut, "/files"+path, []byte(content))
	return err
}

func (g guest) Run(ctx context.Context, argv ...string) (string, error) {
	command, err := json.Marshal(map[string]any{"argv": argv})
	if err != nil {
		return "", err
	}
	answer, err := g.ask(ctx, http.MethodPost, "/exec", command)
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	var result struct {
		Stdout, Stderr string
		ExitCode       int
	}
	if err := json.Unmarshal(answer, &result); err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	if result.ExitCode != 0 {
		return "", fmt.Errorf("%s: exit code %d: %s%s", strings.Join(argv, " "), result.ExitCode, result.Stdout, result.Stderr)
	}
	return result.Stdout, nil
}

func (g guest) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	address := string(g) + (&url.URL{Path: path}).EscapedPath()
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	case resp.StatusCode/100 != 2:
		return nil, fmt.Errorf("%s: %s", path, bytes.TrimSpace(answer))
	}
	return answer, nil
}
