package render

import (
	"fmt"

	"github.com/topolet/topolet/topology"
)

// Holding is somebody who has CPUs to themselves.
type Holding struct {
	// Name is what people know them by, such as namespace/name of a claim.
	Name string
	CPUs topology.CPUSet
}

// holders is who holds which CPUs. Each holder has a key of a few letters, which
// says the same as the colour to who cannot tell the colours apart.
type holders struct {
	list []Holding
	of   map[int]int // by CPU
}

func newHolders(list []Holding) holders {
	h := holders{list, map[int]int{}}
	for i, holding := range list {
		for id := range holding.CPUs.All() {
			h.of[id] = i
		}
	}
	return h
}

// key counts A, B … Z, AA, AB …
func key(holder int) string {
	text := ""
	for n := holder; n >= 0; n = n/26 - 1 {
		text = string(rune('A'+n%26)) + text
	}
	return text
}

// fill is the class with the holder's colour.
func fill(holder int) string { return fmt.Sprintf("h%d", holder%len(holderColours)) }
