package sysfs

import (
	"context"
	"sync"
	"time"
)

// Guard bounds how long one waits for the kernel. A write that is not over in time goes on
// in a goroutine of its own; the function is out of bounds until it is. It is safe for
// concurrent use.
type Guard struct {
	writer Writer
	limit  time.Duration

	mu sync.Mutex
	// pending are the writes that the kernel has not answered, by the function's address.
	pending map[string]*StuckError
}

// NewGuard returns the guard of a writer, which gives each write so long.
func NewGuard(w Writer, limit time.Duration) *Guard {
	return &Guard{writer: w, limit: limit, pending: map[string]*StuckError{}}
}

// Write writes to a file for a function, by its address. An error is a [*WriteError], or a
// [*StuckError] if this write or one before it is not answered. It does not end early when
// the context does: what the kernel has begun it finishes.
func (g *Guard) Write(ctx context.Context, address, file, data string) error {
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

// Stuck is the write for a function that the kernel has not answered, or nil.
func (g *Guard) Stuck(address string) *StuckError {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pending[address]
}
