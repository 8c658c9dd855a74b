package main

import (
	"errors"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/topolet/topolet/test/expect"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// changing is a machine's file system that becomes another one.
type changing struct {
	mu  sync.Mutex
	now *topologytest.Tree
	// restless changes the machine whenever its CPUs have been looked at.
	restless bool
	looks    int
}

func (c *changing) become(s topologytest.Spec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = topologytest.FS(s)
}

func (c *changing) tree() *topologytest.Tree {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *changing) Open(name string) (fs.File, error) {
	f, err := c.tree().Open(name)
	if name == "sys/devices/system/cpu/online" && c.restless {
		c.looks++
		c.become(topologytest.Spec{CoresPerL3: 4, Offline: []string{"1", "2", "3"}[c.looks%3]})
	}
	return f, err
}

func (c *changing) ReadLink(name string) (string, error)   { return c.tree().ReadLink(name) }
func (c *changing) Lstat(name string) (fs.FileInfo, error) { return c.tree().Lstat(name) }

func TestAMachineThatChangesIsDiscoveredAnew(t *testing.T) {
	host := &changing{now: topologytest.FS(topologytest.Spec{CoresPerL3: 4})}
	w, err := newMachineWatch(host)
	if err != nil {
		t.Fatal(err)
	}
	first := w.machine
	pictures := make(chan *topology.Machine)
	go w.run(t.Context(), time.Millisecond, func(m *topology.Machine) error {
		pictures <- m
		return errors.New("refused, which changes nothing")
	})
	for _, tc := range []struct{ offline, online string }{{"3", "0-2"}, {"2-3", "0-1"}, {"", "0-3"}} {
		host.become(topologytest.Spec{CoresPerL3: 4, Offline: tc.offline})
		select {
		case m := <-pictures:
			if got := m.Online.String(); got != tc.online || m == first {
				t.Errorf("with CPUs %q offline: online %s, want %s", tc.offline, got, tc.online)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("waited 10 s for a picture of the machine with CPUs %q offline", tc.offline)
		}
	}
}

func TestAMachineThatIsTheSameIsNotDiscoveredAgain(t *testing.T) {
	host := &changing{now: topologytest.FS(topologytest.Spec{CoresPerL3: 4})}
	w, err := newMachineWatch(host)
	if err != nil {
		t.Fatal(err)
	}
	before := w.machine
	if changed, err := w.look(); changed || err != nil || w.machine != before {
		t.Errorf("changed: %v, %v", changed, err)
	}
}

func TestAMachineThatNeverRestsIsNotHalfDiscovered(t *testing.T) {
	host := &changing{now: topologytest.FS(topologytest.Spec{CoresPerL3: 4}), restless: true}
	_, err := newMachineWatch(host)
	expect.Error(t, err, "change all the time")
}
