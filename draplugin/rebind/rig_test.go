package rebind_test

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/topolet/topolet/draplugin/rebind"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device/devicetest"
)

const (
	gpu   = "0000:3a:00.0"
	gpuVF = "0000:3a:00.1"
	bus   = "/sys/bus/pci/"
	boot  = "/proc/sys/kernel/random/boot_id"
)

var (
	patient = rebind.Limits{Write: time.Minute, Wait: time.Minute}
	// hasty is for writes that block; those that do not need far less.
	hasty = rebind.Limits{Write: time.Second, Wait: time.Minute}
)

// rig is a host with devices whose functions are rebound, and all that happens: writes,
// and saved states.
type rig struct {
	*testing.T
	*devicetest.Kernel
	*rebind.Rebinder

	mu     sync.Mutex
	events []string
	// saved are the states that a crash would leave, the last one last.
	saved []rebind.State
	// failSave is called before a state is saved, meanwhile before a write is made, and
	// after is called after one. All are for one test to set.
	failSave  func(rebind.State) error
	meanwhile func(n int, name, data string) error
	after     func(n int)
	writes    int
}

// newRig has a graphics card with virtual functions and a driver, and the drivers of others.
func newRig(t *testing.T, limits rebind.Limits) *rig {
	t.Helper()
	h := devicetest.New(t)
	g := &rig{T: t, Kernel: devicetest.NewKernel(h)}
	for name, ids := range map[string][]int{"i915": {0x808656c0}, "xe": {0x8086e211}, "4xxx": {0x80864940}} {
		g.Load(devicetest.Driver{Name: name, IDs: ids, VFs: true, Probe: func(f devicetest.Function) error {
			h.File(f.Path+"/served_by", name)
			return nil
		}})
	}
	g.add(gpu, 0x56c0, 42, "i915")
	g.open(limits)
	return g
}

// open starts anew, as another process does.
func (g *rig) open(limits rebind.Limits) {
	g.Helper()
	root, err := topology.OpenRoot(g.Dir)
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { root.Close() }) //nolint:errcheck // only read
	g.Rebinder = rebind.New(root, g, limits)
}

// add puts a function on the host, with what its driver shows.
func (g *rig) add(address string, id uint16, group int, driver string) devicetest.Function {
	g.Helper()
	f := devicetest.Function{Path: "/sys/devices/pci0000:37/0000:37:01.0/" + address, Vendor: 0x8086, Device: id, Class: 0x038000, Group: group, Driver: driver}
	g.Add(f)
	g.Files(f.Path, map[string]string{"sriov_totalvfs": "4", "sriov_numvfs": "0", "sriov_drivers_autoprobe": "1"})
	if driver != "" && driver != "vfio-pci" {
		g.File(f.Path+"/served_by", driver)
	}
	return f
}

// Write implements [sysfs.Writer].
func (g *rig) Write(_ context.Context, name, data string) error {
	g.mu.Lock()
	g.writes++
	n := g.writes
	g.events = append(g.events, strings.TrimPrefix("/"+name, bus)+" "+data)
	meanwhile, after := g.meanwhile, g.after
	g.mu.Unlock()
	if meanwhile != nil {
		if err := meanwhile(n, name, data); err != nil {
			return err
		}
	}
	err := g.Kernel.Write("/"+name, data)
	if after != nil {
		after(n)
	}
	return err
}

func (g *rig) save(s rebind.State) error {
	if g.failSave != nil {
		if err := g.failSave(s); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.saved = append(g.saved, s)
	g.events = append(g.events, "save "+string(s.Step))
	return nil
}

// happened returns what has happened since it was last asked.
func (g *rig) happened() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	events := g.events
	g.events = nil
	return events
}

func (g *rig) last() rebind.State {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.saved) == 0 {
		return rebind.State{}
	}
	return g.saved[len(g.saved)-1]
}

// must writes as an administrator does.
func (g *rig) must(name, data string) {
	g.Helper()
	if err := g.Kernel.Write(bus+name, data); err != nil {
		g.Fatal(err)
	}
}

// vf switches one virtual function of the graphics card on, with or without autoprobe.
func (g *rig) vf(pf, autoprobe string) {
	g.Helper()
	g.must("devices/"+pf+"/sriov_drivers_autoprobe", autoprobe)
	g.must("devices/"+pf+"/sriov_numvfs", "1")
}

// driver is what a function is bound to.
func (g *rig) driver(address string) string {
	g.Helper()
	for name, content := range g.Tree() {
		if path.Base(path.Dir(name)) == address && path.Base(name) == "driver" {
			return path.Base(content)
		}
	}
	return ""
}

// give has a function given to vfio, which must succeed.
func (g *rig) give(address string) rebind.State {
	g.Helper()
	s, err := g.ToVFIO(g.Context(), address, g.save)
	if err != nil {
		g.Fatal(err)
	}
	return s
}

// answered waits until the kernel has answered all writes for a function.
func (g *rig) answered(address string) {
	g.Helper()
	for end := time.Now().Add(time.Minute); g.Stuck(address) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			g.Fatal(g.Stuck(address))
		}
	}
}

// override, unbind and bind are events.
func override(address, driver string) string {
	return fmt.Sprintf("devices/%s/driver_override %s", address, driver)
}

func unbind(driver, address string) string {
	return fmt.Sprintf("drivers/%s/unbind %s", driver, address)
}

func bind(driver, address string) string { return fmt.Sprintf("drivers/%s/bind %s", driver, address) }
