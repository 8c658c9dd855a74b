package topology

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"
)

const pciDir = "sys/bus/pci/devices"

// maxPath bounds the links that are followed up the tree. A kernel's is some 20
// bytes for each bridge on the way.
const maxPath = 1 << 10

// readPCI fills in the PCIe tree. The entries of sys/bus/pci/devices are links to
// where the functions are in the tree:
//
//	0000:1a:00.0 -> ../../../devices/pci0000:17/0000:17:00.0/0000:18:00.0/0000:1a:00.0
//
// So a function's files are read through its entry, and its ancestors are read
// off the link. A snapshot may have directories in place of the links: then the
// machine does not tell of ancestors.
func (s *sysfs) readPCI(m *Machine) {
	names, _ := s.entries(pciDir)
	p := &pciReader{sysfs: s, m: m, lists: map[setFile]map[string]CPUSet{}}
	for _, name := range names {
		if address, err := ParsePCIAddress(name); err == nil && address.String() == name {
			p.functions = append(p.functions, pciEntry{PCIFunction: PCIFunction{Address: address}})
		}
	}
	slices.SortFunc(p.functions, func(a, b pciEntry) int { return a.Address.Compare(b.Address) })
	for i := range p.functions {
		p.readFunction(&p.functions[i])
	}
	p.findRoots()
	p.findParents()
	p.findVirtual()
	for i := range p.functions {
		p.functions[i].Kind = p.kind(i)
	}
	for _, f := range p.functions {
		m.PCI.Functions = append(m.PCI.Functions, f.PCIFunction)
	}
}

// pciReader is the PCIe tree while it is read.
type pciReader struct {
	*sysfs
	m         *Machine
	functions []pciEntry
	// lists spare parsing: functions side by side have the same local CPUs.
	lists map[setFile]map[string]CPUSet
}

// pciEntry is a function, and what its links say.
type pciEntry struct {
	PCIFunction
	// path is where the entry's link leads, from the root of the file system;
	// "" if that is not where such a function would be.
	path string
	// physfn is the entry's name for the physical function.
	physfn string
}

// readFunction reads the files of one function. Those that only some functions
// have are looked for only there.
func (p *pciReader) readFunction(f *pciEntry) {
	dir := pciDir + "/" + f.Address.String() + "/"
	f.path = p.placeOf(dir, f.Address.String())
	f.Class = p.hex(dir+"class", 24)
	f.Vendor = p.hex(dir+"vendor", 16)
	f.Device = p.hex(dir+"device", 16)
	f.SubsystemVendor = p.hex(dir+"subsystem_vendor", 16)
	f.SubsystemDevice = p.hex(dir+"subsystem_device", 16)
	f.Driver = p.linkName(dir + "driver")
	f.IOMMUGroup = None
	if group, err := strconv.ParseUint(p.linkName(dir+"iommu_group"), 10, 31); err == nil {
		f.IOMMUGroup = int(group)
	}
	f.NUMANode = None
	if node, ok := p.integer(dir + "numa_node"); ok && node >= 0 && node < 1<<31 {
		f.NUMANode = node
	}
	f.LocalCPUs = p.localCPUs(dir, "local_cpulist", "local_cpus")
	f.Link = p.readLink(dir + "current_link_")
	f.MaxLink = p.readLink(dir + "max_link_")
	f.Root, f.Parent, f.PhysicalFunction = None, None, None
	if isBridgeClass(f.Class) {
		return
	}
	f.physfn = p.linkName(dir + "physfn")
	if total, ok := p.integer(dir + "sriov_totalvfs"); ok && total >= 0 && total <= 0xffff {
		f.SRIOV = &SRIOV{TotalVFs: total}
		if num, ok := p.integer(dir + "sriov_numvfs"); ok && num >= 0 && num <= 0xffff {
			f.SRIOV.NumVFs = num
		}
	}
}

// placeOf returns where the link of the entry leads.
func (p *pciReader) placeOf(entry, name string) string {
	target, ok := p.link(strings.TrimSuffix(entry, "/"))
	if !ok || len(target) > maxPath {
		return ""
	}
	place := path.Clean(target)
	if !path.IsAbs(place) {
		place = path.Join(pciDir, place)
	}
	place = strings.TrimPrefix(place, "/")
	if path.Base(place) != name {
		return ""
	}
	return place
}

// hex reads a number such as 0x8086; None is for what is no such number.
func (p *pciReader) hex(name string, bits int) int {
	text, ok := p.read(name)
	if !ok {
		return None
	}
	digits, ok := strings.CutPrefix(string(text), "0x")
	v, err := strconv.ParseInt(digits, 16, 64)
	if !ok || err != nil || v < 0 || v>>bits != 0 {
		return None
	}
	return int(v)
}

// linkName returns the last part of where a link leads, or "": the link need not
// lead anywhere, its name says it all.
func (p *pciReader) linkName(name string) string {
	target, ok := p.link(name)
	if !ok || target == "" {
		return ""
	}
	return path.Base(target)
}

// localCPUs reads CPUs from the file with the list, or else from that with the mask.
func (p *pciReader) localCPUs(dir, listFile, maskFile string) *CPUSet {
	for _, f := range []setFile{{listFile, list}, {maskFile, mask}} {
		text, ok := p.read(dir + f.name)
		if !ok {
			continue
		}
		cpus, known := p.lists[f][string(text)]
		if !known {
			parsed, err := f.parse.of(string(text))
			if err != nil {
				continue
			}
			cpus = parsed.Intersection(p.m.Online)
			if p.lists[f] == nil {
				p.lists[f] = map[string]CPUSet{}
			}
			p.lists[f][string(text)] = cpus
		}
		return &cpus
	}
	return nil
}

// readLink reads the speed, "8.0 GT/s PCIe" or "Unknown", and the width, which is
// 0 without a connection and 255 where the device does not know.
func (p *pciReader) readLink(prefix string) PCILink {
	var link PCILink
	if text, ok := p.read(prefix + "speed"); ok {
		number, unit, _ := strings.Cut(string(text), " ")
		speed, err := strconv.ParseFloat(number, 64)
		if err == nil && strings.HasPrefix(unit, "GT/s") && speed > 0 && speed < 1<<16 {
			link.Speed = speed
		}
	}
	if width, ok := p.integer(prefix + "width"); ok && width > 0 && width <= 32 {
		link.Width = width
	}
	return link
}

// findRoots reads the roots off the links. Where a link leads through two, as
// behind an Intel VMD, the outer one counts: it is the one that leads to the CPUs.
func (p *pciReader) findRoots() {
	index := map[PCIAddress]int{}
	var dirs []string
	var rootOf []PCIAddress
	for i := range p.functions {
		f := &p.functions[i]
		root, dir, ok := rootOnPath(f.path)
		at := PCIAddress{Domain: root.Domain, Bus: root.Bus}
		rootOf = append(rootOf, at)
		if !ok {
			f.path = ""
			continue
		}
		if _, known := index[at]; !known {
			index[at] = len(p.m.PCI.Roots)
			p.m.PCI.Roots = append(p.m.PCI.Roots, root)
			dirs = append(dirs, dir)
		}
	}
	for i := range p.m.PCI.Roots {
		r := &p.m.PCI.Roots[i]
		bus := strings.TrimPrefix(r.String(), "pci")
		r.LocalCPUs = p.localCPUs(dirs[i]+"/pci_bus/"+bus+"/", "cpulistaffinity", "cpuaffinity")
	}
	slices.SortFunc(p.m.PCI.Roots, func(a, b PCIRoot) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Bus, b.Bus))
	})
	for i, r := range p.m.PCI.Roots {
		index[PCIAddress{Domain: r.Domain, Bus: r.Bus}] = i
	}
	for i := range p.functions {
		if f := &p.functions[i]; f.path != "" {
			f.Root = index[rootOf[i]]
		}
	}
}

// rootOnPath finds the first directory on the path that is a root's.
func rootOnPath(place string) (root PCIRoot, dir string, ok bool) {
	for end := 0; end < len(place); end++ {
		start := end
		for end < len(place) && place[end] != '/' {
			end++
		}
		if root, ok := parsePCIRoot(place[start:end]); ok && root.String() == place[start:end] {
			return root, place[:end], true
		}
	}
	return PCIRoot{}, "", false
}

// findParents finds the bridge above each function: the nearest directory on the
// way that is a function's own. A parent's path is a part of the child's, so
// nobody is above itself, whatever the links say.
func (p *pciReader) findParents() {
	for i := range p.functions {
		f := &p.functions[i]
		if f.path == "" {
			continue
		}
		for dir := f.path; ; {
			cut := strings.LastIndexByte(dir, '/')
			if cut < 0 {
				break
			}
			dir = dir[:cut]
			parent, ok := p.named(dir[strings.LastIndexByte(dir, '/')+1:])
			if ok && p.functions[parent].path == dir {
				f.Parent = parent
				p.functions[parent].Children = append(p.functions[parent].Children, i)
				break
			}
		}
		if f.Parent == None {
			root := &p.m.PCI.Roots[f.Root]
			root.Children = append(root.Children, i)
		}
	}
}

// findVirtual joins the virtual functions to their physical ones. A virtual
// function has no virtual functions, so a circle of links joins nobody.
func (p *pciReader) findVirtual() {
	for i := range p.functions {
		f := &p.functions[i]
		pf, ok := p.named(f.physfn)
		if !ok || pf == i || p.functions[pf].physfn != "" {
			continue
		}
		f.PhysicalFunction = pf
		if physical := &p.functions[pf]; physical.SRIOV == nil {
			physical.SRIOV = &SRIOV{}
		}
		p.functions[pf].SRIOV.VFs = append(p.functions[pf].SRIOV.VFs, i)
	}
}

// named returns the index of the function with this name.
func (p *pciReader) named(name string) (int, bool) {
	address, err := ParsePCIAddress(name)
	if err != nil {
		return None, false
	}
	return slices.BinarySearchFunc(p.functions, address, func(f pciEntry, a PCIAddress) int { return f.Address.Compare(a) })
}

// index returns the index of the function with this address.
func (p *PCI) index(a PCIAddress) (int, bool) {
	return slices.BinarySearchFunc(p.Functions, a, func(f PCIFunction, a PCIAddress) int { return f.Address.Compare(a) })
}

// Base class and subclass of the functions that make up the tree.
const (
	classHostBridge = 0x0600
	classPCIBridge  = 0x0604
	classCardBus    = 0x0607
	classSemiBridge = 0x0609 // semi-transparent
)

func isBridgeClass(class int) bool {
	if class == None {
		return false
	}
	switch class >> 8 {
	case classPCIBridge, classCardBus, classSemiBridge:
		return true
	}
	return false
}

// kind tells the part of the function at index i. Parents are settled by then.
func (p *pciReader) kind(i int) PCIKind {
	f := &p.functions[i]
	switch {
	case f.Class != None && f.Class>>8 == classHostBridge:
		return PCIHostBridge
	case !isBridgeClass(f.Class):
		return PCIEndpoint
	}
	bridges := 0
	for parent := f.Parent; parent != None && isBridgeClass(p.functions[parent].Class); parent = p.functions[parent].Parent {
		bridges++
	}
	switch {
	case bridges == 0:
		return PCIRootPort
	case bridges%2 == 1:
		return PCIUpstream
	}
	return PCIDownstream
}
