package gpu_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/gpu"
)

// null is a node that every host has, and no driver of GPUs answers for.
var null = device.Node{Path: "/dev/null", Major: 1, Minor: 3}

// kernel is one that answers to the ioctls of both drivers. Like a kernel, it reads and
// writes the memory of the process where it is told to.
type kernel struct {
	t      *testing.T
	memory *os.File
	answer []byte
	// refuses, if it is not 0, is the error of the item in a query to i915.
	refuses syscall.Errno
}

func newKernel(t *testing.T) *kernel {
	t.Helper()
	memory, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		t.Skip("the memory of the process cannot be read here:", err)
	}
	t.Cleanup(func() { memory.Close() }) //nolint:errcheck // not a file
	return &kernel{t: t, memory: memory}
}

func (k *kernel) write(address uint64, what any) {
	k.t.Helper()
	var text bytes.Buffer
	if err := binary.Write(&text, binary.NativeEndian, what); err != nil {
		k.t.Fatal(err)
	}
	if _, err := k.memory.WriteAt(text.Bytes(), int64(address)); err != nil { //nolint:gosec // as above
		k.t.Fatal(err)
	}
}

// words reads a structure as words of 64 bits; [halves] takes those apart that are two numbers.
func (k *kernel) words(address uint64, n int) []uint64 {
	k.t.Helper()
	words := make([]uint64, n)
	at := io.NewSectionReader(k.memory, int64(address), int64(8*n)) //nolint:gosec // user space is in the lower half
	if err := binary.Read(at, binary.NativeEndian, words); err != nil {
		k.t.Fatal(err)
	}
	return words
}

func halves(word uint64) (first, second uint32) {
	b := binary.NativeEndian.AppendUint64(nil, word)
	return binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:])
}

func (k *kernel) ioctl(_ int, request uint, argument unsafe.Pointer) error {
	at := uint64(uintptr(argument))
	switch request {
	case 0xc0286440:
		query := k.words(at, 5)
		id, size := halves(query[1])
		switch {
		case id != 1 || query[0] != 0 || query[3] != 0 || query[4] != 0:
			return syscall.EINVAL
		case size == 0:
			k.write(at+12, uint32(len(k.answer))) //nolint:gosec // short
			return nil
		case int(size) != len(k.answer):
			return syscall.EINVAL
		}
		k.write(query[2], k.answer)
		return nil
	case 0xc0106479:
		query := k.words(at, 2)
		if count, flags := halves(query[0]); count != 1 || flags != 0 {
			return syscall.EINVAL
		}
		item := k.words(query[1], 3)
		length, flags := halves(item[1])
		result := int32(len(k.answer)) //nolint:gosec // short
		switch {
		case k.refuses != 0:
			result = -int32(k.refuses) //nolint:gosec // a small number
		case item[0] != 4 || flags != 0 || length != 0 && int(length) < len(k.answer):
			result = -int32(syscall.EINVAL)
		case length > 0:
			k.write(item[2], k.answer)
		}
		k.write(query[1]+8, result)
		return nil
	}
	return syscall.ENOTTY
}

func TestDriversAreAskedInTheirOwnWays(t *testing.T) {
	for driver, header := range headers {
		k := newKernel(t)
		k.answer = answer(header, region{system, 0, 64 << 30}, region{local, 0, 12 << 30})
		got, err := gpu.Ioctl{}.WithKernel(k.ioctl).LocalMemory(topology.PCIFunction{Driver: driver}, null)
		if err != nil || got != 12<<30 {
			t.Errorf("%s: got %d, %v", driver, got, err)
		}
	}
}

func TestWhatI915RefusesIsAnError(t *testing.T) {
	k := newKernel(t)
	k.refuses = syscall.ENODEV
	got, err := gpu.Ioctl{}.WithKernel(k.ioctl).LocalMemory(topology.PCIFunction{Driver: "i915"}, null)
	if !errors.Is(err, syscall.ENODEV) {
		t.Errorf("got %d, %v", got, err)
	}
}

func TestOnlyAGPUsNodeIsAsked(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "dev"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "dev", "null"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k := newKernel(t)
	k.answer = answer(8, region{local, 0, 12 << 30})
	for name, test := range map[string]struct {
		query  gpu.Ioctl
		driver string
		node   device.Node
		want   error
	}{
		"a node of no GPU":     {gpu.Ioctl{}, "xe", null, syscall.ENOTTY},
		"no node":              {gpu.Ioctl{}, "xe", device.Node{Path: "/dev/dri/card999"}, syscall.ENOENT},
		"another major number": {gpu.Ioctl{}.WithKernel(k.ioctl), "xe", device.Node{Path: "/dev/null", Major: 226, Minor: 3}, nil},
		"another minor number": {gpu.Ioctl{}.WithKernel(k.ioctl), "xe", device.Node{Path: "/dev/null", Major: 1}, nil},
		"a file":               {gpu.Ioctl{Root: root}.WithKernel(k.ioctl), "xe", device.Node{Path: "/dev/null"}, nil},
		"another driver":       {gpu.Ioctl{}.WithKernel(k.ioctl), "amdgpu", null, nil},
	} {
		got, err := test.query.LocalMemory(topology.PCIFunction{Driver: test.driver}, test.node)
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: got %d, %v", name, got, err)
		}
	}
}
