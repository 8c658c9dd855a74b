package sysfs_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/topolet/topolet/draplugin/sysfs"
	"github.com/topolet/topolet/topology/device/devicetest"
)

func openWriter(t *testing.T, root string) *sysfs.OSWriter {
	t.Helper()
	w, err := sysfs.OpenWriter(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() }) //nolint:errcheck // nothing is held back
	return w
}

func TestAWriteLeavesTheFileAsItIsButForTheData(t *testing.T) {
	h := devicetest.New(t)
	const dir = "/sys/devices/pci0000:37/0000:3a:00.0"
	h.File(dir+"/driver_override", "0123456789")
	h.Link("/sys/bus/pci/devices/0000:3a:00.0", dir)
	w := openWriter(t, h.Dir)
	for _, name := range []string{"sys/bus/pci/devices/0000:3a:00.0/driver_override", "sys/devices/pci0000:37/0000:3a:00.0/driver_override"} {
		if err := w.Write(t.Context(), name, "vfio"); err != nil {
			t.Error(err)
		}
		// A file that was truncated would have lost its end.
		if got := h.Tree()[dir+"/driver_override"]; got != "vfio456789" {
			t.Errorf("the file is %q", got)
		}
		h.File(dir+"/driver_override", "0123456789")
	}
}

func TestOnlySettingsOfPCIFunctionsAreWritten(t *testing.T) {
	h := devicetest.New(t)
	outside := t.TempDir()
	for _, file := range []string{filepath.Join(outside, "file"), filepath.Join(h.Dir, "file")} {
		if err := os.WriteFile(file, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.File("/sys/class/net/eth0/mtu", "1500")
	h.File("/sys/devices/pci0000:37/value", "1")
	for link, target := range map[string]string{"out": outside, "up": "../../file", "absolute": "/sys/devices/pci0000:37/value"} {
		if err := os.Symlink(target, filepath.Join(h.Dir, "sys/devices", link)); err != nil {
			t.Fatal(err)
		}
	}
	before := h.Tree()
	w := openWriter(t, h.Dir)
	for name, want := range map[string]error{
		"proc/sys/kernel/random/boot_id":         fs.ErrInvalid,
		"sys/class/net/eth0/mtu":                 fs.ErrInvalid,
		"sys/bus/pci":                            fs.ErrInvalid,
		"sys/bus/pcie/x":                         fs.ErrInvalid,
		"sys/bus/usb/drivers/usb/bind":           fs.ErrInvalid,
		"sys/bus/dsa/drivers/idxd/bind":          fs.ErrNotExist,
		"/sys/devices/pci0000:37/value":          fs.ErrInvalid,
		"sys/devices/../class/net/eth0/mtu":      fs.ErrInvalid,
		"sys/devices//pci0000:37/value":          fs.ErrInvalid,
		"":                                       fs.ErrInvalid,
		"sys/devices/pci0000:37/none":            fs.ErrNotExist,
		"sys/bus/pci/drivers/none/bind":          fs.ErrNotExist,
		"sys/devices/pci0000:37":                 syscall.EISDIR,
		"sys/devices/out/file":                   nil,
		"sys/devices/up":                         nil,
		"sys/devices/absolute":                   nil,
		"sys/devices/system/node/node0/../../..": fs.ErrInvalid,
	} {
		if err := w.Write(t.Context(), name, "x"); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
	for name, content := range h.Tree() {
		if before[name] != content {
			t.Errorf("%s is %q now", name, content)
		}
	}
	if content, _ := os.ReadFile(filepath.Join(outside, "file")); string(content) != "before" || len(h.Tree()) != len(before) {
		t.Error("it writes outside, or makes files")
	}
	if _, err := sysfs.OpenWriter(outside); err == nil {
		t.Error("a host without sysfs is opened")
	}
}

func TestNothingIsWrittenForACallThatIsOver(t *testing.T) {
	h := devicetest.New(t)
	h.File("/sys/devices/pci0000:37/value", "1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := openWriter(t, h.Dir).Write(ctx, "sys/devices/pci0000:37/value", "2"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got := h.Tree()["/sys/devices/pci0000:37/value"]; got != "1" {
		t.Errorf("the file is %q", got)
	}
}

// TestThereIsOneWriteAndItsErrorIsPassedOn has a pipe in place of a file, which takes what
// it has room for: a second call would wait for ever.
func TestThereIsOneWriteAndItsErrorIsPassedOn(t *testing.T) {
	const name = "sys/devices/pci0000:37/value"
	h := devicetest.New(t)
	h.File("/sys/devices/pci0000:37/other", "")
	file := filepath.Join(h.Dir, name)
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := syscall.Open(file, syscall.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pipe) //nolint:errcheck // a test's own
	w := openWriter(t, h.Dir)
	if err := w.Write(t.Context(), name, "vfio-pci"); err != nil {
		t.Error(err)
	}
	text := make([]byte, 64)
	if n, err := syscall.Read(pipe, text); err != nil || string(text[:n]) != "vfio-pci" {
		t.Errorf("read %q, %v", text[:max(n, 0)], err)
	}
	page := make([]byte, 4096)
	for err == nil {
		_, err = syscall.Write(pipe, page)
	}
	if err := w.Write(t.Context(), name, "vfio-pci"); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("error %v, want the kernel's", err)
	}
	if _, err := syscall.Read(pipe, page); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(t.Context(), name, strings.Repeat("x", 8192)); err == nil || !strings.Contains(err.Error(), "4096 of 8192 bytes") {
		t.Errorf("error %v, want that a part was written", err)
	}
}
