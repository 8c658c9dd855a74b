// Command workload says, one JSON object a line, where the kernel lets it run:
// at its first instruction and again whenever that has changed. Tests read its log
// to see whether it was ever outside the CPUs that were promised to it. If asked, it
// first takes memory and reads devices, or is greedy for CPUs that are not its own.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// placement is what the kernel says about where this process may run. A field
// is empty when the kernel does not say.
type placement struct {
	CPUsAllowed string `json:"cpusAllowed"` // Cpus_allowed_list of /proc/self/status
	MemsAllowed string `json:"memsAllowed"` // Mems_allowed_list of /proc/self/status
	Affinity    string `json:"affinity"`    // sched_getaffinity
	Cgroup      string `json:"cgroup,omitempty"`
	CgroupCPUs  string `json:"cgroupCPUs,omitempty"` // effective set of that cgroup
	CgroupMems  string `json:"cgroupMems,omitempty"`
	Partition   string `json:"partition,omitempty"` // cpuset.cpus.partition, cgroup v2
}

type event struct {
	Event string    `json:"event"`
	Time  time.Time `json:"time"`
	placement
}

func main() {
	first := observe()
	out := json.NewEncoder(os.Stdout)
	say := func(kind string, p placement) {
		if err := out.Encode(event{Event: kind, Time: time.Now().UTC(), placement: p}); err != nil {
			os.Exit(1)
		}
	}
	say("start", first)

	life := flag.Duration("for", 0, "end by itself after this `duration`; 0 means never")
	code := flag.Int("exit-code", 0, "exit `code` when it ends by itself")
	interval := flag.Duration("interval", 10*time.Millisecond, "`pause` between two looks")
	touch := flag.Int("touch", 0, "keep so many `MiB` of memory, every page of it written to")
	files := flag.String("read", "", "read the beginning of every file of this `pattern`, or fail")
	others := flag.String("refused", "", "have the kernel refuse the devices of this `list`, b:MAJOR:MINOR or c:MAJOR:MINOR, that are not in /dev, or fail")
	groups := flag.String("vfio", "", "use the IOMMU group of every file of this `pattern`, or fail")
	spin := flag.String("spin", "", "use all time of the CPUs of this `list`, as far as the kernel lets it")
	setting := flag.String("rewrite", "", "write this `FILE=CONTENT` again and again, at first or fail")
	flag.Parse()
	if *interval <= 0 {
		fmt.Fprintln(os.Stderr, "workload: -interval must be positive, for example 10ms")
		os.Exit(2)
	}
	if err := errors.Join(readAll(*files), viable(*groups), refused(*others)); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
	if err := errors.Join(rewrite(*setting), greed(*spin)); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
	memory := touched(*touch)
	defer runtime.KeepAlive(memory)

	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM, syscall.SIGINT)
	var over <-chan time.Time
	if *life > 0 {
		over = time.After(*life)
	}
	tick := time.NewTicker(*interval)
	for last := first; ; {
		select {
		case <-terminated:
			say("end", last)
			return
		case <-over:
			say("end", last)
			os.Exit(*code)
		case <-tick.C:
			// A look during a change is half old and half new: only what two looks
			// in a row agree on was ever true.
			if now := observe(); now != last && now == observe() {
				say("change", now)
				last = now
			}
		}
	}
}

// readAll reads the beginning of each file of a pattern, of which there must be one.
func readAll(pattern string) error {
	if pattern == "" {
		return nil
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		return errors.Join(fmt.Errorf("there is no %s", pattern), err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		_, err = io.ReadFull(f, make([]byte, 4096))
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
	}
	return nil
}

// touched is memory that the kernel had to give, not only to promise.
func touched(mib int) []byte {
	memory := make([]byte, mib<<20)
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	return memory
}

func observe() placement {
	var p placement
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			p.CPUsAllowed = strings.TrimSpace(v)
		} else if v, ok := strings.CutPrefix(line, "Mems_allowed_list:"); ok {
			p.MemsAllowed = strings.TrimSpace(v)
		}
	}
	p.Affinity = affinity()
	membership, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(membership)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		controllers, path := parts[1], parts[2]
		switch {
		case slices.Contains(strings.Split(controllers, ","), "cpuset"):
			p.Cgroup = path
			// Inside a container the mount shows the container's own cgroup
			// as its root, under whichever path the membership names.
			for _, dir := range []string{"/sys/fs/cgroup/cpuset" + path, "/sys/fs/cgroup/cpuset"} {
				if p.readCgroup(dir, "cpuset.effective_cpus", "cpuset.effective_mems") {
					break
				}
			}
		case controllers == "" && p.Cgroup == "":
			p.Cgroup = path
			for _, dir := range []string{"/sys/fs/cgroup" + path, "/sys/fs/cgroup"} {
				if p.readCgroup(dir, "cpuset.cpus.effective", "cpuset.mems.effective") {
					break
				}
			}
		}
	}
	return p
}

func (p *placement) readCgroup(dir, cpus, mems string) bool {
	value, err := os.ReadFile(dir + "/" + cpus)
	if err != nil {
		return false
	}
	p.CgroupCPUs = strings.TrimSpace(string(value))
	value, _ = os.ReadFile(dir + "/" + mems)
	p.CgroupMems = strings.TrimSpace(string(value))
	value, _ = os.ReadFile(dir + "/cpuset.cpus.partition")
	p.Partition = strings.TrimSpace(string(value))
	return true
}

// affinity is the mask of the calling thread as a CPU list.
func affinity() string {
	var mask [1024]byte
	n, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, uintptr(len(mask)),
		uintptr(unsafe.Pointer(&mask[0]))) //nolint:gosec // the kernel has to be told where to write
	if errno != 0 {
		return ""
	}
	return cpuList(mask[:n])
}

// cpuList writes a bit mask the way the kernel does: "0-3,8".
func cpuList(mask []byte) string {
	var b strings.Builder
	for cpu := 0; cpu < len(mask)*8; cpu++ {
		if !isSet(mask, cpu) {
			continue
		}
		last := cpu
		for last+1 < len(mask)*8 && isSet(mask, last+1) {
			last++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(cpu))
		if last > cpu {
			b.WriteString("-" + strconv.Itoa(last))
		}
		cpu = last
	}
	return b.String()
}

func isSet(mask []byte, cpu int) bool { return mask[cpu/8]&(1<<(cpu%8)) != 0 }
