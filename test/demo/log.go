package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

// leftAt reads from a workload's log when it lost the last of these CPUs for
// good.
func leftAt(lines []harness.Line, gone topology.CPUSet) (time.Time, error) {
	return since(lines, func(s topology.CPUSet) error {
		if s.Intersects(gone) {
			return fmt.Errorf("it still runs on %s", cpus(s))
		}
		return nil
	})
}

// backAt reads from a workload's log when it got all of these CPUs back.
func backAt(lines []harness.Line, want topology.CPUSet) (time.Time, error) {
	return since(lines, func(s topology.CPUSet) error {
		if !s.Equals(want) {
			return fmt.Errorf("it runs on %s", cpus(s))
		}
		return nil
	})
}

// since is the time from which on all lines satisfy the condition, or what the
// condition says of the last line.
func since(lines []harness.Line, condition func(topology.CPUSet) error) (time.Time, error) {
	var at time.Time
	last := errors.New("it has written nothing yet")
	for _, line := range lines {
		s, err := topology.ParseCPUSet(line.CPUsAllowed)
		if err == nil {
			err = condition(s)
		}
		if err == nil && last != nil {
			at = line.Time
		}
		last = err
	}
	return at, last
}
