// Package sgx finds what a machine has for SGX enclaves: the encrypted memory of each
// NUMA node (EPC, enclave page cache), and the right to enclaves that attest others
// (arch/x86/kernel/cpu/sgx).
//
// None of it is a PCI function: there is one node in /dev for enclaves, one for those of
// virtual machines and one for attestation, and the kernel tells how much EPC each NUMA
// node has. It holds nobody to an amount or a NUMA node: EPC can be overcommitted, and
// pages come from wherever there are some. Both say where claims should go, and keep
// their sum within what there is.
package sgx

import (
	"fmt"
	"strconv"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

const name = "sgx"

// AESM is the role of the variable that tells an enclave's process to have quotes made by
// the architectural enclave service, through the socket in /var/run/aesmd.
const AESM = "aesm"

// AESMHost is the role of the folder with the socket of the service that runs on the host.
const AESMHost = "aesm-host"

const aesmFolder = "/var/run/aesmd"

// Roles of the nodes of EPC. A claim gets one of the two.
const (
	// Enclave is for enclaves of the container's own processes: /dev/sgx_enclave. Claims
	// get it by default.
	Enclave = "enclave"
	// VirtualEPC is for the enclaves of a virtual machine: /dev/sgx_vepc. Claims that ask
	// for it get it in place of the other.
	VirtualEPC = "vepc"
)

// Sizes of EPC in bytes: it comes in pages, and a claim that does not say how much it
// wants gets a small enclave's worth.
const (
	page         = 4 << 10
	defaultClaim = 1 << 20
)

// Family is the family of SGX.
type Family struct {
	// Tenants is how many claims can have EPC of the same NUMA node; 0 is any number, as
	// far as the EPC goes.
	Tenants uint64
	// EPC is the machine's EPC in bytes as its processors tell it (CPUID leaf 0x12), or 0 if
	// nobody has asked them. It counts only where the kernel does not tell (before
	// Linux 5.17).
	EPC uint64
}

// Name implements [device.Family].
func (Family) Name() string { return name }

// Discover implements [device.Family].
func (family Family) Discover(h *device.Host, problem func(error)) []device.Device {
	enclave, ok := node(h, "enclave")
	if !ok {
		return nil
	}
	enclave.Role = Enclave
	nodes := []device.Node{enclave}
	vepc, hasVirtual := node(h, "vepc")
	if hasVirtual {
		vepc.Role = VirtualEPC
		nodes = append(nodes, vepc)
	}

	var devices []device.Device
	for _, s := range family.sections(h, problem) {
		d := shared("epc", s.suffix, s.numaNode)
		d.Set("vepc", device.Flag(hasVirtual))
		d.Capacities = family.capacities(s.bytes)
		d.Nodes = append(d.Nodes, nodes...)
		d.Variables = []device.Variable{{Name: "SGX_AESM_ADDR", Value: "1", Role: AESM}}
		d.Mounts = []device.Mount{{Path: aesmFolder, Role: AESMHost}}
		devices = append(devices, d)
	}
	if provision, ok := node(h, "provision"); ok {
		d := shared("provision", "", topology.None)
		d.Nodes = append(d.Nodes, provision)
		devices = append(devices, d)
	}
	return devices
}

// shared returns a device that any number of claims can have, as far as its capacities go.
func shared(kind, suffix string, numaNode int) device.Device {
	d := device.Device{
		Name:        name + "-" + kind + suffix,
		Family:      name,
		Personality: device.Kernel,
		NUMANode:    numaNode,
		Shared:      true,
	}
	d.Set("sgxKind", device.Text(kind))
	return d
}

// node returns one of the nodes of SGX. Drivers from before it was part of the kernel
// (Linux 5.11) have a directory for them.
func node(h *device.Host, kind string) (device.Node, bool) {
	for _, try := range []struct{ class, path string }{
		{"sgx_" + kind, "/dev/sgx_" + kind},
		{kind, "/dev/sgx/" + kind},
	} {
		if n, ok := h.Node("sys/class/misc/"+try.class, false); ok && n.Path == try.path {
			return n, true
		}
	}
	return device.Node{}, false
}

// section is EPC of one NUMA node, or of the machine.
type section struct {
	suffix   string
	numaNode int
	// bytes is 0 where the amount is not known.
	bytes uint64
}

// sections finds the EPC (Documentation/ABI/stable/sysfs-devices-node). A NUMA node
// without the file has none, unless the kernel has it for no NUMA node at all.
func (family Family) sections(h *device.Host, problem func(error)) []section {
	var list []section
	told := false
	for _, n := range h.Machine.NUMANodes {
		suffix := "-node" + strconv.Itoa(n.ID)
		file := "sys/devices/system/node/node" + strconv.Itoa(n.ID) + "/x86/sgx_total_bytes"
		if !h.Exists(file) {
			continue
		}
		told = true
		bytes, ok := h.Uint(file)
		switch {
		case !ok:
			problem(fmt.Errorf("the EPC of NUMA node %d is left out: %s has no number of bytes", n.ID, file))
		case bytes >= page:
			list = append(list, section{suffix, n.ID, bytes})
		}
	}
	if !told {
		list = append(list, section{"", topology.None, family.EPC})
	}
	return list
}

// capacities tells what claims share. An unknown amount is not made up: claims that ask
// for one do not get such a device, and the others do.
func (family Family) capacities(bytes uint64) []device.Capacity {
	var list []device.Capacity
	if bytes >= page {
		whole := bytes - bytes%page
		list = append(list, device.Capacity{
			Name: "epc", Amount: whole, Bytes: true,
			Default: min(defaultClaim, whole), Min: page, Step: page,
		})
	}
	if family.Tenants > 0 {
		tenants := device.Shares(family.Tenants)
		tenants.Name = "tenants"
		list = append(list, tenants)
	}
	return list
}
