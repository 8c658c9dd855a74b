package nriplugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"
)

const (
	dialTimeout = 5 * time.Second
	// endLimit is how long after the end of a connection the stub may take to
	// notice.
	endLimit = time.Second
)

// connection keeps a plugin connected to the container runtime.
type connection struct {
	// socket is the runtime's NRI socket.
	socket string
	// name and index are those under which the plugin registers.
	name, index string
	// plugin implements interfaces of package stub.
	plugin any
	// lost is told each time why the plugin is not connected any more.
	lost func(error)
	// beside, if any, runs from before the plugin registers until its context ends,
	// which it does with the connection.
	beside func(context.Context, stub.Stub)
}

// run connects, and again with growing pauses when the connection ends, until the
// context does.
func (c connection) run(ctx context.Context) {
	logger := klog.FromContext(ctx)
	fresh := func() wait.Backoff {
		return wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 10, Cap: 10 * time.Second}
	}
	backoff := fresh()
	for {
		started := time.Now()
		err := c.session(ctx)
		c.lost(err)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > time.Minute {
			backoff = fresh()
		}
		pause := backoff.Step()
		logger.Error(err, "No NRI connection to the container runtime: containers with claims cannot start", "plugin", c.name, "socket", c.socket, "retryIn", pause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// session is one connection, from dialling to its end.
func (c connection) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dialed, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return fmt.Errorf("connect to NRI (is it enabled in the container runtime?): %w", err)
	}
	conn := watchedConn{dialed, cancel}
	defer conn.Close() //nolint:errcheck // the stub has closed it, unless it hangs
	s, err := stub.New(c.plugin,
		stub.WithPluginName(c.name),
		stub.WithPluginIdx(c.index),
		stub.WithConnection(conn),
		stub.WithOnClose(cancel),
		stub.WithLogger(stubLogger{}),
		// A container whose CPUs were not settled in time must not start.
		stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: true, KeepConnected: true}),
	)
	if err != nil {
		return fmt.Errorf("create NRI plugin: %w", err)
	}
	if c.beside != nil {
		var beside sync.WaitGroup
		beside.Go(func() { c.beside(ctx, s) })
		defer beside.Wait()
		defer cancel()
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		// A stub whose runtime goes away between registration and configuration
		// waits for the latter for ever: it is left behind.
		select {
		case err = <-ended:
		case <-time.After(endLimit):
			err = errors.New("the runtime went away during registration")
		}
	}
	if err != nil {
		return fmt.Errorf("NRI connection ended: %w", err)
	}
	return errors.New("NRI connection ended")
}

// watchedConn tells when the connection can no longer be read.
type watchedConn struct {
	net.Conn
	lost func()
}

func (c watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.lost()
	}
	return n, err
}
