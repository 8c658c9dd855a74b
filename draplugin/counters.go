package draplugin

import (
	"fmt"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/topolet/topolet/allocator"
)

// counters keep domains of different levels from giving away the same CPUs: there
// is a counter of one for each unit of the machine, and a device of which a claim
// holds something has used up those of its units (KEP-4815). Without a second
// level there are none.
type counters struct {
	sets []resourceapi.CounterSet
	// set is the index of each unit's set.
	set map[allocator.Unit]int
}

// countersOf makes the sets. The API lets a device use two sets: a socket's units
// are in one if they fit, and small sockets share one.
func countersOf(domains []*allocator.Domain) counters {
	c := counters{set: map[allocator.Unit]int{}}
	for _, units := range unitsBySocket(domains) {
		for some := range slices.Chunk(units, resourceapi.ResourceSliceMaxCountersPerCounterSet) {
			last := len(c.sets) - 1
			if last < 0 || len(c.sets[last].Counters)+len(some) > resourceapi.ResourceSliceMaxCountersPerCounterSet {
				last++
				c.sets = append(c.sets, resourceapi.CounterSet{Name: fmt.Sprintf("cpus-%d", last), Counters: map[string]resourceapi.Counter{}})
			}
			for _, unit := range some {
				c.sets[last].Counters[unit.Name] = one()
				c.set[unit] = last
			}
		}
	}
	return c
}

// unitsBySocket lists the units of each socket, or nothing if all domains are of
// one level.
func unitsBySocket(domains []*allocator.Domain) [][]allocator.Unit {
	var sockets [][]allocator.Unit
	at := map[int]int{}
	seen := map[allocator.Unit]bool{}
	levels := map[allocator.Level]bool{}
	for _, d := range domains {
		levels[d.Level] = true
		for _, unit := range d.Units {
			if seen[unit] {
				continue
			}
			seen[unit] = true
			if _, known := at[unit.Socket]; !known {
				at[unit.Socket] = len(sockets)
				sockets = append(sockets, nil)
			}
			sockets[at[unit.Socket]] = append(sockets[at[unit.Socket]], unit)
		}
	}
	if len(levels) < 2 {
		return nil
	}
	return sockets
}

// consumedBy are the counters that a device of the domain uses up.
func (c counters) consumedBy(d *allocator.Domain) []resourceapi.DeviceCounterConsumption {
	if len(c.sets) == 0 {
		return nil
	}
	var consumed []resourceapi.DeviceCounterConsumption
	at := map[int]int{}
	for _, unit := range d.Units {
		set := c.set[unit]
		i, ok := at[set]
		if !ok {
			i = len(consumed)
			at[set] = i
			consumed = append(consumed, resourceapi.DeviceCounterConsumption{CounterSet: c.sets[set].Name, Counters: map[string]resourceapi.Counter{}})
		}
		consumed[i].Counters[unit.Name] = one()
	}
	return consumed
}

func one() resourceapi.Counter { return resourceapi.Counter{Value: resource.MustParse("1")} }
