package bitstream

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const elfMagic = elf.ELFMAG

// section returns the content of the section of that name, of which there must be one.
//
// [elf.NewFile] would do the same and more, but it is not made for files of strangers, as
// its documentation says.
func section(file io.ReaderAt, size int64, name string) (*io.SectionReader, error) {
	f, err := openELF(file, size)
	if err != nil {
		return nil, fmt.Errorf("reading the ELF header: %w", cut(err))
	}
	names, err := f.content(f.names)
	if err != nil {
		return nil, fmt.Errorf("reading the section of names: %w", cut(err))
	}
	var found *io.SectionReader
	for i := range f.sections {
		s, err := f.header(i)
		if err != nil {
			return nil, fmt.Errorf("reading the header of section %d: %w", i, cut(err))
		}
		if !hasName(names, s.Name, name) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("two sections %s", name)
		}
		if found, err = f.content(i); err != nil {
			return nil, fmt.Errorf("section %s: %w", name, cut(err))
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no section %s", name)
	}
	return found, nil
}

// hasName reports whether the text at an offset, which ends with a NUL, is the name.
func hasName(names *io.SectionReader, offset uint32, name string) bool {
	text := make([]byte, len(name)+1)
	_, err := io.ReadFull(io.NewSectionReader(names, int64(offset), int64(len(text))), text)
	return err == nil && string(text) == name+"\x00"
}

// elfFile is a little-endian ELF file of 32 or 64 bits.
type elfFile struct {
	file io.ReaderAt
	size uint64
	// table has the headers of sections; wide says that they are of 64 bits.
	table    *io.SectionReader
	wide     bool
	sections uint16
	// names is the index of the section of names.
	names uint16
}

func openELF(file io.ReaderAt, size int64) (*elfFile, error) {
	f := &elfFile{file: file, size: uint64(size)} //nolint:gosec // G115: it is that of a file
	whole := io.NewSectionReader(file, 0, size)
	var ident [elf.EI_NIDENT]byte
	err := read(whole, 0, &ident)
	if err != nil {
		return nil, err
	}
	if string(ident[:len(elfMagic)]) != elfMagic || elf.Data(ident[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return nil, errors.New("no little-endian ELF file")
	}
	var h elf.Header64
	var entry int
	switch elf.Class(ident[elf.EI_CLASS]) {
	case elf.ELFCLASS32:
		var narrow elf.Header32
		err = read(whole, 0, &narrow)
		h = elf.Header64{Shoff: uint64(narrow.Shoff), Shentsize: narrow.Shentsize, Shnum: narrow.Shnum, Shstrndx: narrow.Shstrndx}
		entry = binary.Size(elf.Section32{})
	case elf.ELFCLASS64:
		err = read(whole, 0, &h)
		f.wide, entry = true, binary.Size(elf.Section64{})
	default:
		err = errors.New("neither of 32 nor of 64 bits")
	}
	if err != nil {
		return nil, err
	}
	if int(h.Shentsize) != entry {
		return nil, fmt.Errorf("headers of sections of %d bytes in place of %d", h.Shentsize, entry)
	}
	f.sections, f.names = h.Shnum, h.Shstrndx
	f.table, err = f.part(h.Shoff, uint64(h.Shnum)*uint64(h.Shentsize))
	return f, err
}

// header returns the header of a section.
func (f *elfFile) header(i uint16) (elf.Section64, error) {
	if f.wide {
		var s elf.Section64
		err := read(f.table, i, &s)
		return s, err
	}
	var s elf.Section32
	err := read(f.table, i, &s)
	return elf.Section64{Name: s.Name, Type: s.Type, Flags: uint64(s.Flags), Off: uint64(s.Off), Size: uint64(s.Size)}, err
}

// content returns what a section holds, which must be in the file as it is.
func (f *elfFile) content(i uint16) (*io.SectionReader, error) {
	s, err := f.header(i)
	if err != nil {
		return nil, err
	}
	if s.Type == uint32(elf.SHT_NOBITS) || s.Flags&uint64(elf.SHF_COMPRESSED) != 0 {
		return nil, errors.New("its content is not in the file")
	}
	return f.part(s.Off, s.Size)
}

// part returns a part of the file, which must be in it as a whole.
func (f *elfFile) part(offset, size uint64) (*io.SectionReader, error) {
	if offset > f.size || size > f.size-offset {
		return nil, io.ErrUnexpectedEOF
	}
	return io.NewSectionReader(f.file, int64(offset), int64(size)), nil //nolint:gosec // G115: both are at most the file's size
}

// read reads one of a row of headers.
func read(from io.ReaderAt, index uint16, header any) error {
	size := int64(binary.Size(header))
	return binary.Read(io.NewSectionReader(from, int64(index)*size, size), binary.LittleEndian, header)
}
