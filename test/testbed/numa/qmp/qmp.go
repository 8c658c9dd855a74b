// Package qmp speaks QEMU's monitor protocol: one JSON object per line, over a
// unix socket that serves one client at a time.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// Client is a connection to a machine's monitor.
type Client struct {
	conn   net.Conn
	lines  *bufio.Reader
	events []Event
}

// Event is something that happened to the machine.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

// Error is QEMU's refusal of a command.
type Error struct {
	Class       string `json:"class"`
	Description string `json:"desc"`
}

func (e *Error) Error() string { return e.Description + " (" + e.Class + ")" }

type message struct {
	Event
	Return json.RawMessage `json:"return"`
	Error  *Error          `json:"error"`
	QMP    json.RawMessage `json:"QMP"`
}

// answerLimit is how long QEMU may take to answer a command, and to become
// free of another client.
const answerLimit = 15 * time.Second

// Dial connects to the socket.
func Dial(ctx context.Context, socket string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the machine's monitor: %w", err)
	}
	c := &Client{conn: conn, lines: bufio.NewReader(conn)}
	if err := c.hello(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

func (c *Client) hello(ctx context.Context) error {
	m, err := c.read(ctx)
	if err != nil {
		return fmt.Errorf("wait for the greeting of the machine's monitor: %w", err)
	}
	if m.QMP == nil {
		return errors.New("what listens on the machine's monitor socket is not QEMU: it sends no greeting")
	}
	return c.Execute(ctx, "qmp_capabilities", nil)
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) read(ctx context.Context) (message, error) {
	var m message
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return m, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := c.lines.ReadBytes('\n')
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return m, err
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("understand %q: %w", line, err)
	}
	return m, nil
}

// Execute runs a command. The events that come before its answer are kept for
// Wait. A refusal is an *Error.
func (c *Client) Execute(ctx context.Context, command string, arguments any) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	line, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if _, err := c.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("send %s to the machine: %w", command, err)
	}
	for {
		m, err := c.read(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("wait for the machine's answer to %s: %w", command, err)
		case m.Error != nil:
			return fmt.Errorf("the machine refuses %s: %w", command, m.Error)
		case m.Return != nil:
			return nil
		case m.Name != "":
			c.events = append(c.events, m.Event)
		}
	}
}

// Wait returns the first event that is accepted, of those that came with
// earlier answers or come until the context ends.
func (c *Client) Wait(ctx context.Context, accept func(Event) bool) (Event, error) {
	for {
		for len(c.events) > 0 {
			e := c.events[0]
			c.events = c.events[1:]
			if accept(e) {
				return e, nil
			}
		}
		m, err := c.read(ctx)
		if err != nil {
			return Event{}, err
		}
		if m.Name != "" {
			c.events = append(c.events, m.Event)
		}
	}
}
