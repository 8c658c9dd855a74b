package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// wantsColour reports whether the output goes to a person's terminal that shows
// colours, and the person has not asked for none (no-color.org).
func wantsColour(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
