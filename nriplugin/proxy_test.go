package nriplugin

import (
	"io"
	"net"
	"sync"
	"testing"
)

// proxy passes connections from one socket to another, so that a test can break
// them: the runtime's half of NRI offers no way to.
type proxy struct {
	listener net.Listener
	target   string

	mu     sync.Mutex
	conns  map[net.Conn]bool
	dialed int
}

func newProxy(t testing.TB, path, target string) *proxy {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, conns: map[net.Conn]bool{}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.pass(conn)
		}
	}()
	return p
}

func (p *proxy) pass(conn net.Conn) {
	p.mu.Lock()
	p.dialed++
	p.mu.Unlock()
	defer conn.Close()
	onward, err := net.Dial("unix", p.target)
	if err != nil {
		return
	}
	defer onward.Close()
	p.mu.Lock()
	p.conns[conn] = true
	p.mu.Unlock()
	go func() {
		io.Copy(onward, conn) //nolint:errcheck // the end of a connection
		onward.Close()        //nolint:errcheck // closed twice
	}()
	io.Copy(conn, onward) //nolint:errcheck // the end of a connection
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}

// drop breaks all connections.
func (p *proxy) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close() //nolint:errcheck // that is the purpose
	}
}

// attempts is the number of connections so far.
func (p *proxy) attempts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialed
}

func (p *proxy) close() {
	p.listener.Close() //nolint:errcheck // the test ends
	p.drop()
}
