package gpu_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/gpu"
	"github.com/topolet/topolet/topology/device/gpu/gputest"
)

func TestDriversAreAskedInTheirOwnWays(t *testing.T) {
	for driver, header := range gputest.Headers {
		k := gputest.NewKernel(t)
		k.Answer(gputest.Null, gputest.Answer(header, gputest.Region{Class: gputest.System, Bytes: 64 << 30}, gputest.Region{Class: gputest.Local, Bytes: 12 << 30}))
		got, err := gpu.Ioctl{Call: k.Ioctl}.LocalMemory(topology.PCIFunction{Driver: driver}, gputest.Null)
		if err != nil || got != 12<<30 {
			t.Errorf("%s: got %d, %v", driver, got, err)
		}
	}
}

func TestWhatADriverRefusesIsAnError(t *testing.T) {
	k := gputest.NewKernel(t)
	k.Refuse(gputest.Null, syscall.ENODEV)
	for driver := range gputest.Headers {
		got, err := gpu.Ioctl{Call: k.Ioctl}.LocalMemory(topology.PCIFunction{Driver: driver}, gputest.Null)
		if !errors.Is(err, syscall.ENODEV) {
			t.Errorf("%s: got %d, %v", driver, got, err)
		}
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
	k := gputest.NewKernel(t)
	k.Answer(gputest.Null, gputest.Answer(8, gputest.Region{Class: gputest.Local, Bytes: 12 << 30}))
	for name, test := range map[string]struct {
		query  gpu.Ioctl
		driver string
		node   device.Node
		want   error
	}{
		"a node of no GPU":     {gpu.Ioctl{}, "xe", gputest.Null, syscall.ENOTTY},
		"no node":              {gpu.Ioctl{}, "xe", device.Node{Path: "/dev/dri/card999"}, syscall.ENOENT},
		"another major number": {gpu.Ioctl{Call: k.Ioctl}, "xe", device.Node{Path: "/dev/null", Major: 226, Minor: 3}, nil},
		"another minor number": {gpu.Ioctl{Call: k.Ioctl}, "xe", device.Node{Path: "/dev/null", Major: 1}, nil},
		"a file":               {gpu.Ioctl{Root: root, Call: k.Ioctl}, "xe", device.Node{Path: "/dev/null"}, nil},
		"another driver":       {gpu.Ioctl{Call: k.Ioctl}, "amdgpu", gputest.Null, nil},
	} {
		got, err := test.query.LocalMemory(topology.PCIFunction{Driver: test.driver}, test.node)
		if err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: got %d, %v", name, got, err)
		}
	}
}
