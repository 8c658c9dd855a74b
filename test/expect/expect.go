// Package expect holds the two checks that tests of several packages share.
package expect

import (
	"strings"
	"testing"
	"time"
)

// limit is how long a condition may take; it is generous, because it only costs
// time when a test fails.
const limit = 10 * time.Second

// State waits until the state is as wanted, and fails the test if it does not
// become so.
func State(t testing.TB, what string, state func() string, want string) {
	t.Helper()
	deadline := time.After(limit)
	for {
		got := state()
		if got == want {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("waited %v for %s to become %q, it is %q", limit, what, want, got)
		case <-time.After(time.Millisecond):
		}
	}
}

// Error checks that there is an error and that it says all of this.
func Error(t testing.TB, err error, said ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", said)
	}
	for _, s := range said {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("the error does not say %q: %v", s, err)
		}
	}
}
