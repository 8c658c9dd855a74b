package bitstream

import (
	"compress/gzip"
	"fmt"
	"io"
	"strings"
)

// The sections of an AOCX file that matter here.
const (
	programSection = ".acl.fpga.bin"  // an ELF file
	imageSection   = ".acl.gbs.gz"    // of that file: a compressed GBS file
	hashSection    = ".acl.rand_hash" // text
)

const minHash, maxHash = 8, 40

// readAOCX reads the GBS file in an AOCX file.
func readAOCX(file io.ReaderAt, size int64) (Bitstream, error) {
	program, err := section(file, size, programSection)
	if err != nil {
		return Bitstream{}, err
	}
	image, err := section(program, program.Size(), imageSection)
	if err != nil {
		return Bitstream{}, fmt.Errorf("in %s: %w", programSection, err)
	}
	content, err := gzip.NewReader(image)
	if err != nil {
		return Bitstream{}, fmt.Errorf("decompressing %s: %w", imageSection, cut(err))
	}
	b, err := readGBS(content)
	if err != nil {
		return Bitstream{}, fmt.Errorf("in %s: %w", imageSection, err)
	}
	b.Hash = readHash(file, size)
	return b, nil
}

func readHash(file io.ReaderAt, size int64) string {
	found, err := section(file, size, hashSection)
	if err != nil {
		return ""
	}
	content, err := io.ReadAll(io.LimitReader(found, maxHash+2))
	hash := strings.ToLower(strings.Trim(string(content), " \n\x00"))
	if err != nil || len(hash) < minHash || len(hash) > maxHash || strings.Trim(hash, "0123456789abcdef") != "" {
		return ""
	}
	return hash
}
