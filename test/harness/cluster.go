package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Namespace is where topolet is installed.
const Namespace = "topolet-system"

// Cluster is a running testbed.
type Cluster struct {
	// Source is the folder of this repository.
	Source string
	Client kubernetes.Interface

	state    string
	vars     map[string]string
	progress io.Writer
}

// Up brings the testbed in the state folder up, or leaves it be if it is, with
// further flags of `testbed up`. The progress goes to the writer. A cluster that
// comes with an error is good for Down.
func Up(ctx context.Context, state string, progress io.Writer, flags ...string) (*Cluster, error) {
	c, err := New(state, progress)
	if err != nil {
		return nil, err
	}
	return c, c.Up(ctx, flags...)
}

// New is a testbed that may be up or not. It has no effect on the host.
func New(state string, progress io.Writer) (*Cluster, error) {
	source, err := sourceFolder()
	if err != nil {
		return nil, err
	}
	return &Cluster{Source: source, state: state, progress: progress}, nil
}

// Up brings the testbed up, or leaves it be if it is. After an error there may
// be half a testbed, which Down removes.
func (c *Cluster) Up(ctx context.Context, flags ...string) error {
	if _, err := c.Testbed(ctx, "packages"); err != nil {
		return err
	}
	if _, err := c.Testbed(ctx, append([]string{"up"}, flags...)...); err != nil {
		return err
	}
	if err := c.readEnv(ctx); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.vars["KUBECONFIG"])
	if err != nil {
		return fmt.Errorf("testbed's kubeconfig: %w", err)
	}
	// Tests poll; the default limit of five requests a second would slow them.
	config.QPS, config.Burst = 200, 400
	if c.Client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("client of the testbed: %w", err)
	}
	return nil
}

// NUMAUp starts the NUMA machine, which joins as a second node, with further
// flags of `testbed numa up`, and waits until the node is Ready.
func (c *Cluster) NUMAUp(ctx context.Context, flags ...string) error {
	if _, err := c.Testbed(ctx, "numa", "packages"); err != nil {
		return err
	}
	if _, err := c.Testbed(ctx, append([]string{"numa", "up"}, flags...)...); err != nil {
		return err
	}
	return c.readEnv(ctx)
}

// NUMADown removes the NUMA machine and its node, whole or half.
func (c *Cluster) NUMADown(ctx context.Context) error {
	if _, err := c.Testbed(ctx, "numa", "down"); err != nil {
		return err
	}
	return c.readEnv(ctx)
}

// Down removes the testbed.
func (c *Cluster) Down(ctx context.Context) error {
	_, err := c.Testbed(ctx, "down")
	return err
}

// Install installs topolet from its chart, or upgrades it, and waits until its
// daemon is ready. Values are helm's "name=value".
func (c *Cluster) Install(ctx context.Context, values ...string) error {
	// The daemon is on the host's network, where other testbeds' may be too.
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	c.vars["TOPOLET_HTTP"] = fmt.Sprintf("http://127.0.0.1:%d", port)
	values = append([]string{
		"image.repository=docker.io/topolet/topolet",
		"image.tag=test",
		"image.pullPolicy=Never",
		"hostNetwork=true",
		"kubernetesServiceHost=" + c.Var("TESTBED_APISERVER_HOST"),
		"kubernetesServicePort=" + c.Var("TESTBED_APISERVER_PORT"),
		"kubelet.rootDir=" + c.Var("TESTBED_KUBELET_ROOT"),
		"nri.socket=" + c.Var("TESTBED_NRI_SOCKET"),
		"cdi.dir=" + c.Var("TESTBED_CDI_DIR"),
		"stateDir=" + c.StateDir(),
		fmt.Sprintf("httpPort=%d", port),
	}, values...)
	args := []string{
		"tool", "-modfile=" + filepath.Join(c.Source, "test/tools/helm/go.mod"), "helm",
		"upgrade", "--install", "topolet", filepath.Join(c.Source, "deploy/helm/topolet"),
		"--namespace", Namespace, "--create-namespace", "--wait", "--timeout", "5m",
	}
	for _, v := range values {
		args = append(args, "--set", v)
	}
	_, err = c.run(ctx, "go", args...)
	return err
}

// freePort asks the kernel for a TCP port that nobody listens on.
func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()                          //nolint:errcheck // it was never used
	return l.Addr().(*net.TCPAddr).Port, nil //nolint:forcetypeassert // of a TCP listener
}

// Kubectl runs kubectl and returns what it printed.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.run(ctx, c.Var("TESTBED_KUBECTL"), args...)
}

// Testbed runs the testbed's command on this cluster and returns what it
// printed on standard output.
func (c *Cluster) Testbed(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"run", "-trimpath", "./cmd/testbed", "--state", c.state}, args...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(c.Source, "test/testbed")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as the testbed builds everything else
	return c.output(cmd)
}

// Var returns a value of the testbed's environment, see `testbed env`, or the
// address of topolet's HTTP server, TOPOLET_HTTP, once it is installed.
func (c *Cluster) Var(name string) string { return c.vars[name] }

// StateDir is the folder of topolet's checkpoint.
func (c *Cluster) StateDir() string { return filepath.Join(c.Var("TESTBED_STATE"), "topolet") }

func (c *Cluster) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.Source
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Var("KUBECONFIG"))
	return c.output(cmd)
}

// output shows what the command says while it runs, and again in its error.
func (c *Cluster) output(cmd *exec.Cmd) (string, error) {
	interruptGroup(cmd)
	var stdout, stderr bytes.Buffer
	cmd.Stdout = &stdout
	cmd.Stderr = io.MultiWriter(&stderr, c.progress)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// readEnv asks the testbed where everything is. What else is known stays.
func (c *Cluster) readEnv(ctx context.Context) error {
	out, err := c.Testbed(ctx, "env")
	if err != nil {
		return err
	}
	if c.vars == nil {
		c.vars = map[string]string{}
	}
	maps.DeleteFunc(c.vars, func(name, _ string) bool { return strings.HasPrefix(name, "TESTBED_") })
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "="); ok {
			c.vars[name] = value
		}
	}
	return nil
}

// sourceFolder finds the repository from the working directory upwards.
func sourceFolder() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "test/testbed/go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("find the repository: no folder above the working directory has test/testbed/go.mod")
		}
		dir = parent
	}
}
