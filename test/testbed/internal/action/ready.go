package action

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/component"
)

// How long a component may take until it is ready. On a busy machine with two
// processors the API server takes the longest.
const (
	readyLimit = 90 * time.Second
	nodeLimit  = 3 * time.Minute
)

// WaitReady waits until a component answers.
func (c *Context) WaitReady(ctx context.Context, name string) error {
	limit, what := readyLimit, name+" to be healthy"
	if name == component.Kubelet {
		limit, what = nodeLimit, "the node to be Ready"
	}
	return c.Until(ctx, name, what, limit, func(ctx context.Context) error { return c.Healthy(ctx, name) })
}

// Healthy asks a component once. For the kubelet it is the node's condition
// that counts.
func (c *Context) Healthy(ctx context.Context, name string) error {
	if name == component.Containerd {
		return Dial(ctx, c.Layout.ContainerdSocket())
	}
	client, err := c.Client()
	if err != nil {
		return err
	}
	local := func(port int, path string) string { return fmt.Sprintf("https://127.0.0.1:%d%s", port, path) }
	ports := c.Cluster.Ports
	switch name {
	case component.Etcd:
		return client.Get(ctx, local(ports.EtcdClient, "/health"), nil)
	case component.APIServer:
		return client.Get(ctx, local(ports.APIServer, "/readyz"), nil)
	case component.ControllerManager:
		return client.Get(ctx, local(ports.ControllerManager, "/healthz"), nil)
	case component.Scheduler:
		return client.Get(ctx, local(ports.Scheduler, "/healthz"), nil)
	case component.Kubelet:
		return c.nodeReady(ctx)
	}
	return fmt.Errorf("there is no component %q", name)
}

func (c *Context) nodeReady(ctx context.Context) error {
	kubelet, runs, err := c.Finder().Component(component.Kubelet)
	if err != nil {
		return err
	}
	if !runs {
		return fmt.Errorf("the kubelet does not run")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/healthz", c.Cluster.Ports.KubeletHealth), nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the kubelet's health: %s", resp.Status)
	}
	client, err := c.Client()
	if err != nil {
		return err
	}
	if err := client.NodeReady(ctx, c.Cluster.URL(), c.Cluster.NodeName, kubelet.Since()); err != nil {
		return err
	}
	return client.PodsKnown(ctx, c.Cluster.URL(), c.Cluster.NodeName, fmt.Sprintf("https://%s:%d", c.Cluster.NodeIP(), c.Cluster.Ports.Kubelet))
}

// waitForServiceAccount waits until pods can be created in the default
// namespace.
func (c *Context) waitForServiceAccount(ctx context.Context) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	return c.Until(ctx, component.ControllerManager, "the default service account", readyLimit, func(ctx context.Context) error {
		return client.Get(ctx, c.Cluster.URL()+"/api/v1/namespaces/default/serviceaccounts/default", nil)
	})
}

// Dial tells whether somebody answers at a unix socket.
func Dial(ctx context.Context, socket string) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	return conn.Close()
}
