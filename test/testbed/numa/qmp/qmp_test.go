package qmp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const greeting = `{"QMP": {"version": {}, "capabilities": []}}`

// monitor is a machine's monitor that greets and then gives one of the answers
// per command. It returns its socket.
func monitor(t *testing.T, greeting string, answers ...string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "qmp")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(conn, greeting)
		lines := bufio.NewScanner(conn)
		for _, a := range append([]string{`{"return": {}}`}, answers...) {
			if !lines.Scan() {
				break
			}
			fmt.Fprintln(conn, a)
		}
		// Until the client has had enough.
		lines.Scan()
		_ = conn.Close()
	}()
	return socket
}

func dial(t *testing.T, socket string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func named(name string) func(Event) bool { return func(e Event) bool { return e.Name == name } }

func TestEventsBeforeAnAnswerAreKept(t *testing.T) {
	c := dial(t, monitor(t, greeting, `{"event": "A", "data": {"device": "x"}}
{"event": "B"}
{"return": {}}
{"event": "C"}`))
	if err := c.Execute(t.Context(), "device_del", map[string]string{"id": "x"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"A", "C"} {
		if e, err := c.Wait(t.Context(), named(name)); err != nil || e.Name != name {
			t.Errorf("%s: %v, %v", name, e, err)
		}
	}
}

func TestARefusalIsQEMUsOwnWords(t *testing.T) {
	c := dial(t, monitor(t, greeting, `{"error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}}`))
	err := c.Execute(t.Context(), "device_del", nil)
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Class != "DeviceNotFound" || !strings.Contains(err.Error(), "device_del: Device 'x' not found") {
		t.Errorf("error %v", err)
	}
}

func TestAWaitEnds(t *testing.T) {
	c := dial(t, monitor(t, greeting))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(ctx, named("NEVER")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at its limit: error %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := c.Wait(ctx, named("NEVER")); !errors.Is(err, context.Canceled) {
		t.Errorf("when cancelled: error %v", err)
	}
}

func TestWhatIsNoMonitorIsNotTaken(t *testing.T) {
	if _, err := Dial(t.Context(), filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("connected to nothing")
	}
	for greeting, want := range map[string]string{`{"hello": 1}`: "no greeting", "SSH-2.0": "understand"} {
		if _, err := Dial(t.Context(), monitor(t, greeting)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("greeted with %s: error %v, want one with %q", greeting, err, want)
		}
	}
}
