package gpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
)

// MemoryQuery tells how much local memory a GPU has where its driver has no file for it,
// as those of current kernels.
type MemoryQuery interface {
	// LocalMemory returns the bytes of a function that is bound to i915 or xe and has this
	// card; 0 if it has no memory of its own. It is called once for each function at each
	// discovery, not concurrently.
	LocalMemory(f topology.PCIFunction, card device.Node) (uint64, error)
}

// memory returns the local memory of a function in bytes, 0 where it has none or does not
// tell: what i915's drm/cardN/lmem_total_bytes says, or else what the driver answers.
func (g Family) memory(h *device.Host, f topology.PCIFunction, nodes []device.Node) (uint64, error) {
	for _, card := range cards(h, f) {
		text, err := h.ReadError(cardDir(f, card) + "/lmem_total_bytes")
		if device.Resetting(err) {
			return 0, err
		}
		if bytes, err := strconv.ParseUint(text, 10, 64); err == nil {
			return bytes, nil
		}
	}
	if g.Memory == nil || integrated(f) || len(nodes) == 0 || nodes[0].Role != Card {
		return 0, nil
	}
	return g.Memory.LocalMemory(f, nodes[0])
}

// maxMemory is 1 PiB: more than any GPU has, and less than the API's numbers end at.
const maxMemory = 1 << 50

// memoryCapacity is the capacity of so much memory, for information; none for a size that
// no GPU has.
func memoryCapacity(bytes uint64) []device.Capacity {
	if bytes == 0 || bytes > maxMemory {
		return nil
	}
	return []device.Capacity{{Name: "memory", Amount: bytes, Bytes: true}}
}

// The drivers' answers are a count, padded to the length of a header, and so many regions,
// which are alike (drm_xe_query_mem_regions in include/uapi/drm/xe_drm.h,
// drm_i915_query_memory_regions in include/uapi/drm/i915_drm.h): class in 16 bits, instance in
// 16, something in 32, size in 64, and what does not matter here.
const (
	xeHeader, i915Header = 8, 16

	regionBytes = 88
	sizeOffset  = 8
	classLocal  = 1
)

// maxAnswer bounds the answer that is asked for: GPUs have a region or two for each tile.
const maxAnswer = 64 << 10

// errAnswer is of an answer that is none.
var errAnswer = errors.New("the driver's answer makes no sense")

// askTwice asks a driver for its regions: first how long the answer is, with nothing to
// put it into, then for the answer. Both times the length is returned.
func askTwice(header int, ask func(answer []byte) (length int, err error)) (uint64, error) {
	length, err := ask(nil)
	if err != nil {
		return 0, err
	}
	if length < header || length > maxAnswer {
		return 0, fmt.Errorf("%w: it is %d bytes long", errAnswer, length)
	}
	answer := make([]byte, length)
	again, err := ask(answer)
	if err != nil {
		return 0, err
	}
	if again != length {
		return 0, fmt.Errorf("%w: it is %d bytes long, and then %d", errAnswer, length, again)
	}
	return localMemory(answer, header)
}

// localMemory sums up the sizes of the regions that are in the GPU.
func localMemory(answer []byte, header int) (uint64, error) {
	if len(answer) < header {
		return 0, fmt.Errorf("%w: %d bytes are less than a header", errAnswer, len(answer))
	}
	count, regions := binary.NativeEndian.Uint32(answer), answer[header:]
	if uint64(count)*regionBytes > uint64(len(regions)) {
		return 0, fmt.Errorf("%w: %d regions in %d bytes", errAnswer, count, len(regions))
	}
	sum := uint64(0)
	for range count {
		if binary.NativeEndian.Uint16(regions) == classLocal {
			size := binary.NativeEndian.Uint64(regions[sizeOffset:])
			if size > maxMemory-sum {
				return 0, fmt.Errorf("%w: a region of %d bytes", errAnswer, size)
			}
			sum += size
		}
		regions = regions[regionBytes:]
	}
	return sum, nil
}
