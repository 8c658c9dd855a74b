package snapshot

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/topolet/topolet/topology"
)

// fileRule says what the files at a path look like.
type fileRule struct {
	path *regexp.Regexp
	// clean returns what the file says, without all else, or false if the file is
	// not of this kind: discovery takes such a file for absent, too.
	clean func(text string) (string, bool)
}

// The names below are all that a path in a snapshot can be made of.
const (
	cpu  = `sys/devices/system/cpu/`
	cpuN = cpu + `cpu\d+/`
	node = `sys/devices/system/node/node\d+`
	pci  = `sys/(bus/pci/devices|devices/[0-9a-f:./pci]+)/[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]/`
	bus  = `sys/devices/pci[0-9a-f]{4,8}:[0-9a-f]{2}/pci_bus/[0-9a-f]{4,8}:[0-9a-f]{2}/`
)

// fileRules are made when a snapshot is: every start of topolet would wait for them.
var fileRules = sync.OnceValue(func() []fileRule {
	return []fileRule{
		{exactly(cpu + `(online|present|isolated|nohz_full)`), cpuList},
		{exactly(cpuN + `(online|cpu_capacity)`), integer},
		{exactly(cpuN + `topology/(physical_package|die|cluster|core)_id`), integer},
		{exactly(cpuN + `topology/[a-z]+_(cpus|siblings)_list`), cpuList},
		{exactly(cpuN + `topology/[a-z]+_(cpus|siblings)`), cpuMask},
		{exactly(cpuN + `cache/index\d+/(level|id)`), integer},
		{exactly(cpuN + `cache/index\d+/type`), matching(regexp.MustCompile(`^(Data|Instruction|Unified)$`))},
		{exactly(cpuN + `cache/index\d+/size`), matching(regexp.MustCompile(`^\d{1,20}K$`))},
		{exactly(cpuN + `cache/index\d+/shared_cpu_list`), cpuList},
		{exactly(cpuN + `cache/index\d+/shared_cpu_map`), cpuMask},
		{exactly(`sys/devices/cpu_(core|atom|lowpower)/cpus`), cpuList},
		{exactly(node + `/cpulist`), cpuList},
		{exactly(node + `/cpumap`), cpuMask},
		{exactly(node + `/meminfo`), memTotal},
		{exactly(node + `/distance`), integers},
		{exactly(node + `/hugepages/hugepages-\d+kB/nr_hugepages`), integer},
		{exactly(pci + `(class|vendor|device|subsystem_vendor|subsystem_device)`), matching(regexp.MustCompile(`^0x[0-9a-fA-F]{1,8}$`))},
		{exactly(pci + `(numa_node|(current|max)_link_width|sriov_(totalvfs|numvfs))`), integer},
		{exactly(pci + `(current|max)_link_speed`), matching(regexp.MustCompile(`^\d{1,4}(\.\d{1,2})? GT/s( PCIe)?$`))},
		{exactly(pci + `local_cpulist`), cpuList},
		{exactly(pci + `local_cpus`), cpuMask},
		{exactly(bus + `cpulistaffinity`), cpuList},
		{exactly(bus + `cpuaffinity`), cpuMask},
	}
})

// dirRules are the directories, and the links between CPUs and nodes, of which
// discovery asks only whether they are there.
var dirRules = sync.OnceValue(func() []*regexp.Regexp {
	return []*regexp.Regexp{
		exactly(cpu + `cpu\d+`),
		exactly(cpuN + `topology`),
		exactly(cpuN + `node\d+`),
		exactly(cpuN + `cache/index\d+`),
		exactly(node),
		exactly(node + `/hugepages/hugepages-\d+kB`),
	}
})

var (
	decimal = regexp.MustCompile(`^\d{1,10}$`)
	// driverName is what drivers call themselves, some of them with a space.
	driverName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_ ()+.-]{0,63}$`)
	pciRoot    = regexp.MustCompile(`^pci[0-9a-f]{4,8}:[0-9a-f]{2}$`)
)

func exactly(path string) *regexp.Regexp { return regexp.MustCompile(`^` + path + `$`) }

func anyMatch(rules []*regexp.Regexp, name string) bool {
	for _, rule := range rules {
		if rule.MatchString(name) {
			return true
		}
	}
	return false
}

func isPCIRoot(name string) bool { return pciRoot.MatchString(name) }

func isPCIAddress(name string) bool {
	a, err := topology.ParsePCIAddress(name)
	return err == nil && a.String() == name
}

// trim takes away what discovery takes away.
func trim(content []byte) string { return string(bytes.Trim(content, " \t\n\x00")) }

func cpuList(text string) (string, bool) {
	set, err := topology.ParseCPUSet(text)
	return set.String(), err == nil
}

// cpuMask keeps the spelling: the words of a mask are hexadecimal digits.
func cpuMask(text string) (string, bool) {
	_, err := topology.ParseCPUMask(text)
	return text, err == nil
}

func integer(text string) (string, bool) {
	if v, err := strconv.ParseInt(text, 10, 64); err == nil {
		return strconv.FormatInt(v, 10), true
	}
	v, err := strconv.ParseUint(text, 10, 64)
	return strconv.FormatUint(v, 10), err == nil
}

func integers(text string) (string, bool) {
	fields := strings.Fields(text)
	for i, field := range fields {
		v, ok := integer(field)
		if !ok {
			return "", false
		}
		fields[i] = v
	}
	return strings.Join(fields, " "), true
}

func matching(form *regexp.Regexp) func(string) (string, bool) {
	return func(text string) (string, bool) { return text, form.MatchString(text) }
}

var memTotalLine = regexp.MustCompile(`^\s*Node (\d{1,10}) MemTotal:\s*(\d{1,20})\s*kB\s*$`)

// memTotal leaves the one line that is read: how much of the memory is in use, and
// for what, is nobody's business.
func memTotal(text string) (string, bool) {
	for line := range strings.Lines(text) {
		if found := memTotalLine.FindStringSubmatch(line); found != nil {
			return fmt.Sprintf("Node %s MemTotal: %s kB", found[1], found[2]), true
		}
	}
	return "", false
}
