package fpgaprogram

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/topology/device"
)

// card is the lock of a card: while it is held nobody else has its ports programmed. The file
// also tells which OpenCL programs the ports have, since all of these bring the same function.
type card struct {
	file   *os.File
	bootID string
	record record
}

// record is what is kept of a card. It is written in place: what a crash leaves is no JSON,
// and the port is programmed once more.
type record struct {
	// BootID is that of the kernel for which the rest is true.
	BootID string `json:"bootID"`
	// Programs are the identities of OpenCL programs, by the names of ports' devices.
	Programs map[string]string `json:"programs"`
}

// lockCard waits until nobody else has the card, by its address, as long as the context lasts.
// The kernel drops the lock with the process, however it ends.
func lockCard(ctx context.Context, stateDir, address, bootID string) (*card, error) {
	name := filepath.Join(stateDir, "fpga-"+device.Dashed(address)+".lock")
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &Error{Subject: name, Reason: "opening the lock of the card", Err: cause(err), Remedy: "make the folder writable for root"}
	}
	c := &card{file: file, bootID: bootID, record: record{BootID: bootID, Programs: map[string]string{}}}
	const remedy = "it is tried again; if this lasts, end the processes that have the file open"
	err = patiently(ctx, name, "another port of the card is being programmed", remedy, unix.EWOULDBLOCK, func() error {
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		} else if err != nil {
			return unix.EWOULDBLOCK
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	const limit = 1 << 16
	var known record
	text, err := io.ReadAll(io.LimitReader(file, limit))
	if err == nil && json.Unmarshal(text, &known) == nil && known.BootID == bootID && bootID != "" && known.Programs != nil {
		c.record = known
	}
	return c, nil
}

// unlock lets others have the card.
func (c *card) unlock() { c.file.Close() } //nolint:errcheck // what was written is synced

// program is the identity of the OpenCL program that a port has, or empty if nobody knows.
func (c *card) program(port string) string { return c.record.Programs[port] }

// note has a port's OpenCL program known; the empty identity is none.
func (c *card) note(port, identity string) error {
	if c.record.Programs[port] == identity {
		return nil
	}
	if identity == "" {
		delete(c.record.Programs, port)
	} else {
		c.record.Programs[port] = identity
	}
	text, err := json.Marshal(c.record)
	if err == nil {
		err = c.file.Truncate(0)
	}
	if err == nil {
		_, err = c.file.WriteAt(text, 0)
	}
	if err == nil {
		err = c.file.Sync()
	}
	if err != nil {
		return &Error{Subject: c.file.Name(), Reason: "noting what the port is programmed with", Err: cause(err), Remedy: "free some space on the disk of the folder; it is tried again"}
	}
	return nil
}

// poll is how often it is tried again what others are in the way of.
const poll = 100 * time.Millisecond

// patiently does something again and again while the answer is that somebody else is in the
// way, and says what it has waited for if the context ends first. Other answers are returned
// as they are.
func patiently(ctx context.Context, subject, waitingFor, remedy string, inTheWay error, do func() error) error {
	began := time.Now()
	for {
		err := do()
		if !errors.Is(err, inTheWay) {
			return err
		}
		select {
		case <-ctx.Done():
			return &Error{Subject: subject, Reason: waitingFor + ", for " + time.Since(began).Round(time.Second).String(), Err: err, Remedy: remedy}
		case <-time.After(poll):
		}
	}
}
