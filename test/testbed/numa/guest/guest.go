// Package guest is the first process of the virtual machine, and the only one
// that is not part of a node anywhere else.
//
// It runs three times. From the initrd, Boot loads the kernel's modules, mounts
// the disk and becomes the program on it. There, Init makes a machine of it
// (mounts, network, cgroups, SR-IOV), and then starts the node's daemons and
// looks after them as a service manager would. One of those daemons is this
// program again: Serve answers the command channel and forwards connections to
// the API server.
//
// Everything that differs between machines is in Config, which the host writes.
package guest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"github.com/topolet/topolet/test/testbed/internal/process"
)

// Name is the name of the program, and of its serving self as a component.
const Name = "guest"

// InitrdConfig is where Boot finds the configuration in the initrd, and
// InitrdModules the folder of the kernel's modules there.
const (
	InitrdConfig  = "/guest.json"
	InitrdModules = "/modules"
)

// Config describes the machine to its first process.
type Config struct {
	// State is the testbed's state folder: the same path as on the host.
	State    string `json:"state"`
	Hostname string `json:"hostname"`
	Uplink   Uplink `json:"uplink"`
	// Bridge connects the pods; its address is for the kubelet's probes.
	Bridge        string       `json:"bridge"`
	BridgeAddress netip.Prefix `json:"bridgeAddress"`
	// Forward is the API server's port, on the loopback of both sides.
	Forward int `json:"forward"`
	// Channel is the port of the command channel.
	Channel int `json:"channel"`
	// VFs are the SR-IOV functions to switch on, by PCI address.
	VFs map[string]VFs `json:"vfs"`
	// Components are the daemons, in the order in which they are started.
	Components []Component `json:"components"`
}

// VFs are the SR-IOV functions of one PCI function.
type VFs struct {
	Count int `json:"count"`
	// Idle ones get no driver: nobody uses them, and NVMe's would wait long for queues that
	// they do not have.
	Idle bool `json:"idle"`
}

// Uplink is the network function that leads to the host.
type Uplink struct {
	MAC     string       `json:"mac"`
	Address netip.Prefix `json:"address"`
	Host    netip.Addr   `json:"host"`
}

// Component is a daemon.
type Component struct {
	Spec process.Spec `json:"spec"`
	// After is a socket that has to answer before the first start.
	After string `json:"after,omitempty"`
}

// Load reads the configuration.
func Load(file string) (Config, error) {
	var c Config
	data, err := os.ReadFile(file)
	if err != nil {
		return c, fmt.Errorf("read the machine's configuration: %w", err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("read the machine's configuration %s: %w", file, err)
	}
	return c, nil
}
