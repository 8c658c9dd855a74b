package topology

import (
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/bits-and-blooms/bitset"
)

// MaxCPUs bounds the CPU ids that topolet accepts. The largest NR_CPUS a
// mainline kernel can be built with is 8192 (arch/*/Kconfig); the bound keeps a
// garbled list such as "0-4294967295" from costing memory.
const MaxCPUs = 1 << 14

// CPUSet is a set of CPU ids, kept as a bit mask. The zero value is the empty
// set. A CPUSet is a value: no method changes its receiver, so sets may be
// copied and shared between goroutines freely.
type CPUSet struct {
	bits *bitset.BitSet
}

// NewCPUSet returns the set of the given CPU ids, each of which must lie in
// [0, MaxCPUs).
func NewCPUSet(ids ...int) CPUSet {
	b := &bitset.BitSet{}
	for _, id := range ids {
		b.Set(uint(id))
	}
	return CPUSet{b}
}

// ParseCPUSet reads the kernel's list format, "0-3,8" (Documentation/admin-guide/kernel-parameters.rst,
// "cpu lists"; without the stride form, which the kernel accepts but never
// prints). White space around the list is ignored and the empty string is the
// empty set.
func ParseCPUSet(list string) (CPUSet, error) {
	list = strings.TrimSpace(list)
	if list == "" {
		return CPUSet{}, nil
	}
	var words []uint64
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		lo, err := parseCPU(first)
		if err != nil {
			return CPUSet{}, fmt.Errorf("CPU list %q: %w", shorten(list), err)
		}
		hi := lo
		if isRange {
			if hi, err = parseCPU(last); err != nil {
				return CPUSet{}, fmt.Errorf("CPU list %q: %w", shorten(list), err)
			}
		}
		if hi < lo {
			return CPUSet{}, fmt.Errorf("CPU list %q: range %q runs backwards", shorten(list), shorten(part))
		}
		words = setRange(words, lo, hi)
	}
	return CPUSet{bitset.From(words)}, nil
}

// setRange sets the bits lo to hi, a word at a time: a list that repeats
// "0-16383" over and over must not cost more than it is long.
func setRange(words []uint64, lo, hi uint) []uint64 {
	if need := int(hi/64) + 1; need > len(words) {
		words = append(words, make([]uint64, need-len(words))...)
	}
	for w := lo / 64; w <= hi/64; w++ {
		mask := ^uint64(0)
		if w == lo/64 {
			mask &= ^uint64(0) << (lo % 64)
		}
		if w == hi/64 {
			mask &= ^uint64(0) >> (63 - hi%64)
		}
		words[w] |= mask
	}
	return words
}

// ParseCPUMask reads the kernel's mask format: hexadecimal words of 32 bits
// separated by commas, the most significant first, the first one possibly
// shorter (lib/bitmap.c, "%*pb").
func ParseCPUMask(mask string) (CPUSet, error) {
	b := &bitset.BitSet{}
	mask = strings.TrimSpace(mask)
	if mask == "" {
		return CPUSet{b}, nil
	}
	words := strings.Split(mask, ",")
	if len(words) > MaxCPUs/32 {
		return CPUSet{}, fmt.Errorf("CPU mask of %d words: more than %d CPUs", len(words), MaxCPUs)
	}
	for i, word := range words {
		v, err := strconv.ParseUint(word, 16, 32)
		if err != nil {
			return CPUSet{}, fmt.Errorf("CPU mask %q: word %q is not 32 bits of hexadecimal", shorten(mask), shorten(word))
		}
		base := uint(len(words)-1-i) * 32
		for bit := range uint(32) {
			if v&(1<<bit) != 0 {
				b.Set(base + bit)
			}
		}
	}
	return CPUSet{b}, nil
}

func parseCPU(s string) (uint, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a CPU number", shorten(s))
	}
	if id >= MaxCPUs {
		return 0, fmt.Errorf("CPU number %d is not below %d", id, MaxCPUs)
	}
	return uint(id), nil
}

// shorten keeps error messages readable when a file holds garbage.
func shorten(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// mask returns the bits, also of the zero value.
func (s CPUSet) mask() *bitset.BitSet {
	if s.bits == nil {
		return &bitset.BitSet{}
	}
	return s.bits
}

// Size returns the number of CPUs in the set.
func (s CPUSet) Size() int {
	if s.bits == nil {
		return 0
	}
	return int(s.bits.Count())
}

// IsEmpty reports whether the set has no CPU.
func (s CPUSet) IsEmpty() bool { return s.bits == nil || s.bits.None() }

// Contains reports whether the CPU is in the set.
func (s CPUSet) Contains(id int) bool {
	return s.bits != nil && id >= 0 && s.bits.Test(uint(id))
}

// Equals reports whether both sets hold the same CPUs.
func (s CPUSet) Equals(o CPUSet) bool {
	return s.Size() == o.Size() && s.IsSubsetOf(o)
}

// IsSubsetOf reports whether every CPU of s is in o.
func (s CPUSet) IsSubsetOf(o CPUSet) bool {
	return s.IntersectionSize(o) == s.Size()
}

// IntersectionSize returns the number of CPUs in both sets, without allocating.
func (s CPUSet) IntersectionSize(o CPUSet) int {
	if s.bits == nil || o.bits == nil {
		return 0
	}
	return int(s.bits.IntersectionCardinality(o.bits))
}

// Intersects reports whether a CPU is in both sets, without allocating.
func (s CPUSet) Intersects(o CPUSet) bool { return s.IntersectionSize(o) != 0 }

// Union returns the CPUs in s or in o.
func (s CPUSet) Union(o CPUSet) CPUSet { return CPUSet{s.mask().Union(o.mask())} }

// Intersection returns the CPUs in s and in o.
func (s CPUSet) Intersection(o CPUSet) CPUSet { return CPUSet{s.mask().Intersection(o.mask())} }

// Difference returns the CPUs in s but not in o.
func (s CPUSet) Difference(o CPUSet) CPUSet { return CPUSet{s.mask().Difference(o.mask())} }

// First returns the lowest CPU, or None for the empty set.
func (s CPUSet) First() int {
	if s.bits == nil {
		return None
	}
	id, ok := s.bits.NextSet(0)
	if !ok {
		return None
	}
	return int(id)
}

// All iterates over the CPUs in ascending order.
func (s CPUSet) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		if s.bits == nil {
			return
		}
		for id, ok := s.bits.NextSet(0); ok; id, ok = s.bits.NextSet(id + 1) {
			if !yield(int(id)) {
				return
			}
		}
	}
}

// List returns the CPUs in ascending order.
func (s CPUSet) List() []int {
	ids := make([]int, 0, s.Size())
	for id := range s.All() {
		ids = append(ids, id)
	}
	return ids
}

// String prints the kernel's list format: "0-3,8", and "" for the empty set.
func (s CPUSet) String() string {
	var out []byte
	first, last := None, None
	flush := func() {
		if first == None {
			return
		}
		if len(out) > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, int64(first), 10)
		if last > first {
			out = append(out, '-')
			out = strconv.AppendInt(out, int64(last), 10)
		}
	}
	for id := range s.All() {
		if first != None && id == last+1 {
			last = id
			continue
		}
		flush()
		first, last = id, id
	}
	flush()
	return string(out)
}

// MarshalText implements [encoding.TextMarshaler] with the kernel's list format.
func (s CPUSet) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] for the kernel's list format.
func (s *CPUSet) UnmarshalText(text []byte) error {
	parsed, err := ParseCPUSet(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}
