package allocator

import (
	"cmp"
	"slices"
)

// roster holds containers in the order of their ids, so that every list of them is
// ordered without sorting.
type roster []*tracked

func (r roster) find(id ContainerID) (int, bool) {
	return slices.BinarySearchFunc(r, id, func(c *tracked, id ContainerID) int { return cmp.Compare(c.ID, id) })
}

func (r roster) get(id ContainerID) (*tracked, bool) {
	i, ok := r.find(id)
	if !ok {
		return nil, false
	}
	return r[i], true
}

// put enters a container, in the place of one with the same id.
func (r *roster) put(c *tracked) {
	i, ok := r.find(c.ID)
	if ok {
		(*r)[i] = c
		return
	}
	*r = slices.Insert(*r, i, c)
}

func (r *roster) remove(id ContainerID) {
	if i, ok := r.find(id); ok {
		*r = slices.Delete(*r, i, i+1)
	}
}
