package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/topolet/topolet/test/testbed/internal/cgroup"
	"github.com/topolet/topolet/test/testbed/internal/host"
	"github.com/topolet/topolet/test/testbed/internal/layout"
	"github.com/topolet/topolet/test/testbed/internal/process"
)

// Init is the first process on the disk. It returns only with an error.
func Init(configFile string) error {
	c, err := Load(configFile)
	if err != nil {
		return err
	}
	l := layout.Layout{State: c.State}
	if err := c.mounts(); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := c.network(); err != nil {
		return err
	}
	if err := cgroups(l); err != nil {
		return err
	}
	for address, vfs := range c.VFs {
		if err := vfs.Enable(address, func(path, content string) error { return os.WriteFile(path, []byte(content), 0) }); err != nil {
			return err
		}
	}
	starter := process.Starter{
		State:  l.State,
		Launch: l.Program("launch"),
		Cgroup: l.SystemCgroup(),
		Logs:   l.Logs(),
		Path:   l.Bin() + ":/usr/sbin:/usr/bin:/sbin:/bin",
	}
	self := process.Spec{Name: Name, Path: l.Program(Name), Args: []string{"serve", configFile}}
	return supervise(starter, append([]Component{{Spec: self}}, c.Components...))
}

// Enable switches the VFs of the function at a PCI address on.
func (v VFs) Enable(address string, write func(path, content string) error) error {
	dir := "/sys/bus/pci/devices/" + address
	if v.Idle {
		if err := write(dir+"/sriov_drivers_autoprobe", "0"); err != nil {
			return fmt.Errorf("keep drivers from the VFs of %s: %w", address, err)
		}
	}
	if err := write(dir+"/sriov_numvfs", strconv.Itoa(v.Count)); err != nil {
		return fmt.Errorf("switch %d VFs of %s on: %w", v.Count, address, err)
	}
	return nil
}

func (c Config) mounts() error {
	for _, m := range []mount{
		{"devpts", "/dev/pts", "ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "mode=1777"},
		{"mqueue", "/dev/mqueue", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"bpf", "/sys/fs/bpf", ""},
		{"tmpfs", "/run", "mode=0755"},
		{"tmpfs", "/tmp", "mode=1777"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	// The kubelet's mounts have to reach the containers.
	if err := syscall.Mount("", "/", "", syscall.MS_SHARED|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("share the mounts: %w", err)
	}
	return nil
}

func (c Config) network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback interface: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("switch the loopback interface on: %w", err)
	}
	var uplink netlink.Link
	err = waitFor("the network interface "+c.Uplink.MAC, 10*time.Second, func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Attrs().HardwareAddr.String() == c.Uplink.MAC {
				uplink = l
				return nil
			}
		}
		return errors.New("it is not there")
	})
	if err != nil {
		return err
	}
	name := uplink.Attrs().Name
	address := &netlink.Addr{IPNet: &net.IPNet{IP: c.Uplink.Address.Addr().AsSlice(), Mask: net.CIDRMask(c.Uplink.Address.Bits(), 32)}}
	if err := netlink.AddrAdd(uplink, address); err != nil {
		return fmt.Errorf("give %s the address %v: %w", name, c.Uplink.Address, err)
	}
	if err := netlink.LinkSetUp(uplink); err != nil {
		return fmt.Errorf("switch %s on: %w", name, err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: uplink.Attrs().Index, Gw: c.Uplink.Host.AsSlice()}); err != nil {
		return fmt.Errorf("route everything through %v: %w", c.Uplink.Host, err)
	}
	return host.EnsureBridge(c.Bridge, c.BridgeAddress)
}

func cgroups(l layout.Layout) error {
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	if err := cgroup.Ensure(hs, l.Cgroup(), true); err != nil {
		return err
	}
	return cgroup.Ensure(hs, l.SystemCgroup(), false)
}

// PowerOff ends the machine after what was said has reached the console.
func PowerOff(message string) {
	fmt.Fprintln(os.Stderr, filepath.Base(os.Args[0])+":", message)
	syscall.Sync()
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}
