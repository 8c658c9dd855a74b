package bitstream_test

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/topolet/topolet/topology/device/fpga/bitstream"
)

const (
	interfaceID = "69528db6eb31577a8c3668f9faa081f6"
	afuID       = "d8424dc4a4a3c413f89e433683f9040b"
	hash        = "0123456789abcdef0123456789abcdef01234567"
	metadata    = `{"version": 1, "platform-name": "DCP", "afu-image": {"magic-no": 488605312,
		"interface-uuid": "69528DB6-EB31-577A-8C36-68F9FAA081F6", "power": 0,
		"accelerator-clusters": [{"name": "nlb_mode_0", "total-contexts": 1,
			"accelerator-type-uuid": "d8424dc4-a4a3-c413-f89e-433683f9040b"}]}}`
)

func gbs(metadata, data string) []byte {
	var b bytes.Buffer
	put(&b, uint64(0x414750466e6f6558), uint64(0x31303076534247b7), as[uint32](len(metadata)))
	b.WriteString(metadata + data)
	return b.Bytes()
}

func put(b *bytes.Buffer, values ...any) {
	for _, v := range values {
		if err := binary.Write(b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
}

// as converts numbers that fit.
func as[To, From ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int](n From) To { return To(n) }

// sections are the parts of an ELF file, by name and content.
type sections [][2]string

// elf32 and elf64 put sections into a file: the header, the contents, and at the end the
// headers of the sections, of which the first one is none and the last one has the names.
func elf32(parts sections) []byte {
	content, headers := layout(parts, 52)
	var b bytes.Buffer
	put(&b, elf.Header32{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 1, 1, 1}, Version: 1, Ehsize: 52, Shentsize: 40,
		Shoff: as[uint32](52 + len(content)), Shnum: as[uint16](len(headers)), Shstrndx: as[uint16](len(headers) - 1),
	})
	b.WriteString(content)
	for _, h := range headers {
		put(&b, elf.Section32{Name: h.Name, Type: h.Type, Off: as[uint32](h.Off), Size: as[uint32](h.Size)})
	}
	return b.Bytes()
}

func elf64(parts sections) []byte {
	content, headers := layout(parts, 64)
	var b bytes.Buffer
	put(&b, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Version: 1, Ehsize: 64, Shentsize: 64,
		Shoff: as[uint64](64 + len(content)), Shnum: as[uint16](len(headers)), Shstrndx: as[uint16](len(headers) - 1),
	})
	b.WriteString(content)
	put(&b, headers)
	return b.Bytes()
}

func layout(parts sections, start int) (content string, headers []elf.Section64) {
	names := "\x00"
	headers = []elf.Section64{{}}
	for _, part := range append(parts, [2]string{".shstrtab", ""}) {
		headers = append(headers, elf.Section64{
			Name: as[uint32](len(names)), Type: uint32(elf.SHT_PROGBITS), Off: as[uint64](start + len(content)), Size: as[uint64](len(part[1])),
		})
		names += part[0] + "\x00"
		content += part[1]
	}
	headers[len(headers)-1].Type = uint32(elf.SHT_STRTAB)
	headers[len(headers)-1].Size = as[uint64](len(names))
	return content + names, headers
}

func compressed(content []byte) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.String()
}

func aocx(write func(sections) []byte, gbs []byte) []byte {
	program := write(sections{{".acl.gbs.gz", compressed(gbs)}, {".failing_clocks.rpt", "none"}})
	return write(sections{{".acl.board", "pac_a10"}, {".acl.fpga.bin", string(program)}, {".acl.rand_hash", strings.ToUpper(hash) + "\n"}})
}

// strict is a file that must not be asked for what is outside it.
type strict []byte

func (s strict) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 || offset+int64(len(p)) > int64(len(s)) {
		panic(fmt.Sprintf("%d bytes at %d of a file of %d", len(p), offset, len(s)))
	}
	return bytes.NewReader(s).ReadAt(p, offset)
}

func read(content []byte) (bitstream.Bitstream, error) {
	return bitstream.Read(strict(content), int64(len(content)))
}

func TestBothFormatsTellWhatTheyAreAndGiveTheirData(t *testing.T) {
	image := gbs(metadata, "the data")
	for name, test := range map[string]struct {
		content []byte
		hash    string
	}{
		"GBS":                     {image, ""},
		"GBS with padding":        {gbs(metadata+"\n\x00\x00", "the data"), ""},
		"AOCX of 32 bits":         {aocx(elf32, image), hash},
		"AOCX of 64 bits":         {aocx(elf64, image), hash},
		"AOCX without a hash":     {elf64(sections{{".acl.fpga.bin", string(elf32(sections{{".acl.gbs.gz", compressed(image)}}))}}), ""},
		"AOCX with a long hash":   {withHash(image, strings.Repeat("0", 41)), ""},
		"AOCX with a short hash":  {withHash(image, "0123456"), ""},
		"AOCX with another hash":  {withHash(image, "../../../../etc/passwd"), ""},
		"AOCX with no hash in it": {withHash(image, ""), ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := read(test.content)
			if err != nil {
				t.Fatal(err)
			}
			if b.InterfaceID != interfaceID || b.AFUID != afuID || b.Hash != test.hash {
				t.Errorf("got %+v", b)
			}
			if data, err := io.ReadAll(b.Data); err != nil || string(data) != "the data" {
				t.Errorf("data %q, %v", data, err)
			}
		})
	}
}

func withHash(image []byte, hash string) []byte {
	program := elf64(sections{{".acl.gbs.gz", compressed(image)}})
	return elf64(sections{{".acl.fpga.bin", string(program)}, {".acl.rand_hash", hash}})
}

// The standard library is asked whether the files above are what they are meant to be.
func TestFilesMadeForTestsAreELF(t *testing.T) {
	for _, content := range [][]byte{aocx(elf32, gbs(metadata, "d")), aocx(elf64, gbs(metadata, "d"))} {
		f, err := elf.NewFile(bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		if s := f.Section(".acl.rand_hash"); s == nil || s.Size != 41 {
			t.Errorf("section %+v", s)
		}
	}
}

// changed returns a copy with other bytes at an offset; a negative one counts from the end.
func changed(content []byte, offset int, bytes ...byte) []byte {
	if offset < 0 {
		offset += len(content)
	}
	c := append([]byte(nil), content...)
	copy(c[offset:], bytes)
	return c
}

func TestWhatIsNoBitstreamIsRefused(t *testing.T) {
	image, much := gbs(metadata, "d"), bytes.Repeat([]byte{0xff}, 8)
	program := sections{{".acl.gbs.gz", compressed(image)}}
	whole := elf64(sections{{".acl.fpga.bin", string(elf64(program))}})
	for name, content := range map[string][]byte{
		"nothing":                                 nil,
		"three bytes":                             []byte("\x7fEL"),
		"text":                                    []byte("#!/bin/sh\necho is that a bitstream?\n"),
		"another first number":                    changed(image, 0, 'x'),
		"another second number":                   changed(image, 15, 'x'),
		"metadata of no length":                   changed(image, 16, 0, 0, 0, 0),
		"metadata of 4096 bytes":                  gbs(metadata+strings.Repeat(" ", 4096-len(metadata)), "d"),
		"metadata of 4 GB":                        changed(image, 16, 0xff, 0xff, 0xff, 0xff),
		"metadata that are longer than the file":  changed(image, 16, 0xff, 0x0f, 0, 0),
		"metadata that are not JSON":              gbs("{interface}", "d"),
		"metadata that end early":                 gbs(metadata[:40], "d"),
		"metadata of other types":                 gbs(`{"afu-image": []}`, "d"),
		"no metadata to speak of":                 gbs(`{}`, "d"),
		"no function":                             gbs(strings.Replace(metadata, "clusters", "others", 1), "d"),
		"two functions":                           gbs(strings.Replace(metadata, `}]`, `}, {"accelerator-type-uuid": "`+afuID+`"}]`, 1), "d"),
		"an interface that leads elsewhere":       gbs(strings.Replace(metadata, "69528DB6-EB31-577A-8C36-68F9FAA081F6", "../../../../../../../../../../../etc", 1), "d"),
		"a function that is no ID":                gbs(strings.Replace(metadata, "d8424dc4", "g8424dc4", 1), "d"),
		"no data":                                 gbs(metadata, ""),
		"ELF and no more":                         []byte("\x7fELF"),
		"ELF of another byte order":               changed(whole, 5, 2),
		"ELF of 128 bits":                         changed(whole, 4, 3),
		"ELF with its table behind the end":       changed(whole, 0x28, much...),
		"ELF with its table near the end":         changed(whole, 0x28, as[byte](len(whole)), as[byte](len(whole)>>8), 0, 0, 0, 0, 0, 0),
		"ELF with entries of one byte":            changed(whole, 0x3a, 1, 0),
		"ELF with entries of 65 bytes":            changed(append(slices.Clip(whole), much...), 0x3a, 65, 0),
		"ELF without sections":                    changed(whole, 0x3c, 0, 0),
		"ELF with 65535 sections":                 changed(whole, 0x3c, 0xff, 0xff),
		"ELF with its names behind the last one":  changed(whole, 0x3c, 2, 0),
		"ELF with its names in no section":        changed(whole, 0x3e, 0xff, 0xff),
		"ELF with its names behind the end":       changed(whole, -64+0x18, much...),
		"ELF with names of endless length":        changed(whole, -64+0x20, much...),
		"a section behind the end":                changed(whole, -128+0x18, much...),
		"a section of endless length":             changed(whole, -128+0x20, much...),
		"a section whose end wraps around":        changed(changed(whole, -128+0x18, 0, 1), -128+0x20, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"a section that is not in the file":       changed(whole, -128+4, byte(elf.SHT_NOBITS)),
		"a section that is compressed":            changed(whole, -128+9, 8),
		"a section of another name":               elf64(sections{{".acl.fpga.binary", string(elf64(program))}}),
		"the section twice":                       elf64(sections{{".acl.fpga.bin", string(elf64(program))}, {".acl.fpga.bin", string(elf64(program))}}),
		"a program that is no ELF file":           elf64(sections{{".acl.fpga.bin", "program"}}),
		"a program without an image":              elf64(sections{{".acl.fpga.bin", string(elf64(nil))}}),
		"an image that is not compressed":         elf64(sections{{".acl.fpga.bin", string(elf64(sections{{".acl.gbs.gz", string(image)}}))}}),
		"an image that ends early":                elf64(sections{{".acl.fpga.bin", string(elf64(sections{{".acl.gbs.gz", program[0][1][:60]}}))}}),
		"an image of nothing":                     elf64(sections{{".acl.fpga.bin", string(elf64(sections{{".acl.gbs.gz", ""}}))}}),
		"an image that is no GBS file":            aocx(elf64, []byte("image")),
		"an image without data":                   aocx(elf64, gbs(metadata, "")),
		"a section that is its own ELF file":      aocx(elf64, whole),
		"an ELF file of 32 bits, cut in its head": elf32(sections{{".acl.fpga.bin", ""}})[:51],
	} {
		t.Run(name, func(t *testing.T) {
			b, err := read(content)
			if err == nil || b.Data != nil {
				t.Errorf("got %+v, %v", b, err)
			}
			if errors.Is(err, io.EOF) {
				t.Errorf("%v is for readers that are at their end", err)
			}
		})
	}
}

// Wherever a file is cut, it is refused, or its data end early.
func TestACutFileIsNotTakenForAWholeOne(t *testing.T) {
	for _, content := range [][]byte{gbs(metadata, "d"), aocx(elf32, gbs(metadata, "d")), aocx(elf64, gbs(metadata, "d"))} {
		for n := range content {
			if b, err := read(content[:n]); err == nil {
				t.Errorf("%d of %d bytes give %+v", n, len(content), b)
			}
			// The file may be shorter than it was when its size was asked for.
			if b, err := bitstream.Read(bytes.NewReader(content[:n]), int64(len(content))); err == nil {
				t.Errorf("%d bytes, said to be %d, give %+v", n, len(content), b)
			}
		}
	}
	if _, err := bitstream.Read(bytes.NewReader(nil), -1); err == nil {
		t.Error("a file of less than nothing is read")
	}
}

func TestDamagedDataAreNoticedAtTheirEnd(t *testing.T) {
	image := compressed(gbs(metadata, strings.Repeat("data", 10000)))
	damaged := image[:len(image)-5] + "\xff" + image[len(image)-4:]
	b, err := read(elf64(sections{{".acl.fpga.bin", string(elf64(sections{{".acl.gbs.gz", damaged}}))}}))
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(b.Data); err == nil {
		t.Errorf("%d bytes of data", len(data))
	}
}

func TestIDsHaveOneForm(t *testing.T) {
	for text, want := range map[string]string{
		interfaceID:                            interfaceID,
		strings.ToUpper(interfaceID):           interfaceID,
		"69528db6-eb31-577a-8c36-68f9faa081f6": interfaceID,
		"ffffffffffffffffffffffffffffffff":     "ffffffffffffffffffffffffffffffff",
		"":                                     "",
		interfaceID[1:]:                        "",
		interfaceID + "0":                      "",
		"0x" + interfaceID[2:]:                 "",
		"6952-8db6-eb31-577a-8c36-68f9faa081f": "",
		"69528db6-eb31577a-8c36-68f9-faa081f6": "",
		"69528db6-eb31-577a-8c36068f9faa081f6": "",
		"../../../../../../../../../../../etc": "",
		"69528db6 eb31 577a 8c36 68f9faa081f6": "",
	} {
		id, ok := bitstream.ID(text)
		if ok != (want != "") || ok && id != want {
			t.Errorf("%q: got %q, %v, want %q", text, id, ok, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	image := gbs(metadata, "the data")
	for _, content := range [][]byte{nil, image, gbs("{}", ""), aocx(elf32, image), aocx(elf64, image), elf64(nil)} {
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		b, err := read(content)
		if err != nil {
			return
		}
		for _, id := range []string{b.InterfaceID, b.AFUID} {
			if canonical, ok := bitstream.ID(id); !ok || canonical != id {
				t.Errorf("ID %q", id)
			}
		}
		if strings.Trim(b.Hash, "0123456789abcdef") != "" || len(b.Hash) > 40 {
			t.Errorf("hash %q", b.Hash)
		}
		// What can be read is there, and no longer than what deflate can make of the file.
		n, _ := io.Copy(io.Discard, io.LimitReader(b.Data, 1<<20))
		if n == 0 || n > 2048*int64(len(content)) {
			t.Errorf("%d bytes of data in a file of %d", n, len(content))
		}
	})
}
