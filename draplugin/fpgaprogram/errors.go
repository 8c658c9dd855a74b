package fpgaprogram

import (
	"fmt"
	"strings"
)

// Error says what keeps a port from being programmed, and what to do about it.
type Error struct {
	// Subject is a file, a folder or a node of the host, or a device.
	Subject string
	Reason  string
	Remedy  string
	// Err is the kernel's answer, if it is one.
	Err error
}

func (e *Error) Error() string {
	parts := []string{e.Subject, e.Reason}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(append(parts, e.Remedy), ": ")
}

func (e *Error) Unwrap() error { return e.Err }

// refused is an [Error] that is not the kernel's.
func refused(subject, remedy, reason string, values ...any) error {
	return &Error{Subject: subject, Reason: fmt.Sprintf(reason, values...), Remedy: remedy}
}
