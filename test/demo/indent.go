package main

import (
	"bytes"
	"io"
)

// indenter puts the lines of other programs below the sentence that announced
// them.
type indenter struct {
	out  io.Writer
	open bool // a line was begun and not ended
}

func indented(out io.Writer) io.Writer { return &indenter{out: out} }

func (i *indenter) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if !i.open {
			if _, err := io.WriteString(i.out, "     "); err != nil {
				return 0, err
			}
		}
		if _, err := i.out.Write(line); err != nil {
			return 0, err
		}
		i.open = !bytes.HasSuffix(line, []byte("\n"))
	}
	return len(p), nil
}
