package allocator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/topolet/topolet/topology"
)

// Pages is an amount of memory in pages of one size.
type Pages struct {
	// SizeBytes is the size of a huge page; 0 means the kernel's ordinary pages.
	SizeBytes uint64 `json:"pageSize,omitempty"`
	Bytes     uint64 `json:"bytes"`
}

// MemoryDomain is the memory of one NUMA node, out of which claims are served by
// the byte. It never changes.
//
// Claims are kept from promising more than there is. The kernel does not keep
// others off the node's memory: what runs without a claim may use it as well.
type MemoryDomain struct {
	// Name is unique on the machine and the same after every restart: "memory-numa-0".
	Name string
	// NUMANode is the kernel's number of the node.
	NUMANode int
	// MemoryOnly says that the node has no CPUs.
	MemoryOnly bool
	// CPUNodes are the kernel's numbers of the nodes whose CPUs are nearest: the
	// node itself, or for memory without CPUs those at the least distance.
	CPUNodes []int
	// Pages is what claims can get: ordinary pages first, then huge ones by size.
	Pages []Pages
}

// memoryPrefix begins the names of all memory domains, and of no other.
const memoryPrefix = "memory-"

// IsMemory tells the name of a memory domain from that of a domain of CPUs, also
// where the machine no longer has it.
func IsMemory(domain string) bool { return strings.HasPrefix(domain, memoryPrefix) }

// Reserve is how much of each NUMA node's ordinary memory no claim gets: both
// amounts together.
type Reserve struct {
	Bytes uint64
	// Percent is of the node's memory, between 0 and 100.
	Percent uint64
}

// of is what remains of an amount, in whole units of [MemoryStep].
func (r Reserve) of(total uint64) uint64 {
	reserved := r.Bytes + total/100*r.Percent
	if reserved >= total {
		return 0
	}
	return (total - reserved) / MemoryStep * MemoryStep
}

// MemoryStep is the unit in which ordinary memory is given, in bytes.
const MemoryStep = 1 << 20

// MemoryDomains returns one domain for each NUMA node that has memory, by number.
// Pages of the huge page pools are not ordinary memory. A machine without NUMA has
// none: there is nothing to choose.
func MemoryDomains(m *topology.Machine, reserve Reserve) []*MemoryDomain {
	var domains []*MemoryDomain
	for _, n := range m.NUMANodes {
		if n.MemoryBytes == nil {
			continue
		}
		d := &MemoryDomain{
			Name:       fmt.Sprintf("%snuma-%d", memoryPrefix, n.ID),
			NUMANode:   n.ID,
			MemoryOnly: n.MemoryOnly(),
			CPUNodes:   n.NearestCPUNodes,
		}
		if !n.CPUs.IsEmpty() {
			d.CPUNodes = []int{n.ID}
		}
		ordinary := *n.MemoryBytes
		var huge []Pages
		for _, h := range n.Hugepages {
			// What a damaged file says must not wrap around.
			if h.SizeBytes == 0 || h.Total == 0 || h.Total > ordinary/h.SizeBytes {
				continue
			}
			huge = append(huge, Pages{SizeBytes: h.SizeBytes, Bytes: h.Total * h.SizeBytes})
			ordinary -= h.Total * h.SizeBytes
		}
		if left := reserve.of(ordinary); left > 0 {
			d.Pages = append(d.Pages, Pages{Bytes: left})
		}
		if d.Pages = append(d.Pages, huge...); len(d.Pages) > 0 {
			domains = append(domains, d)
		}
	}
	slices.SortFunc(domains, func(a, b *MemoryDomain) int { return cmp.Compare(a.NUMANode, b.NUMANode) })
	return domains
}

// bytesOf is the amount in pages of one size.
func bytesOf(pages []Pages, size uint64) uint64 {
	for _, p := range pages {
		if p.SizeBytes == size {
			return p.Bytes
		}
	}
	return 0
}

// fits returns an error unless the domain has the memory of the request beside
// what the other parts of grants hold of it.
func (d *MemoryDomain) fits(r Request, held []Part) error {
	for _, wanted := range r.Memory {
		free := bytesOf(d.Pages, wanted.SizeBytes)
		for _, p := range held {
			if p.Domain == d.Name {
				free -= min(free, bytesOf(p.Memory, wanted.SizeBytes))
			}
		}
		if wanted.Bytes > free {
			return &InsufficientMemoryError{Domain: d.Name, Requested: wanted, FreeBytes: free}
		}
	}
	return nil
}

// InsufficientMemoryError says that a NUMA node has too little memory left for a
// request.
type InsufficientMemoryError struct {
	Domain    string
	Requested Pages
	FreeBytes uint64
}

func (e *InsufficientMemoryError) Error() string {
	kind := "ordinary memory"
	if e.Requested.SizeBytes > 0 {
		kind = fmt.Sprintf("huge pages of %d bytes", e.Requested.SizeBytes)
	}
	return fmt.Sprintf("domain %s: %d bytes of %s requested, %d free", e.Domain, e.Requested.Bytes, kind, e.FreeBytes)
}
