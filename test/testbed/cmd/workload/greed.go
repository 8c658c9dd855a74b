package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// insistPause is how long a greedy thread works before it asks for its CPU again.
const insistPause = 10 * time.Millisecond

// greed starts, for each CPU of the list, a thread that does nothing but use time, and
// that asks for this CPU again and again. Where it may not have it, it works wherever the
// kernel lets it.
func greed(list string) error {
	if list == "" {
		return nil
	}
	cpus, err := parseList(list)
	if err != nil {
		return err
	}
	for _, cpu := range cpus {
		go func() {
			runtime.LockOSThread()
			var last time.Time
			for {
				if now := time.Now(); now.Sub(last) > insistPause {
					insist(cpu)
					last = now
				}
			}
		}()
	}
	return nil
}

// insist confines the calling thread to one CPU. That the kernel refuses is what tests
// are about.
func insist(cpu int) {
	var mask [1024]byte
	mask[cpu/8] = 1 << (cpu % 8)
	_, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, uintptr(len(mask)),
		uintptr(unsafe.Pointer(&mask[0]))) //nolint:gosec // the kernel has to be told what to read
}

// rewrite writes to a file of the kernel again and again, FILE=CONTENT.
func rewrite(setting string) error {
	if setting == "" {
		return nil
	}
	file, content, ok := strings.Cut(setting, "=")
	if !ok {
		return fmt.Errorf("-rewrite %q: write FILE=CONTENT", setting)
	}
	if err := os.WriteFile(file, []byte(content), 0); err != nil {
		return err // who cannot do it once does not test anything
	}
	go func() {
		for range time.Tick(insistPause) {
			_ = os.WriteFile(file, []byte(content), 0)
		}
	}()
	return nil
}

// parseList reads the kernel's list format, "0-3,8".
func parseList(list string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		lo, err := strconv.Atoi(first)
		if err != nil {
			return nil, fmt.Errorf("-spin %q: %w", list, err)
		}
		hi, err := strconv.Atoi(last)
		if err != nil || lo < 0 || hi >= 8*1024 || lo > hi {
			return nil, fmt.Errorf("-spin %q: %q is no range of CPUs", list, part)
		}
		for cpu := lo; cpu <= hi; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}
