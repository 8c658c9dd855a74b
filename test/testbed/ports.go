package testbed

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/topolet/topolet/test/testbed/internal/component"
)

// reservations keep the ports that an Up has chosen from every other Up until the
// components listen there. They are names of abstract unix sockets (unix(7)), which
// leave no file and are gone with the process, however that ends.
type reservations struct{ held []net.Listener }

// take reports whether the port is free on all addresses, and then reserves it.
func (r *reservations) take(ctx context.Context, port int) bool {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+strconv.Itoa(port))
	if err != nil || l.Close() != nil {
		return false
	}
	name, err := new(net.ListenConfig).Listen(ctx, "unix", fmt.Sprintf("@topolet-testbed/port/%d", port))
	if err != nil {
		return false
	}
	r.held = append(r.held, name)
	return true
}

func (r *reservations) release() {
	for _, l := range r.held {
		_ = l.Close()
	}
	r.held = nil
}

// choose replaces every port that cannot be listened on by a free one. Ports that
// inUse names belong to running components and are left alone. The port named fixed
// is what a person asked for: it is refused, not replaced.
func (r *reservations) choose(ctx context.Context, ports component.Ports, inUse map[int]bool, fixed int) (component.Ports, error) {
	var failed error
	taken := map[int]bool{}
	ports.Each(func(_ string, port *int) { taken[*port] = true })
	ports.Each(func(name string, port *int) {
		if failed != nil || inUse[*port] || r.take(ctx, *port) {
			return
		}
		if *port == fixed {
			failed = fmt.Errorf("the port %d for the %s is in use: choose another, or leave the choice to the testbed", *port, name)
			return
		}
		for range 50 {
			p, err := anyFreePort(ctx)
			if err != nil {
				failed = err
				return
			}
			if !taken[p] && r.take(ctx, p) {
				taken[p] = true
				*port = p
				return
			}
		}
		failed = fmt.Errorf("no free port found for the %s", name)
	})
	return ports, failed
}

func anyFreePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
