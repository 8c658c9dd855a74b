package fpgaprogram

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/topolet/topolet/topology/device"
)

// Kernel opens the nodes of engines. [Linux] is the real one.
type Kernel interface {
	// Open opens a character device for reading and writing.
	Open(path string) (Node, error)
}

// Node is an open device node.
type Node interface {
	// Numbers are those of the device that the node stands for.
	Numbers() (major, minor int64)
	// Ioctl is ioctl(2).
	Ioctl(request uint, argument unsafe.Pointer) (int, error)
	Close() error
}

// engine is the management engine of a card, ready to program its ports.
type engine struct {
	node Node
	// path is that of the node on the host.
	path    string
	dialect dialect
}

// dialect is how a set of drivers is talked to. The structures are those of the headers
// include/uapi/linux/fpga-dfl.h of the kernel and intel-fpga.h of OPAE's drivers.
type dialect struct {
	// version and program are requests, status says that the answer to the latter has one.
	version, program uint
	status           bool
}

// dialects are by the name of the set, as the attribute stack of a port tells it.
// DFL_FPGA_GET_API_VERSION and DFL_FPGA_FME_PORT_PR; FPGA_GET_API_VERSION and FPGA_FME_PORT_PR.
var dialects = map[string]dialect{
	"dfl":  {version: 0xb600, program: 0xb680},
	"opae": {version: 0xb500, program: 0xb580, status: true},
}

// apiVersion is the only version of both interfaces.
const apiVersion = 0

// programming is dfl_fpga_fme_port_pr, and with the status fpga_fme_port_pr.
type programming struct {
	argsz, flags uint32
	port, size   uint32
	address      uint64
	// status has a bit for each thing that the hardware found wrong if the answer is EIO.
	status uint64
}

// faults are the meanings of the bits of a status.
var faults = []string{
	"operation error", "checksum error", "incompatible program", "protocol error", "overflow", "timeout", "program not authentic",
}

// openEngine opens an engine's node, whose numbers have to be those that sysfs told a moment
// ago, and waits for others who have it, as long as the context lasts.
func openEngine(ctx context.Context, kernel Kernel, root, stack string, n device.Node) (*engine, error) {
	e := &engine{path: n.Path}
	var known bool
	if e.dialect, known = dialects[stack]; !known {
		return nil, refused(n.Path, "use the drivers of the kernel or of OPAE", "nobody knows how its drivers, %q, are talked to", stack)
	}
	err := patiently(ctx, n.Path, "waiting for others who have the card's engine open",
		"end the program that has it open, such as one of a claim with adminAccess; it is tried again", syscall.EBUSY,
		func() (err error) {
			e.node, err = kernel.Open(filepath.Join("/", root, n.Path))
			return cause(err)
		})
	if err != nil {
		return nil, e.failed("opening the card's engine", err, "see that the node is there, and the kernel's log")
	}
	if major, minor := e.node.Numbers(); major != n.Major || minor != n.Minor {
		err := refused(n.Path, "it is tried again; if this lasts, see what udev makes of the node", "it is the node %d:%d, and the engine's is %d:%d", major, minor, n.Major, n.Minor)
		return nil, errors.Join(err, e.close())
	}
	if err := e.checkVersion(); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *engine) close() error { return e.node.Close() }

// failed is the error of something that was asked of the kernel. One that has been waited for
// says so already.
func (e *engine) failed(doing string, err error, remedy string) error {
	if _, said := errors.AsType[*Error](err); said {
		return err
	}
	return &Error{Subject: e.path, Reason: doing, Err: err, Remedy: remedy}
}

func (e *engine) checkVersion() error {
	const remedy = "use drivers with version 0 of this interface"
	version, err := e.node.Ioctl(e.dialect.version, nil)
	if err != nil {
		return e.failed("asking the driver for its version", err, remedy)
	}
	if version != apiVersion {
		return refused(e.path, remedy, "the driver has version %d of its interface", version)
	}
	return nil
}

// program gives a port its program, and waits for others who do so with the same card, as
// long as the context lasts. Once the kernel has begun it cannot be interrupted.
func (e *engine) program(ctx context.Context, port uint32, data []byte) error {
	const width = 4 // bytes; older drivers want it, and the hardware ignores what is too much
	for len(data)%width != 0 {
		data = append(data, 0)
	}
	var pins runtime.Pinner
	defer pins.Unpin()
	pins.Pin(&data[0])
	argument := &programming{argsz: uint32(unsafe.Sizeof(programming{})), port: port, size: uint32(len(data))} //nolint:gosec // MaxData is less
	argument.address = uint64(uintptr(unsafe.Pointer(&data[0])))                                               //nolint:gosec // the kernel has to be told where to read
	if !e.dialect.status {
		argument.argsz = uint32(unsafe.Offsetof(argument.status))
	}
	const inUse = "end what programs this card beside topolet; it is tried again"
	err := patiently(ctx, e.path, "waiting for others who program the card", inUse, syscall.EBUSY, func() error {
		argument.status = 0
		_, err := e.node.Ioctl(e.dialect.program, unsafe.Pointer(argument)) //nolint:gosec // the same
		return err
	})
	switch {
	case errors.Is(err, syscall.EIO):
		return e.failed(fmt.Sprintf("the hardware refuses the program for port %d%s", port, said(argument.status)), err,
			"see that the file is for this card and sound; the kernel's log says more")
	case errors.Is(err, syscall.EINVAL):
		return e.failed(fmt.Sprintf("the driver refuses the program for port %d", port), err, "see whether the card has this port; the kernel's log says more")
	case err != nil:
		return e.failed(fmt.Sprintf("programming port %d", port), err, "see the kernel's log")
	}
	return nil
}

// said is the status in words, in brackets, or nothing.
func said(status uint64) string {
	text := ""
	for i, fault := range faults {
		if status>>i&1 != 0 {
			text += ", " + fault
		}
	}
	if text == "" && status != 0 {
		text = fmt.Sprintf(", status %#x", status)
	}
	if text == "" {
		return ""
	}
	return " (" + text[len(", "):] + ")"
}
