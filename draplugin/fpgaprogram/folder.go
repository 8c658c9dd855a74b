package fpgaprogram

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/topolet/topolet/topology/device/fpga/bitstream"
)

// Folder has the programs of a node: <interface ID>/<AFU ID>.gbs or .aocx.
type Folder struct {
	// Root is the directory in which the host's are; empty is /.
	Root string
	// Path is the folder's on the host, in its clean form.
	Path string
}

// File is a program that fits an interface and brings a function.
type File struct {
	bitstream.Bitstream
	// Path is the file's on the host.
	Path string
	file *os.File
}

// Close ends the use of the file, and of its data.
func (f *File) Close() error { return f.file.Close() }

// MaxData bounds what an FPGA is given, in bytes: several times as much as the largest
// region needs, and no more than a host can spare.
const MaxData = 256 << 20

// Content reads the data for the FPGA, once.
func (f *File) Content() ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f.Data, MaxData+1))
	if err != nil {
		return nil, &Error{Subject: f.Path, Reason: "reading its data", Err: err, Remedy: "put a sound copy of the file there"}
	}
	if len(data) > MaxData {
		return nil, refused(f.Path, "use a file for this FPGA", "it has more than %d bytes for the FPGA", MaxData)
	}
	return data, nil
}

// Find opens the program by which a port with an interface gets a function, and reads its
// header. Both IDs are in the form of [bitstream.ID]. No link leads it out of the folder. The
// error is an [*Error].
func (f Folder) Find(interfaceID, afuID string) (*File, error) {
	for _, id := range []string{interfaceID, afuID} {
		if canonical, ok := bitstream.ID(id); !ok || canonical != id {
			return nil, refused(f.Path, "use 32 hexadecimal digits in lower case", "%q is not the ID of an interface or a function", id)
		}
	}
	root, err := os.OpenRoot(filepath.Join("/", f.Root, f.Path))
	if err != nil {
		return nil, &Error{Subject: f.Path, Reason: "opening the folder of programs", Err: cause(err), Remedy: "make the folder on the host"}
	}
	defer root.Close() //nolint:errcheck // only read
	for _, ending := range []string{".gbs", ".aocx"} {
		name := path.Join(interfaceID, afuID+ending)
		file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		found := &File{Path: path.Join(f.Path, name), file: file}
		if err != nil {
			return nil, &Error{Subject: found.Path, Reason: "opening the program", Err: cause(err), Remedy: "put the file itself there, readable for root"}
		}
		if err := found.read(interfaceID, afuID); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		return found, nil
	}
	return nil, refused(path.Join(f.Path, interfaceID, afuID+".gbs"), "put the program there, or ask for another function",
		"there is neither this file nor one that ends in .aocx")
}

// read reads the header, which must say what the file's name does.
func (f *File) read(interfaceID, afuID string) error {
	const remedy = "put the right file there"
	info, err := f.file.Stat()
	if err != nil {
		return &Error{Subject: f.Path, Reason: "looking at the program", Err: cause(err), Remedy: remedy}
	}
	if !info.Mode().IsRegular() {
		return refused(f.Path, remedy, "it is no file")
	}
	if f.Bitstream, err = bitstream.Read(f.file, info.Size()); err != nil {
		return &Error{Subject: f.Path, Reason: "it is no program for an FPGA", Err: err, Remedy: remedy}
	}
	if f.InterfaceID != interfaceID {
		return refused(f.Path, remedy, "it is for cards with interface %s", f.InterfaceID)
	}
	if f.AFUID != afuID {
		return refused(f.Path, remedy, "it brings function %s", f.AFUID)
	}
	return nil
}

// cause is the kernel's answer without the path, which is said already in the host's terms.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
