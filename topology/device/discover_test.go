package device_test

import (
	"testing"

	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
)

// one is a family with a single device.
type one struct{ device device.Device }

func (one) Name() string { return "one" }

func (o one) Discover(*device.Host, func(error)) []device.Device {
	return []device.Device{o.device}
}

func TestADeviceThatARuntimeWouldRefuseIsLeftOut(t *testing.T) {
	h := devicetest.New(t).Open()
	for name, test := range map[string]struct {
		device device.Device
		sound  bool
	}{
		"a node in /dev":          {device.Device{Nodes: []device.Node{{Path: "/dev/one"}}}, true},
		"a node elsewhere":        {device.Device{Nodes: []device.Node{{Path: "/dev/../etc/passwd"}}}, false},
		"a link within /dev":      {device.Device{Links: []device.Link{{Path: "/dev/char/1:2", Target: "../one"}}}, true},
		"a link out of /dev":      {device.Device{Links: []device.Link{{Path: "/dev/one", Target: "../etc/passwd"}}}, false},
		"a folder":                {device.Device{Mounts: []device.Mount{{Path: "/var/run/one"}}}, true},
		"a folder without a path": {device.Device{Mounts: []device.Mount{{Path: "one"}}}, false},
		"a folder behind a dot":   {device.Device{Mounts: []device.Mount{{Path: "/var/../one"}}}, false},
		"a hook":                  {device.Device{Hooks: []device.Hook{{Path: "/usr/bin/one"}}}, true},
		"a hook without a path":   {device.Device{Hooks: []device.Hook{{Path: "one"}}}, false},
		"a name that is none":     {device.Device{Name: "One"}, false},
	} {
		if test.device.Name == "" {
			test.device.Name = "one-0"
		}
		devices, problems := device.Discover(h, one{test.device})
		if (len(devices) == 1) != test.sound || (len(problems) == 0) != test.sound {
			t.Errorf("%s: devices %+v, problems %v", name, devices, problems)
		}
	}
}
