package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/process"
	"github.com/topolet/topolet/test/testbed/numa/channel"
)

// Serve answers the command channel, and makes the API server's address on the
// host's loopback the same in here. It returns only with an error.
func Serve(ctx context.Context, configFile string) error {
	c, err := Load(configFile)
	if err != nil {
		return err
	}
	local := net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Forward))
	api, err := new(net.ListenConfig).Listen(ctx, "tcp", local)
	if err != nil {
		return fmt.Errorf("forward to the API server: %w", err)
	}
	ended := make(chan error, 2)
	go func() { ended <- forward(ctx, api, netip.AddrPortFrom(c.Uplink.Host, uint16(c.Forward)).String()) }() //nolint:gosec // a port

	finder := process.Finder{State: c.State}
	server := &http.Server{
		Addr: netip.AddrPortFrom(c.Uplink.Address.Addr(), uint16(c.Channel)).String(), //nolint:gosec // a port
		Handler: channel.Server{Component: func(name string) (int, bool, error) {
			p, ok, err := finder.Component(name)
			return p.PID, ok, err
		}}.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() { ended <- server.ListenAndServe() }()
	return <-ended
}

// forward connects everyone who comes to l with the address to.
func forward(ctx context.Context, l net.Listener, to string) error {
	for {
		near, err := l.Accept()
		if err != nil {
			return fmt.Errorf("forward to %s: %w", to, err)
		}
		go func() {
			far, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", to)
			if err != nil {
				_ = near.Close()
				return
			}
			join(near, far)
		}()
	}
}

// join copies both ways until both have ended. The end of one way is passed on
// at once, and the other goes on.
func join(a, b net.Conn) {
	done := make(chan struct{})
	half := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if w, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
			err = w.CloseWrite()
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			_, _ = a.Close(), b.Close()
		}
		done <- struct{}{}
	}
	go half(a, b)
	go half(b, a)
	<-done
	<-done
	_, _ = a.Close(), b.Close()
}
