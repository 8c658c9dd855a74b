package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/topolet/topolet/allocator"
)

const (
	checkpointName = "checkpoint.json"
	lockName       = "lock"
	// lockPoll is part of the time without an active topolet during an update.
	lockPoll = 20 * time.Millisecond
)

// lockStateDir makes the folder and waits until no other process owns it: during
// an update the old instance is there until the new one stands by, which is called
// if there is one. The kernel drops the lock with the process, however it ends.
func lockStateDir(ctx context.Context, dir string, standBy func()) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", &allocator.SaveError{Path: dir, Err: err})
	}
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", &allocator.SaveError{Path: filepath.Join(dir, lockName), Err: err})
	}
	said := false
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil //nolint:errcheck // closing unlocks
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock the state folder: %w", err), file.Close())
		}
		if !said {
			said = true
			standBy()
			klog.FromContext(ctx).Info("Another topolet runs on this node, waiting for it to end", "stateDir", dir)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for another topolet to release %s: %w", dir, ctx.Err()), file.Close())
		case <-time.After(lockPoll):
		}
	}
}
