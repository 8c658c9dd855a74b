package fpgaprogram

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/fpga"
	"github.com/topolet/topolet/topology/device/fpga/bitstream"
)

// DefaultPatience leaves time to program the port after waiting for others, within the time
// that the runtime waits for the hook.
const DefaultPatience = 80 * time.Second

// settling is for how long a port may say that it is being reset, before it is programmed and
// after. It takes milliseconds.
const settling = 3 * time.Second

// Programmer does jobs on a host.
type Programmer struct {
	// Files are the machine's, as [topology.OpenRoot] opens them. Root is the directory that
	// they are in, for devices and programs; empty is /.
	Files  fs.FS
	Root   string
	Kernel Kernel
	// Patience is how long it waits for others who are in the way, all in all; 0 is
	// [DefaultPatience]. Programming itself takes seconds more.
	Patience time.Duration
}

// Run returns when the port has the function. Jobs of a card wait for each other, whatever
// processes they are done by. A port that has the function already is left alone, except that
// OpenCL programs all have the same: there it must be known that it is the right one.
func (p Programmer) Run(ctx context.Context, job Job) error {
	if p.Patience == 0 {
		p.Patience = DefaultPatience
	}
	ctx, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	if err := p.run(ctx, job); err != nil {
		return fmt.Errorf("%s does not get function %s: %w", job.Device, job.AFUID, err)
	}
	return nil
}

func (p Programmer) run(ctx context.Context, job Job) error {
	host, err := newHost(p.Files)
	if err != nil {
		return err
	}
	found, err := host.port(job.Device)
	if err != nil {
		return err
	}
	card, err := lockCard(ctx, job.StateDir, found.card, host.bootID())
	if err != nil {
		return err
	}
	defer card.unlock()
	// Whoever had the lock may have changed it. A user who resets the port shall not have it
	// programmed.
	port, err := host.settled(ctx, job.Device)
	if err != nil {
		return err
	}
	if port.afuID == job.AFUID && job.AFUID != bitstream.OpenCL {
		return nil
	}
	switch {
	case job.Folder == "":
		return refused(job.Device, "configure the folder again (devices[].programs.folder), or delete the pod",
			"it has function %q, and the node has no folder of programs any more", port.afuID)
	case !port.programmable:
		return refused(job.Device, "delete the pod so that its claim is allocated anew, or look at the card",
			"it has function %q, and cannot be programmed at the moment", port.afuID)
	}
	file, err := Folder{Root: p.Root, Path: job.Folder}.Find(port.interfaceID, job.AFUID)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read
	data, err := file.Content()
	if err != nil {
		return err
	}
	identity := ""
	if job.AFUID == bitstream.OpenCL {
		sum := sha256.Sum256(data)
		identity = hex.EncodeToString(sum[:])
	}
	if port.afuID == job.AFUID && card.program(job.Device) == identity {
		return nil
	}
	// From here on nobody knows what the port has until it is programmed.
	if err := card.note(job.Device, ""); err != nil {
		return err
	}
	if err := p.program(ctx, host, port, job, data); err != nil {
		return err
	}
	return card.note(job.Device, identity)
}

// program programs the port and looks whether it has the function then.
func (p Programmer) program(ctx context.Context, host host, port port, job Job, data []byte) error {
	engine, err := openEngine(ctx, p.Kernel, p.Root, port.stack, port.engine)
	if err != nil {
		return err
	}
	err = engine.program(ctx, port.number, data)
	if err := errors.Join(err, engine.close()); err != nil {
		return err
	}
	// How it turned out is looked at even if the patience is at its end by now.
	now, err := host.settled(context.WithoutCancel(ctx), job.Device)
	if err != nil {
		return err
	}
	if now.afuID != job.AFUID {
		return refused(job.Device, "see the kernel's log; the card may need a reset, or another file", "after programming it has function %q", now.afuID)
	}
	return nil
}

// host is a machine as it is now.
type host struct {
	files   fs.FS
	machine *topology.Machine
}

func newHost(files fs.FS) (host, error) {
	m, err := topology.Discover(files)
	if err != nil {
		return host{}, fmt.Errorf("looking at the machine: %w", err)
	}
	return host{files, m}, nil
}

func (h host) bootID() string {
	id, _ := topology.NewFiles(h.files).Read("proc/sys/kernel/random/boot_id")
	return id
}

// port is a port of a card as it is at a moment.
type port struct {
	number uint32
	// card is the address of the physical function.
	card string
	// stack is the set of drivers, interfaceID that of the card, and afuID that of the
	// function, which is empty during a reset.
	stack, interfaceID, afuID string
	// programmable ports have an engine.
	programmable bool
	engine       device.Node
}

// settled is port, after a reset of the port if there is one: its function is still empty if
// that does not end.
func (h host) settled(ctx context.Context, name string) (port, error) {
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	for {
		now, err := h.port(name)
		if err != nil || now.afuID != "" {
			return now, err
		}
		select {
		case <-ctx.Done():
			return now, nil
		case <-time.After(poll):
		}
	}
}

// port returns the port of that device.
func (h host) port(name string) (port, error) {
	var problems []string
	devices := fpga.Family{}.Discover(device.NewHost(h.files, h.machine), func(err error) { problems = append(problems, err.Error()) })
	i := slices.IndexFunc(devices, func(d device.Device) bool { return d.Name == name })
	if i < 0 {
		reason := "this machine has no such port"
		if len(problems) > 0 {
			reason += " (" + strings.Join(problems, ", ") + ")"
		}
		return port{}, refused(name, "bind the drivers of the card, or delete the pod so that its claim is allocated anew", "%s", reason)
	}
	d := devices[i]
	found := port{card: d.Use.Owner}
	found.number, _ = fpga.PortNumber(name)
	found.stack, _ = d.Attributes[fpga.Stack].AsText()
	found.interfaceID, _ = d.Attributes[fpga.InterfaceID].AsText()
	found.afuID, _ = d.Attributes[fpga.AFUID].AsText()
	found.programmable, _ = d.Attributes[fpga.Programmable].AsFlag()
	for _, n := range d.Nodes {
		if n.Role == fpga.Management {
			found.engine = n
		}
	}
	return found, nil
}
