package action

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/topolet/topolet/test/testbed/internal/binaries"
	"github.com/topolet/topolet/test/testbed/internal/cgroup"
	"github.com/topolet/topolet/test/testbed/internal/component"
	"github.com/topolet/topolet/test/testbed/internal/host"
	"github.com/topolet/topolet/test/testbed/internal/pki"
)

func findPrograms(ctx context.Context, c *Context) (string, error) {
	for _, dir := range c.Layout.Folders() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", fmt.Errorf("make the state folder: %w", err)
		}
	}
	programs := binaries.Programs()
	paths, err := c.Builder.Ensure(ctx, programs)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d in %s", len(paths), c.Builder.Cache), binaries.Link(c.Layout.Bin(), programs, paths)
}

func prepareHost(_ context.Context, c *Context) (string, error) {
	if err := host.Check(); err != nil {
		return "", err
	}
	if err := host.Note(c.Layout.Host()); err != nil {
		return "", err
	}
	if err := host.ShareMounts(c.Layout.State); err != nil {
		return "", err
	}
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return "", err
	}
	if err := cgroup.Ensure(hs, c.Layout.Cgroup(), true); err != nil {
		return "", err
	}
	return "cgroup " + c.Layout.Cgroup(), cgroup.Ensure(hs, c.Layout.SystemCgroup(), false)
}

func makeCertificates(_ context.Context, c *Context) (string, error) {
	authority, err := pki.Open(c.Layout.PKI())
	if err != nil {
		return "", err
	}
	for _, id := range c.Cluster.Identities() {
		if err := authority.Ensure(id); err != nil {
			return "", err
		}
	}
	if err := authority.EnsureKey("service-account"); err != nil {
		return "", err
	}
	for name, identity := range component.Kubeconfigs() {
		if err := authority.WriteKubeconfig(c.Layout.Kubeconfig(name), identity, c.Cluster.URL()); err != nil {
			return "", err
		}
	}
	return "", nil
}

func makeNetwork(_ context.Context, c *Context) (string, error) {
	address := netip.PrefixFrom(c.Cluster.NodeIP(), c.Cluster.PodCIDR.Bits())
	return fmt.Sprintf("bridge %s %v", c.Layout.Bridge(), address), host.EnsureBridge(c.Layout.Bridge(), address)
}

func writeConfiguration(_ context.Context, c *Context) (string, error) {
	files, err := c.Cluster.Files()
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if have, err := os.ReadFile(f.Path); err == nil && bytes.Equal(have, []byte(f.Content)) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			return "", fmt.Errorf("write the configuration: %w", err)
		}
		if err := host.WriteFile(f.Path, []byte(f.Content)); err != nil {
			return "", err
		}
	}
	return "", nil
}

func startControlPlane(ctx context.Context, c *Context) (string, error) {
	return c.ensureAll(ctx, component.Etcd, component.APIServer)
}

func startContainerd(ctx context.Context, c *Context) (string, error) {
	detail, err := c.ensureAll(ctx, component.Containerd)
	if err != nil {
		return "", err
	}
	return detail, c.WaitReady(ctx, component.Containerd)
}

func waitForAPIServer(ctx context.Context, c *Context) (string, error) {
	for _, name := range []string{component.Etcd, component.APIServer} {
		if err := c.WaitReady(ctx, name); err != nil {
			return "", err
		}
	}
	return c.Cluster.URL(), nil
}

func startRest(ctx context.Context, c *Context) (string, error) {
	return c.ensureAll(ctx, component.ControllerManager, component.Scheduler, component.Kubelet)
}

func waitForNode(ctx context.Context, c *Context) (string, error) {
	for _, name := range []string{component.ControllerManager, component.Scheduler, component.Kubelet} {
		if err := c.WaitReady(ctx, name); err != nil {
			return "", err
		}
	}
	if err := c.waitForServiceAccount(ctx); err != nil {
		return "", err
	}
	return c.Cluster.NodeName, nil
}
