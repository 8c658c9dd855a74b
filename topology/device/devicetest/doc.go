// Package devicetest makes hosts with devices for tests: directories with the files and
// links that Linux shows for PCI functions and their drivers. What is not said is as on
// a machine of two NUMA nodes with 64 CPUs each.
//
//	host := devicetest.New(t)
//	gpu := devicetest.Function{Path: "/sys/devices/pci0000:37/0000:37:01.0", Vendor: 0x8086, Device: 0x56c0, Class: 0x038000, Group: 42, Driver: "i915"}
//	host.Add(gpu)
//	host.Char(gpu.Path, "drm/card1", "226:1", "dri/card1")
//	devices := host.Discover(family)
package devicetest
