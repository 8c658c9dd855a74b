package sysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"
)

// WriteError is a write that the kernel answered with an error.
type WriteError struct {
	Address, File, Data string
	Remedy              string
	Err                 error
}

func (e *WriteError) Error() string {
	text := fmt.Sprintf("%s: write %q to /%s: %v", e.Address, strings.TrimSpace(e.Data), e.File, e.Err)
	if e.Remedy != "" {
		text += ": " + e.Remedy
	}
	return text
}

func (e *WriteError) Unwrap() error { return e.Err }

// StuckError is a write that the kernel has not answered: it waits for a process that has
// the function open, and cannot be interrupted. Until it has answered, nothing else is
// written for this function.
type StuckError struct {
	Address, File string
	Since         time.Time
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("%s: the kernel has not answered a write to /%s since %s: end the process that has the function open (the kernel's log names it)",
		e.Address, e.File, e.Since.Format(time.RFC3339))
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
