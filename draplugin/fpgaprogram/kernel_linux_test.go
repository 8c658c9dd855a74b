package fpgaprogram_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/topolet/topolet/draplugin/fpgaprogram"
)

func TestLinuxOpensDevicesAndNothingElse(t *testing.T) {
	n, err := fpgaprogram.Linux{}.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if major, minor := n.Numbers(); major != 1 || minor != 3 {
		t.Errorf("it is %d:%d", major, minor)
	}
	if _, err := n.Ioctl(0xb600, nil); !errors.Is(err, syscall.ENOTTY) {
		t.Errorf("it answers %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{file: syscall.ENOTTY, file + "s": syscall.ENOENT} {
		if _, err := (fpgaprogram.Linux{}).Open(path); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
