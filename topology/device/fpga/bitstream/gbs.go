package bitstream

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// gbsMagic is what a GBS file begins with, two little-endian numbers.
var gbsMagic = [2]uint64{0x414750466e6f6558, 0x31303076534247b7}

// maxMetadata is the length that metadata stay below, in bytes.
const maxMetadata = 4096

// readGBS reads the header and the metadata; the data are the rest.
func readGBS(file io.Reader) (Bitstream, error) {
	var header struct {
		Magic    [2]uint64
		Metadata uint32 // its length
	}
	if err := binary.Read(file, binary.LittleEndian, &header); err != nil {
		return Bitstream{}, fmt.Errorf("reading the header: %w", cut(err))
	}
	if header.Magic != gbsMagic {
		return Bitstream{}, errors.New("neither a GBS nor an AOCX file")
	}
	if header.Metadata >= maxMetadata {
		return Bitstream{}, fmt.Errorf("metadata of %d bytes", header.Metadata)
	}
	text := make([]byte, header.Metadata)
	if _, err := io.ReadFull(file, text); err != nil {
		return Bitstream{}, fmt.Errorf("reading the metadata: %w", cut(err))
	}
	b, err := parseMetadata(text)
	if err != nil {
		return Bitstream{}, err
	}
	data := bufio.NewReader(file)
	if _, err := data.Peek(1); err != nil {
		return Bitstream{}, fmt.Errorf("reading the data: %w", cut(err))
	}
	b.Data = data
	return b, nil
}

// parseMetadata finds the two IDs. What follows the JSON is padding.
func parseMetadata(text []byte) (Bitstream, error) {
	var metadata struct {
		Image struct {
			Interface string `json:"interface-uuid"`
			Clusters  []struct {
				Type string `json:"accelerator-type-uuid"`
			} `json:"accelerator-clusters"`
		} `json:"afu-image"`
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&metadata); err != nil {
		return Bitstream{}, fmt.Errorf("reading the metadata: %w", cut(err))
	}
	if n := len(metadata.Image.Clusters); n != 1 {
		return Bitstream{}, fmt.Errorf("metadata of %d functions in place of one", n)
	}
	var b Bitstream
	var okInterface, okFunction bool
	b.InterfaceID, okInterface = ID(metadata.Image.Interface)
	b.AFUID, okFunction = ID(metadata.Image.Clusters[0].Type)
	if !okInterface || !okFunction {
		return Bitstream{}, fmt.Errorf("the IDs of interface and function are %q and %q",
			metadata.Image.Interface, metadata.Image.Clusters[0].Type)
	}
	return b, nil
}
