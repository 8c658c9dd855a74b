// Package partition makes a container's cgroup a cpuset partition: the kernel
// itself then keeps every other cgroup of the host off the partition's CPUs,
// whoever asks for them later.
//
// A container's partition is a remote one, of Linux 6.7 or later: its parents
// are no partitions, but pass the CPUs down in cpuset.cpus.exclusive. The
// kernel accepts many writes that it then does not act on, so nothing counts
// here before it was read back.
//
// Sources: Documentation/admin-guide/cgroup-v2.rst (Cpuset) and
// kernel/cgroup/cpuset.c. The kernel wants CAP_SYS_ADMIN of who activates a
// remote partition.
package partition
