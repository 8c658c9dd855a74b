package gpu_test

import (
	"encoding/binary"
	"errors"
	"math"
	"syscall"
	"testing"

	"github.com/topolet/topolet/topology/device/gpu"
	"github.com/topolet/topolet/topology/device/gpu/gputest"
)

const system, local = gputest.System, gputest.Local

func region(class, instance uint16, bytes uint64) gputest.Region {
	return gputest.Region{Class: class, Instance: instance, Bytes: bytes}
}

// driver answers as drivers do: with the length, and with as much as there is room for.
func driver(text []byte) func([]byte) (int, error) {
	return func(room []byte) (int, error) {
		copy(room, text)
		return len(text), nil
	}
}

func TestLocalMemoryIsWhatIsInTheGPU(t *testing.T) {
	for name, test := range map[string]struct {
		regions []gputest.Region
		want    uint64
	}{
		"no regions":     {nil, 0},
		"integrated":     {[]gputest.Region{region(system, 0, 64<<30)}, 0},
		"a card":         {[]gputest.Region{region(system, 0, 64<<30), region(local, 0, 12<<30)}, 12 << 30},
		"two tiles":      {[]gputest.Region{region(local, 0, 48<<30), region(system, 0, 64<<30), region(local, 1, 48<<30+4096)}, 96<<30 + 4096},
		"nothing in it":  {[]gputest.Region{region(local, 0, 0)}, 0},
		"something else": {[]gputest.Region{region(2, 0, 1<<30), region(local|1<<8, 0, 1<<30)}, 0},
	} {
		for kind, header := range gputest.Headers {
			if got, err := gpu.AskTwice(header, driver(gputest.Answer(header, test.regions...))); err != nil || got != test.want {
				t.Errorf("%s, %s: got %d, %v, want %d", kind, name, got, err, test.want)
			}
		}
	}
}

// TestAnAnswerIsNoLongerThanItIs has answers that end anywhere before their last region does.
func TestAnAnswerIsNoLongerThanItIs(t *testing.T) {
	for kind, header := range gputest.Headers {
		text := gputest.Answer(header, region(system, 0, 64<<30), region(local, 0, 12<<30))
		for end := range text {
			if got, err := gpu.AskTwice(header, driver(text[:end])); err == nil {
				t.Errorf("%s: %d bytes of %d are %d", kind, end, len(text), got)
			}
		}
		if got, err := gpu.AskTwice(header, driver(append(text, 1, 2, 3))); err != nil || got != 12<<30 {
			t.Errorf("%s: got %d, %v with more at the end", kind, got, err)
		}
	}
}

func TestAnAnswerThatMakesNoSenseIsRefused(t *testing.T) {
	for kind, header := range gputest.Headers {
		many := gputest.Answer(header, region(local, 0, 1<<30))
		binary.NativeEndian.PutUint32(many, math.MaxUint32)
		// So many times 88 is 0 in 32 bits.
		wrapping := gputest.Answer(header, region(local, 0, 1<<30))
		binary.NativeEndian.PutUint32(wrapping, 1<<29)
		for name, text := range map[string][]byte{
			"regions without end":            many,
			"a length that begins anew":      wrapping,
			"a size without end":             gputest.Answer(header, region(local, 0, math.MaxUint64)),
			"a sum that begins anew":         gputest.Answer(header, region(local, 0, 1<<40), region(local, 1, math.MaxUint64-1<<39)),
			"a sum that is a little too big": gputest.Answer(header, region(local, 0, 1<<50), region(local, 1, 1)),
		} {
			if got, err := gpu.AskTwice(header, driver(text)); err == nil {
				t.Errorf("%s, %s: got %d", kind, name, got)
			}
		}
		for _, length := range []int{math.MinInt32, -1, 0, header - 1, 64<<10 + 1, math.MaxInt32} {
			if _, err := gpu.AskTwice(header, func([]byte) (int, error) { return length, nil }); err == nil {
				t.Errorf("%s: a length of %d is taken", kind, length)
			}
		}
	}
}

func TestAnAnswerThatChangesMeanwhileIsRefused(t *testing.T) {
	text := gputest.Answer(8, region(local, 0, 1<<30))
	for _, again := range []int{len(text) - 1, len(text) + 88, 0} {
		_, err := gpu.AskTwice(8, func(room []byte) (int, error) {
			if copy(room, text) == 0 {
				return len(text), nil
			}
			return again, nil
		})
		if err == nil {
			t.Errorf("first %d bytes, then %d", len(text), again)
		}
	}
}

func TestWhyADriverRefusesIsTold(t *testing.T) {
	text := gputest.Answer(8, region(local, 0, 1<<30))
	for _, refusing := range []int{1, 2} {
		asked := 0
		_, err := gpu.AskTwice(8, func(room []byte) (int, error) {
			if asked++; asked == refusing {
				return len(text), syscall.EACCES
			}
			return driver(text)(room)
		})
		if !errors.Is(err, syscall.EACCES) || asked != refusing {
			t.Errorf("asked %d times: %v", asked, err)
		}
	}
}
