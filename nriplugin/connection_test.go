package nriplugin

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/net/multiplex"
	"github.com/containerd/ttrpc"

	"github.com/topolet/topolet/test/expect"
)

func TestThePluginFindsTheRuntimeAgain(t *testing.T) {
	n := newNode(t, false)
	n.grant("claim", "x", "numa-1", 2)
	x, a := n.run("x", device("claim")), n.run("a")

	n.stopNRI()
	waitLost(t, n.plugin.Ready)
	// While the runtime is away, somebody confines a to other CPUs.
	n.mu.Lock()
	n.confine(a, "4-7")
	n.mu.Unlock()

	n.startNRI()
	n.waitReady()
	n.wantCPUs(a, "0-3,6-7")
	n.wantCPUs(x, "4-5")
	n.run("b")
	select {
	case <-n.plugin.Synchronized():
	default:
		t.Error("Synchronized is open again")
	}
}

func TestThePluginPausesLongerAndLonger(t *testing.T) {
	dir, err := os.MkdirTemp("", "nri") //nolint:usetesting // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // only sockets
	// A listener that hangs up at once.
	p := newProxy(t, filepath.Join(dir, "nri.sock"), filepath.Join(dir, "nobody"))
	defer p.close()
	plugin := New(filepath.Join(dir, "nri.sock"), newLedger(t), os.DirFS(dir), &books{}, noKernel)
	expect.Error(t, plugin.Ready(), "not connected to the container runtime's NRI socket yet")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	plugin.Run(ctx)
	// 0, 0.1, 0.3, 0.7 s, give or take the jitter.
	if got := p.attempts(); got < 2 || got > 5 {
		t.Errorf("%d attempts in a second", got)
	}
	expect.Error(t, plugin.Ready(), "NRI connection ended")
}

func TestThePluginSaysWhyItCannotConnect(t *testing.T) {
	plugin := New(filepath.Join(t.TempDir(), "none.sock"), newLedger(t), os.DirFS(t.TempDir()), &books{}, noKernel)
	expect.Error(t, plugin.connection().session(t.Context()), "is it enabled in the container runtime?")
}

// dying is a runtime that ends between registration and configuration.
type dying struct {
	api.RuntimeService
	conn net.Conn
}

func (d dying) RegisterPlugin(context.Context, *api.RegisterPluginRequest) (*api.Empty, error) {
	// The reply must be on its way first.
	time.AfterFunc(100*time.Millisecond, func() { d.conn.Close() }) //nolint:errcheck // that is the purpose
	return &api.Empty{}, nil
}

func TestARuntimeThatEndsDuringRegistrationIsGivenUp(t *testing.T) {
	dir, err := os.MkdirTemp("", "nri") //nolint:usetesting // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // only sockets
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "nri.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		mux := multiplex.Multiplex(conn)
		server, err := ttrpc.NewServer()
		if err != nil {
			return
		}
		defer server.Close()
		api.RegisterRuntimeService(server, dying{conn: conn})
		runtime, err := mux.Listen(multiplex.RuntimeServiceConn)
		if err != nil {
			return
		}
		server.Serve(context.Background(), runtime) //nolint:errcheck // ends with the connection
	}()
	plugin := New(filepath.Join(dir, "nri.sock"), newLedger(t), os.DirFS(dir), &books{}, noKernel)
	ended := make(chan error, 1)
	go func() { ended <- plugin.connection().session(t.Context()) }()
	select {
	case err := <-ended:
		expect.Error(t, err, "NRI connection ended")
	case <-time.After(10 * time.Second):
		t.Fatal("waited 10s for the session to end")
	}
}
