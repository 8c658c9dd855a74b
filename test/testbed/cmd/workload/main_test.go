package main

import (
	"strings"
	"testing"
)

func TestCPUList(t *testing.T) {
	for want, mask := range map[string][]byte{
		"":          {0, 0},
		"0":         {1},
		"0-1":       {3, 0},
		"1,3-4,7-8": {0b10011010, 1},
		"0-15":      {0xff, 0xff},
	} {
		if got := cpuList(mask); got != want {
			t.Errorf("cpuList(%08b) = %q, want %q", mask, got, want)
		}
	}
}

// The two ways to ask the kernel have to agree about this very process.
func TestObserveAgreesWithItself(t *testing.T) {
	p := observe()
	if p.CPUsAllowed == "" || p.MemsAllowed == "" {
		t.Fatalf("the kernel says nothing: %+v", p)
	}
	if p.Affinity != p.CPUsAllowed {
		t.Errorf("affinity %q differs from the allowed CPUs %q", p.Affinity, p.CPUsAllowed)
	}
	if strings.ContainsAny(p.CgroupCPUs, " \n") {
		t.Errorf("the cgroup's CPUs are not trimmed: %q", p.CgroupCPUs)
	}
}
