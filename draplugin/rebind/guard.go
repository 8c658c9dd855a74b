package rebind

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"time"
)

// guard bounds how long one waits for the kernel. A write that is not over in time goes on
// in a goroutine of its own; the function is out of bounds until it is.
type guard struct {
	writer Writer
	limit  time.Duration

	mu sync.Mutex
	// pending are the writes that the kernel has not answered, by the function's address.
	pending map[string]*StuckError
}

// write does not end early when the context does: what the kernel has begun it finishes.
func (g *guard) write(ctx context.Context, address, file, data string) error {
	if err := ctx.Err(); err != nil {
		return &WriteError{Address: address, File: file, Data: data, Err: err}
	}
	g.mu.Lock()
	if stuck := g.pending[address]; stuck != nil {
		g.mu.Unlock()
		return stuck
	}
	stuck := &StuckError{Address: address, File: file, Since: time.Now()}
	g.pending[address] = stuck
	g.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.limit)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		err := g.writer.Write(ctx, file, data)
		g.mu.Lock()
		delete(g.pending, address)
		g.mu.Unlock()
		answer <- err
	}()
	select {
	case err := <-answer:
		if err != nil {
			return &WriteError{Address: address, File: file, Data: data, Err: err, Remedy: remedy(file, err)}
		}
		return nil
	case <-ctx.Done():
		return stuck
	}
}

// stuck is the write for a function that the kernel has not answered.
func (g *guard) stuck(address string) *StuckError {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pending[address]
}

// remedy is what can be done about a write that failed.
func remedy(file string, err error) string {
	isBind := strings.HasSuffix(file, "/bind")
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return "let topolet write to the host's /sys"
	case isBind && errors.Is(err, syscall.EBUSY):
		return "see what else binds drivers on this host"
	case isBind && errors.Is(err, syscall.ENODEV):
		return "the driver does not take this function"
	}
	return "see the kernel's log"
}
