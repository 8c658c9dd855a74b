// Package rebind gives PCI functions to vfio drivers, by which virtual machines and
// drivers in user space have them as a whole, and gives them back to the drivers that
// they had.
//
//	native driver ── ToVFIO ─→ vfio driver ── Restore ─→ native driver
//
// What a [Rebinder] does it reads from the machine's files and does by writing to them,
// one function at a time; it remembers nothing but writes that the kernel has not
// answered. What has to be known later, even by another process, is a [State]: its caller
// keeps it, before the first write and after the last.
//
// All that can be seen beforehand is refused beforehand ([RefusedError], [ModuleError]).
// What fails later is undone, so that a function is either given or as it was. The
// exceptions are a write that the kernel does not answer ([StuckError]) and an undoing that
// fails itself: then the state says that the function is under way, and Restore can be
// tried again, at any time and by any process.
package rebind
