// Package numa runs a virtual machine with many NUMA nodes as a second node of
// the testbed's cluster. QEMU emulates it, so it needs no hardware support.
//
//	machine  what the machine is like, and QEMU's arguments for it
//	kernel   its kernel, from the distribution
//	rootfs   its initrd and root file system
//	guest    its first process
//	channel  how the host looks and acts inside
//	qmp      how the host talks to QEMU
//
// This package puts them together. Up renders the node's configuration with
// the same code as for the host's own node: all paths in the machine are those
// of the host, and the API server has the same address in both, so what is
// made for one node fits the other. The files become a root file system, the
// daemons' images included; QEMU boots it; the kubelet in it registers the
// node.
//
// The link between host and machine is QEMU's user-mode networking. The
// machine's address is routed to the host itself, where QEMU listens at the
// kubelet's port: so the API server reaches the kubelet by its node's address.
package numa

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/test/testbed/internal/action"
	"github.com/topolet/topolet/test/testbed/internal/component"
	"github.com/topolet/topolet/test/testbed/internal/host"
	"github.com/topolet/topolet/test/testbed/internal/images"
	"github.com/topolet/topolet/test/testbed/internal/layout"
	"github.com/topolet/topolet/test/testbed/internal/process"
	"github.com/topolet/topolet/test/testbed/numa/channel"
	"github.com/topolet/topolet/test/testbed/numa/kernel"
	"github.com/topolet/topolet/test/testbed/numa/machine"
	"github.com/topolet/topolet/test/testbed/numa/qmp"
	"github.com/topolet/topolet/test/testbed/numa/rootfs"
)

// Record is what the state folder remembers of a machine.
type Record struct {
	Layout   string `json:"layout"`
	NodeName string `json:"nodeName"`
	// Network is an IPv4 /24: the lower half links host and machine, the upper
	// half is for the machine's pods.
	Network string `json:"network"`
	// KubeletPort is the kubelet's, at the machine's address.
	KubeletPort int `json:"kubeletPort"`
	// ChannelPort is the command channel's, on the host's loopback.
	ChannelPort int `json:"channelPort"`
}

// ErrNone says that there is no machine.
var ErrNone = errors.New("there is no NUMA machine here: create one with `testbed numa up`")

func recordFile(l layout.Layout) string { return l.NUMA("machine.json") }

// Load reads the record of the machine in the state folder.
func Load(l layout.Layout) (Record, error) {
	var r Record
	data, err := os.ReadFile(recordFile(l))
	if errors.Is(err, fs.ErrNotExist) {
		return r, ErrNone
	}
	if err != nil {
		return r, fmt.Errorf("read the machine's record: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read the machine's record %s (run `testbed numa down` to start afresh): %w", recordFile(l), err)
	}
	return r, nil
}

// Save writes the record.
func (r Record) Save(l layout.Layout) error {
	if err := os.MkdirAll(l.NUMA(""), 0o755); err != nil {
		return fmt.Errorf("write the machine's record: %w", err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the machine's record: %w", err)
	}
	return host.WriteFile(recordFile(l), append(data, '\n'))
}

// URL is the address of the command channel.
func (r Record) URL() string { return "http://127.0.0.1:" + strconv.Itoa(r.ChannelPort) }

// Machine is the machine of one testbed.
type Machine struct {
	Record Record
	// Context is the cluster's that the machine is a node of.
	Context *action.Context
	// Images are those that the machine has beside the cluster's.
	Images []images.Image

	layout machine.Layout
	link   machine.Link
	pods   netip.Prefix

	// poweredOn is when this command started the machine or reset it.
	poweredOn time.Time
	// What the first steps of Up find, for the later ones.
	kernel   kernel.Kernel
	programs map[string]string
	images   []images.Image
	entries  []rootfs.Entry
}

// New checks the record.
func New(r Record, c *action.Context) (*Machine, error) {
	m := &Machine{Record: r, Context: c}
	var err error
	if m.layout, err = machine.Find(r.Layout); err != nil {
		return nil, err
	}
	network, err := netip.ParsePrefix(r.Network)
	if err != nil || !network.Addr().Is4() || network.Bits() != 24 {
		return nil, fmt.Errorf("the machine's network %q is no IPv4 network of /24", r.Network)
	}
	lower := network.Masked().Addr().As4()
	upper := lower
	upper[3] = 128
	m.pods = netip.PrefixFrom(netip.AddrFrom4(upper), 25)
	m.link.Prefix = netip.PrefixFrom(netip.AddrFrom4(lower), 25)
	port := func(p int) uint16 { return uint16(p) } //nolint:gosec // ports come from the kernel
	m.link.Forwards = []machine.Forward{
		{From: netip.AddrPortFrom(m.link.Guest(), port(r.KubeletPort)), To: r.KubeletPort},
		{From: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port(r.ChannelPort)), To: guestChannelPort},
	}
	return m, nil
}

// guestChannelPort is the command channel's port in the machine, where nobody
// else could have it.
const guestChannelPort = 10240

// cluster renders what is in the machine.
func (m *Machine) cluster() component.Cluster {
	c := m.Context.Cluster
	c.NodeName, c.PodCIDR, c.Address = m.Record.NodeName, m.pods, m.link.Guest()
	c.Ports.Kubelet = m.Record.KubeletPort
	c.CanRaiseOOMPriority = true
	return c
}

// Channel is the command channel's client.
func (m *Machine) Channel() channel.Client { return channel.Client{URL: m.Record.URL()} }

// Up boots the machine and returns when its node is Ready. Of a machine that
// runs and is as it should be, it changes nothing.
func (m *Machine) Up(ctx context.Context) error {
	return m.Context.Run(ctx, []action.Action{
		{Title: "kernel", Run: m.findKernel},
		{Title: "programs", Run: m.findPrograms},
		{Title: "root file system", Run: m.makeFiles},
		{Title: "boot", Run: m.boot},
		{Title: "node ready", Run: m.waitForNode},
	})
}

// Down ends the machine and removes it from the cluster and the host. What is
// not there is no error.
func (m *Machine) Down(ctx context.Context) error {
	return m.Context.RunAll(ctx, []action.Action{
		{Title: "machine", Run: m.kill},
		{Title: "node", Run: m.deleteNode},
		{Title: "network", Run: m.removeRoute},
		{Title: "files", Run: m.removeFiles},
	})
}

// Reset cuts the power and boots again, with the disk as it is and every device
// in its slot. It returns when the node is Ready again.
func (m *Machine) Reset(ctx context.Context) error {
	return m.Context.Run(ctx, []action.Action{
		{Title: "reset", Run: m.reset},
		{Title: "node ready", Run: m.waitForNode},
	})
}

// Process finds QEMU. ok is false when the machine does not run.
func Process(c *action.Context) (p process.Process, ok bool, err error) {
	return c.Finder().Component(machine.Program)
}

func (m *Machine) kill(ctx context.Context, c *action.Context) (string, error) {
	if err := m.endPreload(ctx); err != nil {
		return "", err
	}
	p, runs, err := Process(c)
	if err != nil || !runs {
		return "", err
	}
	return fmt.Sprintf("pid %d", p.PID), p.Kill(ctx)
}

func (m *Machine) deleteNode(ctx context.Context, c *action.Context) (string, error) {
	if _, runs, err := c.Finder().Component(component.APIServer); err != nil || !runs {
		return "no API server", err
	}
	client, err := c.Client()
	if err != nil {
		return "", err
	}
	return m.Record.NodeName, client.Delete(ctx, c.Cluster.URL()+"/api/v1/nodes/"+m.Record.NodeName)
}

func (m *Machine) removeRoute(_ context.Context, c *action.Context) (string, error) {
	return "", host.RemoveLocalRoute(c.Layout.Bridge(), m.link.Guest(), c.Cluster.BridgeIP())
}

func (m *Machine) removeFiles(_ context.Context, c *action.Context) (string, error) {
	dir := c.Layout.NUMA("")
	if err := m.removeConsole(); err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("delete the machine's files: %w", err)
	}
	return dir, nil
}

func (m *Machine) removeConsole() error {
	if err := os.Remove(m.console()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete the log of the machine's console: %w", err)
	}
	return nil
}

// bootLimit is how long the machine may take from its start to the first
// answer of its command channel.
const bootLimit = 3 * time.Minute

// readyLimit is how long the kubelet in it may take from there.
const readyLimit = 4 * time.Minute

func (m *Machine) console() string { return m.Context.Layout.Logs() + "/numa-console.log" }

// until waits for the guest. Its error ends with the guest's last words.
func (m *Machine) until(ctx context.Context, what string, limit time.Duration, ready func(context.Context) error) error {
	err := m.Context.Until(ctx, machine.Program, what, limit, ready)
	if err == nil || ctx.Err() != nil {
		return err
	}
	console, readErr := os.ReadFile(m.console())
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	lines := strings.Split(strings.TrimRight(string(console), "\n"), "\n")
	return fmt.Errorf("%w\nthe end of the machine's console (%s):\n  %s", err, m.console(), strings.Join(lines[max(0, len(lines)-15):], "\n  "))
}

func (m *Machine) boot(ctx context.Context, c *action.Context) (string, error) {
	if err := host.EnsureLocalRoute(c.Layout.Bridge(), m.link.Guest(), c.Cluster.BridgeIP()); err != nil {
		return "", err
	}
	_, runs, err := Process(c)
	if err != nil {
		return "", err
	}
	if runs {
		return "running", m.answers(ctx)
	}
	spec, err := m.spec()
	if err != nil {
		return "", err
	}
	return m.start(ctx, spec)
}

// start starts QEMU and waits until the guest answers.
func (m *Machine) start(ctx context.Context, spec process.Spec) (string, error) {
	m.poweredOn = time.Now()
	if _, err := m.Context.Starter().Start(spec); err != nil {
		return "", err
	}
	if err := m.answers(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %.1fs from power-on", m.layout.Name, time.Since(m.poweredOn).Seconds()), nil
}

func (m *Machine) answers(ctx context.Context) error {
	return m.until(ctx, "the machine's command channel to answer", bootLimit, func(ctx context.Context) error {
		_, err := m.Channel().BootID(ctx)
		return err
	})
}

func (m *Machine) waitForNode(ctx context.Context, _ *action.Context) (string, error) {
	since, detail := m.poweredOn, m.Record.NodeName
	if since.IsZero() {
		// The machine ran before. A lease of this age is still in force.
		since = time.Now().Add(-time.Minute)
	}
	err := m.until(ctx, "the node "+m.Record.NodeName+" to be Ready", readyLimit, func(ctx context.Context) error { return m.Ready(ctx, since) })
	if !m.poweredOn.IsZero() {
		detail += fmt.Sprintf(", %.1fs from power-on", time.Since(m.poweredOn).Seconds())
	}
	return detail, err
}

// Ready returns nil when the node is Ready, has said so since the given time,
// and its kubelet knows its pods; otherwise why not.
func (m *Machine) Ready(ctx context.Context, since time.Time) error {
	client, err := m.Context.Client()
	if err != nil {
		return err
	}
	c := m.cluster()
	if err := client.NodeReady(ctx, c.URL(), c.NodeName, since); err != nil {
		return err
	}
	return client.PodsKnown(ctx, c.URL(), c.NodeName, fmt.Sprintf("https://%v:%d", c.NodeIP(), c.Ports.Kubelet))
}

// reset starts QEMU anew, with the same arguments and the same disk. Its own
// reset takes three times as long: the memory is full of translated code, and
// each write there has to look whether it changes some.
func (m *Machine) reset(ctx context.Context, c *action.Context) (string, error) {
	p, runs, err := Process(c)
	if err != nil {
		return "", err
	}
	if !runs {
		return "", errNotRunning
	}
	if err := p.Kill(ctx); err != nil {
		return "", err
	}
	spec := process.Spec{Name: machine.Program, Path: p.Args[0], Args: p.Args[1:], Inputs: []string{m.keyFile()}}
	detail, err := m.start(ctx, spec)
	if _, runs, findErr := Process(c); err != nil && findErr == nil && !runs && ctx.Err() == nil {
		// QEMU 10.0 was seen to end without a word within its first second.
		detail, err = m.start(ctx, spec)
	}
	return detail, err
}

var errNotRunning = errors.New("the machine does not run: start it with `testbed numa up`")

// monitor connects to QEMU.
func (m *Machine) monitor(ctx context.Context) (*qmp.Client, error) {
	client, err := qmp.Dial(ctx, m.Context.Layout.NUMA("qmp.sock"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, errNotRunning
	}
	return client, err
}
