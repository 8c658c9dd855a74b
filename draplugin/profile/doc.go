// Package profile sets devices up as the configuration wants them: how many virtual
// functions a card has, what a crypto accelerator offers, how a data accelerator is divided
// into work queues.
//
//	Profile ─┐
//	         ├→ Plans ─→ []Write ─→ Engine.Apply ─→ Result, one for each function
//	sysfs ───┘                          │
//	                                    └→ []State, what was there before
//
// [Plans] only reads: it compares what profiles want of a machine's functions with what the
// drivers' files say, and returns the writes that lead there, in the order that the kernel
// asks for. Where nothing differs there is nothing to write. What kinds of settings there
// are, and in which order they are written, each family knows for itself (sriov.go, qat.go,
// idxd.go, dlb.go).
//
// An [Engine] makes these writes. Nothing is written while anybody uses the function, a part
// of it or one of its virtual functions: then the result is [Pending]. What a function was
// like before the first write since the machine started is kept in a [State]; when no
// profile matches the function any more, that is what it is brought to, in the same way.
// If a write fails, the function is brought back to where it was before the attempt. Other
// functions are not affected.
package profile
