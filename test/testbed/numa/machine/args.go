package machine

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Program is the name of QEMU's program, and of the machine as a component of
// the testbed.
const Program = "qemu-system-x86_64"

// UplinkMAC tells the network function that leads to the host from the ones
// that are only there to be found.
const UplinkMAC = "52:54:00:70:6f:01"

// Link is the network between the host and the machine. QEMU itself answers
// for the host.
type Link struct {
	// Prefix is the network that both are in.
	Prefix netip.Prefix
	// Ports are TCP ports of this host that lead to the machine.
	Forwards []Forward
}

// Forward leads from an address of this host to a port of the machine.
type Forward struct {
	From netip.AddrPort
	To   int
}

// kernelArgs are the arguments of the guest's kernel.
func (l Layout) kernelArgs() string {
	// clearcpuid=112 is rep_good (arch/x86/include/asm/cpufeatures.h): the kernel copies and
	// clears memory without string instructions, each step of which QEMU emulates by itself.
	args := "console=ttyS0 quiet mitigations=off nokaslr tsc=reliable clocksource=tsc cgroup_no_v1=all clearcpuid=112"
	var hugepages []string
	for n, node := range l.Nodes {
		if node.Hugepages > 0 {
			hugepages = append(hugepages, fmt.Sprintf("%d:%d", n, node.Hugepages))
		}
	}
	if len(hugepages) > 0 {
		// Documentation/admin-guide/kernel-parameters.txt: pages for each node.
		args += " hugepagesz=2M hugepages=" + strings.Join(hugepages, ",")
	}
	if len(l.Isolated) > 0 {
		args += " isolcpus=" + strings.ReplaceAll(strings.Trim(fmt.Sprint(l.Isolated), "[]"), " ", ",")
	}
	if l.IOMMU {
		args += " intel_iommu=on iommu=pt"
	}
	return args
}

func (n Link) nth(i uint8) netip.Addr {
	a := n.Prefix.Masked().Addr().As4()
	a[3] += i
	return netip.AddrFrom4(a)
}

// Host is the address by which the machine reaches this host's loopback.
func (n Link) Host() netip.Addr { return n.nth(2) }

// Guest is the machine's address.
func (n Link) Guest() netip.Addr { return n.nth(15) }

// Boot is what the machine is started with beside its layout.
type Boot struct {
	Kernel, Initrd string
	// Disk is the image of the root file system.
	Disk string
	// Console receives what the kernel and the guest's first process print.
	Console string
	// Control is the unix socket of QEMU's monitor protocol.
	Control string
	Link    Link
}

// Args are QEMU's arguments for the machine.
func Args(l Layout, b Boot) ([]string, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	threads := "single"
	if l.Parallel {
		threads = "multi"
	}
	args := []string{
		"-accel", "tcg,tb-size=512,thread=" + threads,
		// The kernel reads the L3 groups where Intel has them: QEMU describes none with
		// AMD's name. As Intel's CPUs do, it answers for a leaf of CPUID that is not there
		// with the last one that is; QEMU 10.0 ends when that is 0x1f and the firmware
		// looks for other hypervisors. Without the fast string instructions nobody prefers
		// them to loops, which are faster here.
		"-cpu", "max,vendor=GenuineIntel,-la57,-cx16,-erms,-fsrm,level=0x20",
		"-machine", "q35",
		"-nodefaults", "-no-user-config", "-display", "none",
		"-chardev", "file,id=console,append=on,path=" + b.Console, "-serial", "chardev:console",
		"-qmp", "unix:" + b.Control + ",server=on,wait=off",
		"-kernel", b.Kernel, "-initrd", b.Initrd,
		"-append", l.kernelArgs(),
		"-m", strconv.Itoa(l.Memory()) + "M",
		"-smp", fmt.Sprintf("%d,sockets=%d,dies=%d,cores=%d,threads=%d", l.CPUCount(), l.Sockets, l.L3PerSocket, l.CoresPerL3, l.ThreadsPerCore),
	}
	if l.IOMMU {
		// Before the devices that are behind it.
		args = append(args, "-device", "intel-iommu")
	}
	args = append(args, l.nodes()...)
	uplink := []string{fmt.Sprintf("user,id=uplink,ipv6=off,net=%v,host=%v,dhcpstart=%v", b.Link.Prefix, b.Link.Host(), b.Link.Guest())}
	for _, f := range b.Link.Forwards {
		uplink = append(uplink, fmt.Sprintf("hostfwd=tcp:%v-:%d", f.From, f.To))
	}
	args = append(args,
		"-drive", "id=root,if=none,format=raw,cache=unsafe,file="+b.Disk,
		"-device", "virtio-blk-pci,drive=root",
		"-netdev", strings.Join(uplink, ","),
		"-device", "virtio-net-pci,netdev=uplink,romfile=,mac="+UplinkMAC,
	)
	return append(args, l.pci()...), nil
}

// nodes describes the NUMA nodes.
func (l Layout) nodes() []string {
	var args []string
	for n, node := range l.Nodes {
		args = append(args,
			"-object", fmt.Sprintf("memory-backend-ram,id=mem%d,size=%dM", n, node.Memory),
			"-numa", fmt.Sprintf("node,nodeid=%d,memdev=mem%d", n, n))
		for _, group := range node.L3 {
			args = append(args, "-numa", fmt.Sprintf("cpu,node-id=%d,socket-id=%d,die-id=%d", n, group/l.L3PerSocket, group%l.L3PerSocket))
		}
	}
	for a, row := range l.Distances {
		for b, d := range row {
			if a != b {
				args = append(args, "-numa", fmt.Sprintf("dist,src=%d,dst=%d,val=%d", a, b, d))
			}
		}
	}
	return args
}

// Each node's PCI root has a range of bus numbers, the first of which is the
// root's own.
const portsPerNode = 15

func rootBus(node int) int { return (node + 1) * (portsPerNode + 1) }

func portID(id string) string { return id + "-port" }

// pci describes the PCI roots, their root ports and the devices on those.
func (l Layout) pci() []string {
	var args []string
	for n, node := range l.Nodes {
		if len(node.Devices) == 0 {
			continue
		}
		root := fmt.Sprintf("root%d", n)
		args = append(args, "-device", fmt.Sprintf("pxb-pcie,id=%s,bus=pcie.0,bus_nr=%d,numa_node=%d", root, rootBus(n), n))
		for i, d := range node.Devices {
			// Without I/O ports: there are not enough for that many ports.
			args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=%s,bus=%s,addr=%#x,chassis=%d,slot=%d,io-reserve=0", portID(d.ID), root, i, n+1, i))
			if d.Kind == NVMe {
				args = append(args, "-blockdev", fmt.Sprintf("null-co,node-name=%s,size=%d,read-zeroes=on", namespace(d.ID), namespaceSize))
			}
			hasSubsystem := d.Kind == NVMe && d.VFs > 0
			if hasSubsystem {
				args = append(args, "-device", "nvme-subsys,id="+subsystem(d.ID))
			}
			// A map of strings and numbers always has a JSON form.
			properties, _ := json.Marshal(d.Properties())
			args = append(args, "-device", string(properties))
			if hasSubsystem {
				// It stays with the subsystem when the function is unplugged. QEMU makes
				// the devices that are in JSON after all others.
				args = append(args, "-device", fmt.Sprintf(`{"driver":"nvme-ns","bus":%q,"drive":%q}`, d.ID, namespace(d.ID)))
			}
		}
	}
	return args
}

func subsystem(id string) string { return id + "-subsys" }

// namespace is the disk behind an NVMe function: nothing but zeros.
func namespace(id string) string { return id + "-disk" }

const namespaceSize = 1 << 20

// Properties describe the device to QEMU, on its command line as when it is
// plugged in.
func (d Device) Properties() map[string]any {
	p := map[string]any{"id": d.ID, "bus": portID(d.ID)}
	switch d.Kind {
	case NVMe:
		p["driver"], p["serial"] = "nvme", d.ID
		if d.VFs > 0 {
			// The VFs take their queues and interrupts from the pool that the
			// function itself leaves.
			p["subsys"] = subsystem(d.ID)
			p["sriov_max_vfs"], p["sriov_vq_flexible"], p["sriov_vi_flexible"] = d.VFs, 2*d.VFs, d.VFs
			p["max_ioqpairs"], p["msix_qsize"] = 2*d.VFs+4, d.VFs+4
		} else {
			p["drive"] = namespace(d.ID)
		}
	case Network:
		p["driver"], p["romfile"] = "virtio-net-pci", ""
	case SRIOVNetwork:
		p["driver"], p["romfile"] = "igb", ""
	}
	return p
}

// Device finds a device and its PCI address. The firmware numbers the buses
// behind a root's ports in their order.
func (l Layout) Device(id string) (d Device, address string, err error) {
	var ids []string
	for n, node := range l.Nodes {
		for i, d := range node.Devices {
			if d.ID == id {
				return d, fmt.Sprintf("0000:%02x:00.0", rootBus(n)+1+i), nil
			}
			ids = append(ids, d.ID)
		}
	}
	return Device{}, "", fmt.Errorf("the layout %s has no device %q; it has %s", l.Name, id, strings.Join(ids, ", "))
}
