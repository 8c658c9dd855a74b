package gpu

import (
	"fmt"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// DRM_IOCTL_XE_DEVICE_QUERY and DRM_IOCTL_I915_QUERY, and what they are asked for:
// DRM_XE_DEVICE_QUERY_MEM_REGIONS and DRM_I915_QUERY_MEMORY_REGIONS.
const (
	xeRequest, xeRegions     = 0xc0286440, 1
	i915Request, i915Regions = 0xc0106479, 4
)

// xeQuery is the kernel's drm_xe_device_query.
type xeQuery struct {
	extensions  uint64
	query, size uint32
	data        uint64
	reserved    [2]uint64
}

// i915Query is the kernel's drm_i915_query, i915Item its drm_i915_query_item, whose length
// is an error if it is negative.
type i915Query struct {
	count, flags uint32
	items        uint64
}

type i915Item struct {
	id     uint64
	length int32
	flags  uint32
	data   uint64
}

// A request contains the size of its argument.
var (
	_ [xeRequest >> 16 & 0x3fff]byte   = [unsafe.Sizeof(xeQuery{})]byte{}
	_ [i915Request >> 16 & 0x3fff]byte = [unsafe.Sizeof(i915Query{})]byte{}
)

// LocalMemory implements [MemoryQuery].
func (q Ioctl) LocalMemory(f topology.PCIFunction, card device.Node) (uint64, error) {
	name := filepath.Join("/", q.Root, card.Path)
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("opening %s: %w", name, err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	// Cards are numbered anew when drivers are bound: a node may have become another's.
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFCHR || int64(unix.Major(stat.Rdev)) != card.Major || int64(unix.Minor(stat.Rdev)) != card.Minor {
		return 0, fmt.Errorf("%s is not the node %d:%d", name, card.Major, card.Minor)
	}
	if q.Call == nil {
		q.Call = ioctl
	}
	var bytes uint64
	switch f.Driver {
	case xe:
		bytes, err = askTwice(xeHeader, func(answer []byte) (int, error) { return q.askXe(fd, answer) })
	case i915:
		bytes, err = askTwice(i915Header, func(answer []byte) (int, error) { return q.askI915(fd, answer) })
	default:
		err = fmt.Errorf("driver %q is neither %s nor %s", f.Driver, i915, xe)
	}
	if err != nil {
		return 0, fmt.Errorf("asking %s: %w", name, err)
	}
	return bytes, nil
}

func (q Ioctl) askXe(fd int, answer []byte) (length int, err error) {
	var pins runtime.Pinner
	defer pins.Unpin()
	argument := &xeQuery{query: xeRegions, size: uint32(len(answer)), data: address(&pins, answer)} //nolint:gosec // maxAnswer is less
	err = q.Call(fd, xeRequest, unsafe.Pointer(argument))                                           //nolint:gosec // the kernel has to be told where to write
	return int(argument.size), err
}

func (q Ioctl) askI915(fd int, answer []byte) (length int, err error) {
	var pins runtime.Pinner
	defer pins.Unpin()
	item := &i915Item{id: i915Regions, length: int32(len(answer)), data: address(&pins, answer)} //nolint:gosec // maxAnswer is less
	pins.Pin(item)
	argument := &i915Query{count: 1, items: uint64(uintptr(unsafe.Pointer(item)))} //nolint:gosec // the kernel has to be told where to write
	if err := q.Call(fd, i915Request, unsafe.Pointer(argument)); err != nil {      //nolint:gosec // the same
		return 0, err
	}
	if item.length < 0 {
		return 0, syscall.Errno(-item.length)
	}
	return int(item.length), nil
}

// address returns where the kernel can write an answer to while it is pinned.
func address(pins *runtime.Pinner, answer []byte) uint64 {
	if len(answer) == 0 {
		return 0
	}
	pins.Pin(&answer[0])
	return uint64(uintptr(unsafe.Pointer(&answer[0]))) //nolint:gosec // the kernel has to be told where to write
}

func ioctl(fd int, request uint, argument unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(argument))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}
