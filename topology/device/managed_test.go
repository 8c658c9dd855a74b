package device_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
)

// cards is a family of functions of vendor 0x1234, with the driver foo.
type cards struct{}

func (cards) Name() string { return "card" }

func (cards) Discover(h *device.Host, _ func(error)) []device.Device {
	var devices []device.Device
	for _, f := range h.Functions(func(f topology.PCIFunction) bool { return f.Vendor == 0x1234 }) {
		if d, ok := h.VFIO("card", f); ok {
			devices = append(devices, d)
			continue
		}
		d := h.Of("card", f, device.Kernel)
		d.Driver = "foo"
		if f.Driver != "foo" {
			d.Taint(device.DriverLost, f.Driver)
		}
		d.Set("model", device.Text("x"))
		d.Shared = true
		d.Capacities = []device.Capacity{device.Shares(4), {Name: "memory", Amount: 8, Bytes: true, Default: 2, Min: 1, Step: 1}}
		d.Nodes = []device.Node{{Path: "/dev/foo0", Major: 505}}
		d.Links = []device.Link{{Path: "/dev/foo", Target: "foo0"}}
		d.Interfaces = []string{"foo0"}
		part := d
		part.Name, part.Use.Part = d.Name+"-q0", "q0"
		devices = append(devices, d, part, h.Of("card", f, device.Monitor))
	}
	return devices
}

const cardPath = "/sys/devices/pci0000:37/0000:3a:00.0"

func card(driver string) devicetest.Function {
	return devicetest.Function{Path: cardPath, Vendor: 0x1234, Device: 0x1, Class: 0x00ff00, Group: 42, Driver: driver}
}

func managed(refused error) device.Managed {
	return device.Managed{Family: cards{}, Twins: true, Driver: func(string) (string, error) { return "vfio-pci", refused }}
}

func TestAManagedFunctionHasTwoFaces(t *testing.T) {
	h := devicetest.New(t)
	h.Add(card("foo"))
	devices := h.Discover(managed(nil))
	var names []string
	for _, d := range devices {
		names = append(names, d.Name)
	}
	const own = "card-0000-3a-00-0"
	if want := []string{own + "-q0", own, own + "-vfio", own + "-monitor"}; !cmp.Equal(want, names) {
		t.Fatalf("devices %v, want %v", names, want)
	}
	want := device.Device{
		Name: own + "-vfio", Family: "card", Personality: device.VFIO, Function: device.Single, Address: "0000:3a:00.0",
		Root: "pci0000:37", Driver: "vfio-pci", Managed: true, Use: device.Use{Owner: "0000:3a:00.0"},
		Attributes: map[string]device.Value{
			"vendorID": device.Text("0x1234"), "deviceID": device.Text("0x0001"), "pciClass": device.Text("0x00ff00"),
			"model": device.Text("x"), "iommuGroup": device.Number(42), "iommuGroupSize": device.Number(1),
		},
		Capacities: []device.Capacity{{Name: "memory", Amount: 8, Bytes: true}},
	}
	if diff := cmp.Diff(want, devices[2], cmp.AllowUnexported(device.Value{})); diff != "" {
		t.Errorf("the vfio device -want +got:\n%s", diff)
	}
	if d := devices[1]; d.Managed || len(d.Nodes) != 1 || len(d.Attributes) != 4 || !d.Shared {
		t.Errorf("the kernel device is %+v", d)
	}
}

func TestWhichFacesAFunctionHas(t *testing.T) {
	const own, vfio = "card-0000-3a-00-0 ", "card-0000-3a-00-0-vfio(managed) "
	const parts, monitor = "card-0000-3a-00-0-q0 ", "card-0000-3a-00-0-monitor "
	for name, test := range map[string]struct {
		driver  string
		change  func(*devicetest.Host)
		refused error
		want    string
	}{
		"its own driver":     {"foo", nil, nil, parts + own + vfio + monitor},
		"another driver":     {"bar", nil, nil, parts + own + monitor},
		"no driver":          {"", nil, nil, parts + own + monitor},
		"a vfio driver":      {"vfio-pci", nil, nil, vfio},
		"cannot be given":    {"foo", nil, errors.New("no IOMMU"), parts + own + monitor},
		"with VFs":           {"foo", func(h *devicetest.Host) { addVF(h, "") }, nil, "card-0000-3a-00-0-q0 card-0000-3a-00-1-q0 " + own + "card-0000-3a-00-1-vfio(managed) card-0000-3a-00-0-monitor card-0000-3a-00-1-monitor "},
		"with a VF in use":   {"foo", func(h *devicetest.Host) { addVF(h, "foo") }, nil, "card-0000-3a-00-0-q0 card-0000-3a-00-1 card-0000-3a-00-1-q0 " + own + "card-0000-3a-00-1-vfio(managed) card-0000-3a-00-0-monitor card-0000-3a-00-1-monitor "},
		"given to vfio late": {"foo", func(h *devicetest.Host) { h.Link(cardPath+"/driver", "/sys/bus/pci/drivers/vfio-pci") }, nil, vfio},
	} {
		t.Run(name, func(t *testing.T) {
			h := devicetest.New(t)
			h.Add(card(test.driver))
			if test.change != nil {
				test.change(h)
			}
			var problems []string
			devices, errs := device.Discover(h.Open(), managed(test.refused))
			for _, err := range errs {
				problems = append(problems, err.Error())
			}
			got := ""
			for _, d := range devices {
				got += d.Name
				if d.Managed {
					got += "(managed)"
					if d.Tainted(device.DriverLost) {
						got += "(lost)"
					}
				}
				got += " "
			}
			if got != test.want {
				t.Errorf("devices %s, want %s", got, test.want)
			}
			said := strings.Join(problems, " ")
			if want := test.refused != nil; want != strings.Contains(said, "no vfio device of 0000:3a:00.0: no IOMMU") || !want && said != "" {
				t.Errorf("problems %q", said)
			}
		})
	}
}

func addVF(h *devicetest.Host, driver string) {
	h.File(cardPath+"/sriov_totalvfs", "1")
	h.File(cardPath+"/sriov_numvfs", "1")
	vf := card(driver)
	vf.Path, vf.Group = "/sys/devices/pci0000:37/0000:3a:00.1", 43
	h.Add(vf)
	h.Virtual(card(""), vf, 0)
}

// A machine is discovered once, and functions change their drivers.
func TestAHostReadsWhichDriversAreBoundNow(t *testing.T) {
	h := devicetest.New(t)
	h.Add(card("foo"))
	m := h.Open().Machine
	h.Link(cardPath+"/driver", "/sys/bus/pci/drivers/vfio-pci")
	root, err := topology.OpenRoot(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // only read
	if got := device.NewHost(root, m).Machine.PCI.Functions[0].Driver; got != "vfio-pci" {
		t.Errorf("the driver is %q", got)
	}
	h.Remove(cardPath + "/driver")
	if got := device.NewHost(root, m).Machine.PCI.Functions[0].Driver; got != "" {
		t.Errorf("the driver is %q", got)
	}
	if got := m.PCI.Functions[0].Driver; got != "foo" {
		t.Errorf("the machine's own picture was changed to %q", got)
	}
}

func TestWithoutTwinsOnlyTheFamilysOwnAreManaged(t *testing.T) {
	h := devicetest.New(t)
	h.Add(card("foo"))
	m := managed(nil)
	m.Twins = false
	if devices := h.Discover(m); len(devices) != 3 {
		t.Errorf("devices %+v", devices)
	}
}
