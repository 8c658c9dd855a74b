// Package sysfs writes to the settings of devices that Linux shows as files, for those who
// keep no device from working: what must not be written to is refused, a file is never made
// or cut, one request is one system call, and the kernel has a bounded time to answer.
//
//	guard := sysfs.NewGuard(writer, time.Minute)
//	err := guard.Write(ctx, "0000:3a:00.0", "sys/bus/pci/devices/0000:3a:00.0/sriov_numvfs", "4")
//
// Some writes wait for a process that has the device open, and cannot be interrupted. The
// [Guard] then answers with a [StuckError] for that function until the kernel has answered.
package sysfs
