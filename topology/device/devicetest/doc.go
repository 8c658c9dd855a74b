// Package devicetest makes hosts with devices for tests: directories with the files and
// links that Linux shows for PCI functions and their drivers. What is not said is as on
// a machine of two NUMA nodes with 64 CPUs each.
//
//	host := devicetest.New(t)
//	gpu := devicetest.Function{Path: "/sys/devices/pci0000:37/0000:37:01.0", Vendor: 0x8086, Device: 0x56c0, Class: 0x038000, Group: 42, Driver: "i915"}
//	host.Add(gpu)
//	host.Char(gpu.Path, "drm/card1", "226:1", "dri/card1")
//	devices := host.Discover(family)
//
// Such a host only shows. What writes to it as well goes through a [Kernel], which changes
// the files as Linux does (drivers that are bound and unbound, virtual functions, QAT's and
// idxd's settings), keeps a journal, and can be told to refuse or not to answer.
package devicetest
