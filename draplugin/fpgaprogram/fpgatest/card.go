package fpgatest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
)

// Crashed is what a port answers that does not answer any more.
const Crashed = "ffffffffffffffffffffffffffffffff"

// Card is a card with an engine and ports. It is the kernel of the machine that it is in, which
// has no other devices (see Card.Open). All is safe for concurrent use; fields are set before.
type Card struct {
	// Function is the card's.
	Function devicetest.Function
	// BusyOpens and BusyPrograms are how often somebody else is in the way.
	BusyOpens, BusyPrograms int
	// Version is that of the interface of the driver.
	Version int
	// Breaks has the hardware find something wrong with each program, and the port crash.
	Breaks bool
	// Wrong, if it is not empty, is the function that ports have after programming, whatever
	// the program.
	Wrong string
	// After, if there is one, is called when a port has been programmed.
	After func()
	// Minor is that of the node in /dev; that in sysfs is 0.
	Minor int64

	t           testing.TB
	host        *devicetest.Host
	stack       stack
	interfaceID string

	mu sync.Mutex
	// virtual are the functions that ports were given to; the others are the card's own.
	virtual map[uint32]devicetest.Function
	ports   map[uint32]string
	region  string // of the function, as it is named at the moment
	node    string // of the engine
	open    int
	at      int // programs at this moment
	events  []string
}

// stack are the names of a set of drivers.
type stack struct {
	driver, region, engine, port string
	// exclusive says that the engine can be open once only.
	exclusive bool
}

var stacks = map[string]stack{
	"dfl":  {driver: "dfl-pci", region: "fpga_region/region%d", engine: "dfl-fme.%d", port: "dfl-port.%d"},
	"opae": {driver: "intel-fpga-pci", region: "fpga/intel-fpga-dev.%d", engine: "intel-fpga-fme.%d", port: "intel-fpga-port.%d", exclusive: true},
}

// New puts a card with so many ports on a host, which all have a function.
func New(t testing.TB, host *devicetest.Host, stackName, address, interfaceID, afuID string, ports int) *Card {
	t.Helper()
	c := &Card{
		t: t, host: host, stack: stacks[stackName], interfaceID: interfaceID, ports: map[uint32]string{}, virtual: map[uint32]devicetest.Function{},
		Function: devicetest.Function{
			Path: "/sys/devices/pci0000:5d/" + address, Vendor: 0x8086, Device: 0x09c4, Class: 0x120000, Group: 60, Driver: stacks[stackName].driver,
		},
	}
	host.Add(c.Function)
	c.Renumber(0)
	for number := range uint32(ports) { //nolint:gosec // a few
		c.Have(number, afuID)
	}
	return c
}

// Renumber gives all that the kernel counts other numbers, as when the driver is bound anew.
func (c *Card) Renumber(index int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	top, _, _ := strings.Cut(c.stack.region, "/")
	c.host.Remove(c.Function.Path + "/" + top)
	c.node = fmt.Sprintf(c.stack.engine, index)
	region := fmt.Sprintf(c.Function.Path+"/"+c.stack.region, index)
	engine := region + "/" + c.node
	c.host.Files(engine, map[string]string{"dev": "238:0", "uevent": "MAJOR=238\nMINOR=0\nDEVNAME=" + c.node})
	if c.stack.exclusive {
		c.host.File(engine+"/pr/interface_id", c.interfaceID)
	} else {
		c.host.File(engine+"/dfl-fme-region.1/fpga_region/region1/compat_id", c.interfaceID)
	}
	c.region = strings.TrimPrefix(region, c.Function.Path+"/")
	for number, afuID := range c.ports {
		c.show(number, afuID)
	}
}

// Have gives a port a function in another way than by the engine.
func (c *Card) Have(number uint32, afuID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ports[number] = afuID
	c.show(number, afuID)
}

// Give takes a port from the card's own function and gives it to a virtual one.
func (c *Card) Give(number uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.host.Remove(c.dir(number))
	vf := c.Function
	vf.Path, vf.Device, vf.Group = strings.TrimSuffix(c.Function.Path, "0")+fmt.Sprint(number+1), 0x09c5, 61
	c.host.Add(vf)
	c.host.Files(c.Function.Path, map[string]string{"sriov_totalvfs": "1", "sriov_numvfs": "1"})
	c.host.Virtual(c.Function, vf, 0)
	c.virtual[number] = vf
	c.show(number, c.ports[number])
}

// dir is where a port is.
func (c *Card) dir(number uint32) string {
	f, ok := c.virtual[number]
	if !ok {
		f = c.Function
	}
	return f.Path + "/" + c.region + "/" + fmt.Sprintf(c.stack.port, number)
}

func (c *Card) show(number uint32, afuID string) {
	name := fmt.Sprintf(c.stack.port, number)
	c.host.Files(c.dir(number), map[string]string{
		"id": fmt.Sprint(number), "afu_id": afuID, "dev": fmt.Sprintf("237:%d", number),
		"uevent": fmt.Sprintf("MAJOR=237\nMINOR=%d\nDEVNAME=%s", number, name),
	})
}

// Device is the name of a port's device.
func (c *Card) Device(number uint32) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.virtual[number]
	if !ok {
		f = c.Function
	}
	return "fpga-" + device.Dashed(f.Address()) + fmt.Sprintf("-port%d", number)
}

// AFU is the function that a port has.
func (c *Card) AFU(number uint32) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ports[number]
}

// Events are the programs that the engine has taken, in their order: the port, and the text
// of [Program]. What must never happen is among them, in capitals.
func (c *Card) Events() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.events...)
}

// Program writes a GBS file into a folder of programs and returns its path. Text tells it
// from others that bring the same function.
func Program(t testing.TB, folder, interfaceID, afuID, text string) string {
	t.Helper()
	name := filepath.Join(folder, interfaceID, afuID+".gbs")
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, GBS(interfaceID, afuID, text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
