// Package bitstream reads the files with which FPGAs are programmed: which interface they
// are for, which function they bring, and where in them the data for the FPGA is.
//
// There are two formats. A GBS file is a header, metadata in JSON, and the data; OPAE's
// packager writes it. An AOCX file is an OpenCL program: an ELF file with a section that
// is an ELF file with a section that is a compressed GBS file. Both come from people whom
// the node does not know, so no length in them is believed.
package bitstream

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// OpenCL is the ID of the function that all OpenCL programs bring. That an FPGA has it
// already does not mean that it has the right program: see [Bitstream.Hash].
const OpenCL = "18b79ffa2ee54aa096ef4230dafacb5f"

// Bitstream is a file with which FPGAs can be programmed.
type Bitstream struct {
	// InterfaceID is the interface that the FPGA must have, AFUID is the function that it
	// has afterwards (the file afu_id of its port): both in the form of [ID].
	InterfaceID, AFUID string
	// Hash is what tells one OpenCL program from another, 8 to 40 hexadecimal digits in
	// lower case; empty for others, and where the file does not tell.
	Hash string
	// Data is what the FPGA is given, at least one byte. Of a compressed file it can be
	// many times as long as the file, so its reader sets a limit; and it may fail before
	// its end.
	Data io.Reader
}

// Read reads what is in front of the data. The file must stay open for Data to be read.
func Read(file io.ReaderAt, size int64) (Bitstream, error) {
	start := make([]byte, len(elfMagic))
	if _, err := io.ReadFull(io.NewSectionReader(file, 0, size), start); err != nil {
		return Bitstream{}, fmt.Errorf("reading the first bytes: %w", cut(err))
	}
	if bytes.Equal(start, []byte(elfMagic)) {
		return readAOCX(file, size)
	}
	return readGBS(io.NewSectionReader(file, 0, size))
}

// ID returns the canonical form of an ID of an interface or a function, 32 hexadecimal
// digits in lower case, which is how the kernel prints them. The hyphens of an UUID may
// be there.
func ID(text string) (string, bool) {
	if len(text) == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-' {
		text = text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:]
	}
	return strings.ToLower(text), len(text) == 32 && isHex(text)
}

func isHex(text string) bool {
	_, err := hex.DecodeString(text)
	return err == nil
}

// cut says in one way that a file ends too early.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
