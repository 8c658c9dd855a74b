//go:build e2e

package e2e

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// relay passes connections to another socket, and can cut off some of them.
type relay struct {
	listener        net.Listener
	network, target string

	mu    sync.Mutex
	conns map[net.Conn]bool // to whether it is marked
	cut   bool
	// mark, where the relay must tell connections apart, is what one of the marked
	// ones says first. All others say unmarked first.
	mark, unmarked []byte
}

func newRelay(t *testing.T, network, address, toNetwork, target string) *relay {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener, network: toNetwork, target: target, conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		listener.Close() //nolint:errcheck // the test ends
		r.mu.Lock()
		defer r.mu.Unlock()
		for conn := range r.conns {
			conn.Close() //nolint:errcheck // the test ends
		}
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go r.pass(conn)
		}
	}()
	return r
}

func (r *relay) pass(conn net.Conn) {
	defer conn.Close() //nolint:errcheck // closed twice
	first, marked := r.listen(conn)
	r.mu.Lock()
	if marked && r.cut {
		r.mu.Unlock()
		return
	}
	r.conns[conn] = marked
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, conn)
	}()
	onward, err := net.Dial(r.network, r.target)
	if err != nil {
		return
	}
	defer onward.Close() //nolint:errcheck // closed twice
	go func() {
		io.Copy(onward, io.MultiReader(bytes.NewReader(first), conn)) //nolint:errcheck // the end of a connection
		onward.Close()                                                //nolint:errcheck // closed twice
	}()
	io.Copy(conn, onward) //nolint:errcheck // the end of a connection
}

// listen reads until it knows whether the connection is marked.
func (r *relay) listen(conn net.Conn) (said []byte, marked bool) {
	if r.mark == nil {
		return nil, false
	}
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		said = append(said, buffer[:n]...)
		if marked := bytes.Contains(said, r.mark); marked || err != nil || bytes.Contains(said, r.unmarked) {
			return said, marked
		}
	}
}

// cutMarked breaks the marked connections, and all that are to come until it is
// called with false.
func (r *relay) cutMarked(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	for conn, marked := range r.conns {
		if cut && marked {
			conn.Close() //nolint:errcheck // that is the purpose
		}
	}
}
