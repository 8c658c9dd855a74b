package topology_test

import (
	"os"
	"path/filepath"
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
