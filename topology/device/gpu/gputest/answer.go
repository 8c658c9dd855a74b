// Package gputest stands in for the drivers of GPUs in tests: what they answer when they are
// asked for their memory, and a kernel that passes their answers on.
package gputest

import (
	"encoding/binary"
	"math"
)

// Region is a region of memory in a driver's answer.
type Region struct {
	Class, Instance uint16
	Bytes           uint64
}

// The classes of regions.
const (
	System = 0
	Local  = 1
)

// Headers are the lengths of what drivers' answers begin with, by driver: the count and
// padding.
var Headers = map[string]int{"xe": 8, "i915": 16}

// Answer is what a driver with such a header answers.
func Answer(header int, regions ...Region) []byte {
	text := binary.NativeEndian.AppendUint32(nil, uint32(len(regions))) //nolint:gosec // a few
	text = append(text, make([]byte, header-len(text))...)
	for _, r := range regions {
		text = binary.NativeEndian.AppendUint16(text, r.Class)
		text = binary.NativeEndian.AppendUint16(text, r.Instance)
		text = binary.NativeEndian.AppendUint32(text, 4096)
		text = binary.NativeEndian.AppendUint64(text, r.Bytes)
		// What is used, visible and reserved is something else.
		for range 9 {
			text = binary.NativeEndian.AppendUint64(text, math.MaxUint64)
		}
	}
	return text
}
