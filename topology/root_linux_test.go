package topology_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestANamedPipeDoesNotStopDiscovery(t *testing.T) {
	dir := t.TempDir()
	if err := topologytest.Write(dir, four); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{cpuDir + "isolated", cpuDir + "cpu1/topology/core_cpus_list"} {
		file := filepath.Join(dir, name)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(file, 0o600); err != nil {
			t.Skipf("no named pipes here: %v", err)
		}
	}
	root := openRoot(t, dir)
	done := make(chan *topology.Machine, 1)
	go func() {
		m, err := topology.Discover(root)
		if err != nil {
			t.Error(err)
		}
		done <- m
	}()
	select {
	case m := <-done:
		if got := pictureOf(m)["cores"]; got != "0,2 1,3" {
			t.Errorf("cores: got %s", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still reading")
	}
}

// Proc hands out a long file in pieces that are shorter than a page.
func TestALongFileOfProcIsReadToItsEnd(t *testing.T) {
	root, err := topology.OpenRoot("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // only read
	files := topology.NewFiles(root)
	const name, last = "proc/self/smaps", "VmFlags:"
	short, ok := files.Read(name)
	long, err := files.ReadLong(name)
	if err != nil || !ok {
		t.Fatalf("%v, read %t", err, ok)
	}
	for what, text := range map[string]string{"Read": short, "ReadLong": long} {
		lines := strings.Split(text, "\n")
		if len(text) < 2*os.Getpagesize() || !strings.HasPrefix(lines[len(lines)-1], last) {
			t.Errorf("%s returns %d bytes that end in %q", what, len(text), lines[len(lines)-1])
		}
	}
	if _, err := files.ReadLong("proc/self/pagemap"); err == nil {
		t.Error("a file without an end is read")
	}
	if _, err := files.ReadLong("proc/self/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there gives %v", err)
	}
}
