package numa

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/action"
	"github.com/topolet/topolet/test/testbed/internal/binaries"
	"github.com/topolet/topolet/test/testbed/internal/component"
	"github.com/topolet/topolet/test/testbed/internal/host"
	"github.com/topolet/topolet/test/testbed/internal/pki"
	"github.com/topolet/topolet/test/testbed/internal/process"
	"github.com/topolet/topolet/test/testbed/numa/guest"
	"github.com/topolet/topolet/test/testbed/numa/kernel"
	"github.com/topolet/topolet/test/testbed/numa/machine"
	"github.com/topolet/topolet/test/testbed/numa/rootfs"
)

// diskSize is the size of the root file system in MiB. Only what is used takes
// room on the host.
const diskSize = 2048

func (m *Machine) findKernel(ctx context.Context, c *action.Context) (string, error) {
	if err := binaries.CheckMachine(); err != nil {
		return "", err
	}
	c.Waiting("the download of a kernel")
	k, fetched, err := kernel.Ensure(ctx, c.Builder.Cache)
	if err != nil {
		return "", err
	}
	m.kernel = k
	if fetched {
		return k.Version + ", downloaded", nil
	}
	return k.Version, nil
}

// findPrograms builds what has to be built, the images' content included.
func (m *Machine) findPrograms(ctx context.Context, c *action.Context) (string, error) {
	var err error
	if m.programs, err = c.Builder.Ensure(ctx, binaries.Programs()); err != nil {
		return "", err
	}
	if m.images, err = c.Images(ctx); err != nil {
		return "", err
	}
	m.images = append(m.images, m.Images...)
	return fmt.Sprintf("%d, %d images", len(m.programs), len(m.images)), nil
}

// makeFiles makes the initrd and a fresh disk, unless a machine runs that was
// started from the same. One that was started from something else is ended.
func (m *Machine) makeFiles(ctx context.Context, c *action.Context) (string, error) {
	if err := m.writeBootFiles(); err != nil {
		return "", err
	}
	spec, err := m.spec()
	if err != nil {
		return "", err
	}
	hash, err := spec.Hash()
	if err != nil {
		return "", err
	}
	p, runs, err := Process(c)
	if err != nil {
		return "", err
	}
	if runs && p.Spec == hash {
		return "as before", nil
	}
	if runs {
		if err := p.Kill(ctx); err != nil {
			return "", err
		}
	}
	if err := m.removeConsole(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d files", len(m.entries)), m.makeDisk(ctx)
}

// writeBootFiles writes the initrd and the key of all that goes into the
// machine.
func (m *Machine) writeBootFiles() error {
	if err := m.makeCertificates(); err != nil {
		return err
	}
	config, err := m.guestConfig()
	if err != nil {
		return err
	}
	initrd := []rootfs.Entry{
		{Path: "/init", Source: m.programs[guest.Name]},
		{Path: guest.InitrdConfig, Content: config},
	}
	for _, file := range m.kernel.Modules {
		initrd = append(initrd, rootfs.Entry{Path: guest.InitrdModules + "/" + filepath.Base(file), Source: file})
	}
	if m.entries, err = m.rootEntries(config); err != nil {
		return err
	}
	digests := []string{m.kernel.Version, m.layout.Name}
	for _, img := range m.images {
		digest, err := img.Digest()
		if err != nil {
			return err
		}
		digests = append(digests, img.Ref, digest)
	}
	key, err := rootfs.Key(append(initrd, m.entries...), digests...)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(m.keyFile()); err == nil && string(have) == key {
		return nil
	}
	if err := rootfs.Initrd(m.initrdFile(), initrd); err != nil {
		return err
	}
	return host.WriteFile(m.keyFile(), []byte(key))
}

func (m *Machine) keyFile() string    { return m.Context.Layout.NUMA("key") }
func (m *Machine) initrdFile() string { return m.Context.Layout.NUMA("initrd") }
func (m *Machine) diskFile() string   { return m.Context.Layout.NUMA("root.img") }
func (m *Machine) pkiDir() string     { return m.Context.Layout.NUMA("pki") }

// spec is how QEMU is started.
func (m *Machine) spec() (process.Spec, error) {
	program, err := exec.LookPath(machine.Program)
	if err != nil {
		return process.Spec{}, fmt.Errorf("find QEMU: %w", err)
	}
	args, err := machine.Args(m.layout, machine.Boot{
		Kernel: m.kernel.Image, Initrd: m.initrdFile(), Disk: m.diskFile(),
		Console: m.console(), Control: m.Context.Layout.NUMA("qmp.sock"), Link: m.link,
	})
	return process.Spec{Name: machine.Program, Path: program, Args: args, Inputs: []string{m.keyFile()}}, err
}

// makeCertificates makes the node's certificates in a folder of their own: the
// testbed's other keys never get into the machine.
func (m *Machine) makeCertificates() error {
	authority, err := pki.Open(m.Context.Layout.PKI())
	if err != nil {
		return err
	}
	if authority, err = authority.In(m.pkiDir()); err != nil {
		return err
	}
	c := m.cluster()
	for _, id := range c.NodeIdentities() {
		if err := authority.Ensure(id); err != nil {
			return err
		}
	}
	return authority.WriteKubeconfig(m.Context.Layout.NUMA("kubeconfig"), component.Kubelet, c.URL())
}

func (m *Machine) guestConfig() ([]byte, error) {
	c, l := m.cluster(), m.Context.Layout
	config := guest.Config{
		State:    l.State,
		Hostname: m.Record.NodeName,
		Uplink: guest.Uplink{
			MAC:     machine.UplinkMAC,
			Address: netip.PrefixFrom(m.link.Guest(), m.link.Prefix.Bits()),
			Host:    m.link.Host(),
		},
		Bridge:        l.Bridge(),
		BridgeAddress: netip.PrefixFrom(c.BridgeIP(), c.PodCIDR.Bits()),
		Forward:       c.Ports.APIServer,
		Channel:       guestChannelPort,
		VFs:           map[string]guest.VFs{},
	}
	for _, n := range m.layout.Nodes {
		for _, d := range n.Devices {
			if d.VFs == 0 {
				continue
			}
			_, address, err := m.layout.Device(d.ID)
			if err != nil {
				return nil, err
			}
			config.VFs[address] = vfsOf(d)
		}
	}
	for _, name := range []string{component.Containerd, component.Kubelet} {
		spec, err := c.Spec(name)
		if err != nil {
			return nil, err
		}
		// The fixed paths that these stand in for are the machine's own.
		spec.Binds = nil
		after := ""
		if name == component.Kubelet {
			after = l.ContainerdSocket()
		}
		config.Components = append(config.Components, guest.Component{Spec: spec, After: after})
	}
	return json.MarshalIndent(config, "", "  ")
}

// rootEntries lists the root file system, without the runtime's images.
func (m *Machine) rootEntries(config []byte) ([]rootfs.Entry, error) {
	c, l := m.cluster(), m.Context.Layout
	var entries []rootfs.Entry
	for _, dir := range append(l.Folders(), l.Topolet(), "/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/var/lib", "/var/log") {
		entries = append(entries, rootfs.Entry{Path: dir, Dir: true})
	}
	text := func(path, content string) {
		entries = append(entries, rootfs.Entry{Path: path, Content: []byte(content)})
	}
	text("/etc/hostname", m.Record.NodeName+"\n")
	text("/etc/hosts", "127.0.0.1 localhost "+m.Record.NodeName+"\n")
	text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
	text("/etc/group", "root:x:0:\n")
	text("/etc/resolv.conf", "")
	text("/etc/os-release", "ID=topolet-testbed\nPRETTY_NAME=\"topolet testbed\"\n")
	text(guest.ConfigFile(l), string(config))

	files, err := c.Files()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text(f.Path, f.Content)
	}
	secret := func(path, source string) {
		entries = append(entries, rootfs.Entry{Path: path, Source: source, Mode: 0o600})
	}
	secret(l.Kubeconfig(component.Kubelet), l.NUMA("kubeconfig"))
	entries = append(entries, rootfs.Entry{Path: pki.CertFile(l.PKI(), "ca"), Source: pki.CertFile(m.pkiDir(), "ca"), Mode: 0o644})
	for _, id := range c.NodeIdentities() {
		secret(pki.CertFile(l.PKI(), id.Name), pki.CertFile(m.pkiDir(), id.Name))
		secret(pki.KeyFile(l.PKI(), id.Name), pki.KeyFile(m.pkiDir(), id.Name))
	}
	programs, err := m.programEntries()
	return append(entries, programs...), err
}

// programEntries lists the programs and the libraries that they need.
func (m *Machine) programEntries() ([]rootfs.Entry, error) {
	l := m.Context.Layout
	var entries []rootfs.Entry
	program := func(path, source string) {
		entries = append(entries, rootfs.Entry{Path: path, Source: source})
	}
	// The one program that is called by the name of a part of it.
	program(l.Program(component.Kubelet), m.programs["kube"])
	for _, name := range []string{component.Containerd, "containerd-shim-runc-v2", "ctr", "runc", "bridge", "host-local", "loopback", "launch", guest.Name} {
		program(l.Program(name), m.programs[name])
	}
	if !m.Context.WithoutTopolet {
		program(l.Program("topolet"), m.Context.TopoletProgram())
	}
	dynamic := []string{m.programs["runc"]}
	// The kubelet calls these for every volume.
	for _, name := range []string{"mount", "umount"} {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("find a program for the machine: %w", err)
		}
		program("/usr/bin/"+name, path)
		dynamic = append(dynamic, path)
	}
	libraries, err := rootfs.Libraries(rootfs.LibraryFolders(), dynamic...)
	return append(entries, libraries...), err
}

func (m *Machine) makeDisk(ctx context.Context) error {
	c := m.Context
	tree := c.Layout.NUMA("tree")
	if err := os.RemoveAll(tree); err != nil {
		return fmt.Errorf("remove the files of an earlier disk: %w", err)
	}
	if err := rootfs.Tree(tree, m.entries); err != nil {
		return err
	}
	if err := m.preload(ctx, filepath.Join(tree, c.Layout.ContainerdRoot())); err != nil {
		return err
	}
	if err := rootfs.Image(ctx, process.MarkEnv(c.Layout.State), tree, m.diskFile(), diskSize); err != nil {
		return err
	}
	if err := os.RemoveAll(tree); err != nil {
		return fmt.Errorf("remove the files of the disk: %w", err)
	}
	return nil
}

// preloader is the component's name of the runtime that imports the images.
const preloader = "numa-preload"

// endPreload ends what an Up that was killed may have left.
func (m *Machine) endPreload(ctx context.Context) error {
	all, err := m.Context.Finder().All()
	if err != nil {
		return err
	}
	for _, p := range all {
		if p.Component != preloader {
			continue
		}
		if err := p.Kill(ctx); err != nil {
			return err
		}
	}
	return nil
}

// preload imports the images into the folder that becomes the runtime's in the
// machine, with a runtime that lives only for that.
func (m *Machine) preload(ctx context.Context, root string) error {
	if err := m.endPreload(ctx); err != nil {
		return err
	}
	c := m.Context
	state := c.Layout.NUMA("preload")
	socket := filepath.Join(state, "containerd.sock")
	config := c.Layout.NUMA("preload.toml")
	content := fmt.Sprintf(`# Read by the containerd that imports the images of the NUMA machine.
version = 3
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]

[grpc]
  address = %q

[ttrpc]
  address = %q

[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, root, state, socket, socket+".ttrpc", filepath.Join(root, "opt"))
	if err := host.WriteFile(config, []byte(content)); err != nil {
		return err
	}
	log := c.Starter().LogFile(preloader)
	p, err := c.Starter().Start(process.Spec{Name: preloader, Path: c.Layout.Program(component.Containerd), Args: []string{"--config", config}})
	if err != nil {
		return err
	}
	err = m.importImages(ctx, p, socket)
	if err != nil {
		output, _ := os.ReadFile(log)
		lines := bytes.Split(bytes.TrimSpace(output), []byte("\n"))
		err = fmt.Errorf("%w\nthe end of %s:\n%s", err, log, bytes.Join(lines[max(0, len(lines)-10):], []byte("\n")))
	}
	if stopErr := p.Stop(ctx, action.StopGrace); stopErr != nil {
		return stopErr
	}
	if err != nil {
		return err
	}
	for _, path := range []string{state, config, log} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("clean up after the import of images: %w", err)
		}
	}
	return nil
}

func (m *Machine) importImages(ctx context.Context, p process.Process, socket string) error {
	const limit = 30 * time.Second
	deadline := time.Now().Add(limit)
	for {
		err := action.Dial(ctx, socket)
		if err == nil {
			break
		}
		if ctx.Err() != nil || !p.Alive() || time.Now().After(deadline) {
			return fmt.Errorf("waited for up to %v for a runtime to import the machine's images: %w", limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	_, err := m.Context.Import(ctx, socket, m.images)
	return err
}
