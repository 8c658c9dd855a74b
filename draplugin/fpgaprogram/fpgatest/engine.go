package fpgatest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/topolet/topolet/draplugin/fpgaprogram"
)

var _ fpgaprogram.Kernel = (*Card)(nil)

// Open implements [fpgaprogram.Kernel] for a machine that has this card alone.
func (c *Card) Open(path string) (fpgaprogram.Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case path != filepath.Join(c.host.Dir, "dev", c.node):
		return nil, syscall.ENOENT
	case c.BusyOpens > 0:
		c.BusyOpens--
		return nil, syscall.EBUSY
	case c.stack.exclusive && c.open > 0:
		return nil, syscall.EBUSY
	}
	c.open++
	return &node{card: c}, nil
}

type node struct {
	card   *Card
	closed bool
}

func (n *node) Numbers() (major, minor int64) { return 238, n.card.Minor }

func (n *node) Close() error {
	n.card.mu.Lock()
	defer n.card.mu.Unlock()
	if n.closed {
		return syscall.EBADF
	}
	n.closed = true
	n.card.open--
	return nil
}

// Ioctl answers like the drivers, dfl-fme-main.c and dfl-fme-pr.c and what they come from.
func (n *node) Ioctl(request uint, argument unsafe.Pointer) (int, error) {
	version, program, size := uint(0xb600), uint(0xb680), uint64(24)
	if n.card.stack.exclusive {
		version, program, size = 0xb500, 0xb580, 32
	}
	switch request {
	case version:
		return n.card.Version, nil
	case program:
		return 0, n.card.program(uint64(uintptr(argument)), size)
	}
	return 0, syscall.ENOTTY
}

// program reads and writes the memory of the process where it is told to, as the kernel does.
func (c *Card) program(at, size uint64) error {
	memory, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		c.t.Skip("the memory of the process cannot be read here:", err)
	}
	defer memory.Close() //nolint:errcheck // not a file
	argument := make([]byte, size)
	if _, err := memory.ReadAt(argument, int64(at)); err != nil { //nolint:gosec // user space is in the lower half
		return syscall.EFAULT
	}
	word := func(at int) uint32 { return binary.NativeEndian.Uint32(argument[at:]) }
	if uint64(word(0)) != size || word(4) != 0 || word(12) == 0 || word(12)%4 != 0 {
		return syscall.EINVAL
	}
	data := make([]byte, word(12))
	if _, err := memory.ReadAt(data, int64(binary.NativeEndian.Uint64(argument[16:]))); err != nil { //nolint:gosec // the same
		return syscall.EFAULT
	}
	status, err := c.load(word(8), strings.Trim(string(data), "\x00"))
	if size > 24 {
		if _, err := memory.WriteAt(binary.NativeEndian.AppendUint64(nil, status), int64(at)+24); err != nil { //nolint:gosec // the same
			return syscall.EFAULT
		}
	}
	return err
}

// load is what the hardware does, which takes its time.
func (c *Card) load(port uint32, data string) (status uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.BusyPrograms > 0 {
		c.BusyPrograms--
		return 0, syscall.EBUSY
	}
	if c.at > 0 {
		c.events = append(c.events, "TWO AT A TIME")
		return 0, syscall.EBUSY
	}
	c.at++
	c.mu.Unlock()
	time.Sleep(20 * time.Millisecond)
	c.mu.Lock()
	c.at--
	interfaceID, rest, _ := strings.Cut(data, " ")
	afuID, text, _ := strings.Cut(rest, " ")
	if _, ok := c.ports[port]; !ok || interfaceID != c.interfaceID {
		return 0, syscall.EINVAL
	}
	c.events = append(c.events, fmt.Sprintf("port%d %s", port, text))
	if c.Breaks {
		c.ports[port] = Crashed
		c.show(port, Crashed)
		return 1<<1 | 1<<2, syscall.EIO
	}
	if c.Wrong != "" {
		afuID = c.Wrong
	}
	c.ports[port] = afuID
	c.show(port, afuID)
	if c.After != nil {
		c.After()
	}
	return 0, nil
}
