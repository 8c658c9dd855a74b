package gputest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/topology/device"
)

// Null, Zero and Full are nodes that every host has and anyone may open. No driver of GPUs
// answers for them, but a [Kernel] does.
var (
	Null = device.Node{Path: "/dev/null", Major: 1, Minor: 3}
	Zero = device.Node{Path: "/dev/zero", Major: 1, Minor: 5}
	Full = device.Node{Path: "/dev/full", Major: 1, Minor: 7}
)

// Kernel is one that has drivers of GPUs behind some nodes, and answers to the ioctls of i915
// and xe. Like a kernel, it reads and writes the memory of the process where it is told to.
// What is set must not change while it is asked.
type Kernel struct {
	memory  *os.File
	answers map[numbers][]byte
	refuses map[numbers]syscall.Errno
}

// numbers are a node's, major and minor.
type numbers [2]uint32

// NewKernel returns a kernel without GPUs. It skips the test where a process cannot read its
// own memory.
func NewKernel(t testing.TB) *Kernel {
	t.Helper()
	memory, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		t.Skip("the memory of the process cannot be read here:", err)
	}
	t.Cleanup(func() { memory.Close() }) //nolint:errcheck // not a file
	return &Kernel{memory: memory, answers: map[numbers][]byte{}, refuses: map[numbers]syscall.Errno{}}
}

// Answer sets what is answered to who has opened a node, see [Answer].
func (k *Kernel) Answer(node device.Node, answer []byte) { k.answers[numbersOf(node)] = answer }

// Refuse has the driver behind a node answer with an error, in the way that it does.
func (k *Kernel) Refuse(node device.Node, err syscall.Errno) { k.refuses[numbersOf(node)] = err }

func numbersOf(n device.Node) numbers { return numbers{uint32(n.Major), uint32(n.Minor)} } //nolint:gosec // a node's

// Ioctl is ioctl(2).
func (k *Kernel) Ioctl(fd int, request uint, argument unsafe.Pointer) error {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	node := numbers{unix.Major(stat.Rdev), unix.Minor(stat.Rdev)}
	answer, refuses := k.answers[node], k.refuses[node]
	switch at := uint64(uintptr(argument)); {
	case answer == nil && refuses == 0:
	case request == 0xc0286440:
		return k.xe(at, answer, refuses)
	case request == 0xc0106479:
		return k.i915(at, answer, refuses)
	}
	return syscall.ENOTTY
}

func (k *Kernel) xe(at uint64, answer []byte, refuses syscall.Errno) error {
	query, err := k.words(at, 5)
	if err != nil {
		return err
	}
	id, size := halves(query[1])
	switch {
	case refuses != 0:
		return refuses
	case id != 1 || query[0] != 0 || query[3] != 0 || query[4] != 0:
		return syscall.EINVAL
	case size == 0:
		return k.write(at+12, uint32(len(answer))) //nolint:gosec // short
	case int(size) != len(answer):
		return syscall.EINVAL
	}
	return k.write(query[2], answer)
}

func (k *Kernel) i915(at uint64, answer []byte, refuses syscall.Errno) error {
	query, err := k.words(at, 2)
	if err != nil {
		return err
	}
	if count, flags := halves(query[0]); count != 1 || flags != 0 {
		return syscall.EINVAL
	}
	item, err := k.words(query[1], 3)
	if err != nil {
		return err
	}
	length, flags := halves(item[1])
	result := int32(len(answer)) //nolint:gosec // short
	switch {
	case refuses != 0:
		result = -int32(refuses) //nolint:gosec // a small number
	case item[0] != 4 || flags != 0 || length != 0 && int(length) < len(answer):
		result = -int32(syscall.EINVAL)
	case length > 0:
		if err := k.write(item[2], answer); err != nil {
			return err
		}
	}
	return k.write(query[1]+8, result)
}

func (k *Kernel) write(address uint64, what any) error {
	var text bytes.Buffer
	err := binary.Write(&text, binary.NativeEndian, what)
	if err == nil {
		_, err = k.memory.WriteAt(text.Bytes(), int64(address)) //nolint:gosec // user space is in the lower half
	}
	if err != nil {
		return fmt.Errorf("%w: %w", syscall.EFAULT, err)
	}
	return nil
}

// words reads a structure as words of 64 bits; [halves] takes those apart that are two numbers.
func (k *Kernel) words(address uint64, n int) ([]uint64, error) {
	words := make([]uint64, n)
	at := io.NewSectionReader(k.memory, int64(address), int64(8*n)) //nolint:gosec // as above
	if err := binary.Read(at, binary.NativeEndian, words); err != nil {
		return nil, fmt.Errorf("%w: %w", syscall.EFAULT, err)
	}
	return words, nil
}

func halves(word uint64) (first, second uint32) {
	b := binary.NativeEndian.AppendUint64(nil, word)
	return binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:])
}
