// Package nriplugin is topolet's side towards the container runtime: a plugin of
// the Node Resource Interface of containerd and CRI-O.
//
// Every event of a container's life goes into the ledger, and what the ledger
// then wants of the containers goes back to the runtime in the same reply:
//
//	Synchronize      all running containers; once after every connect
//	CreateContainer  the container's CPUs, and new CPUs for others: the shared
//	                 pool shrinks before an exclusive container exists, except
//	                 where the kernel takes the CPUs from all others at its start
//	PostCreate       from here on the runtime heeds updates of the container
//	StartContainer   the cgroup exists and the workload has not run: the CPUs are
//	                 read back from the kernel, which is asked to keep everyone else
//	                 off them (package partition); what is not so fails the start
//	PostStart        updates that came meanwhile were not heeded: they come again
//	UpdateContainer  the container keeps its CPUs whatever else changes
//	Stop, Remove     the container is forgotten; either may be missing
//
// Between the events the kernel's cpusets and partitions are held against the ledger
// now and then, and put right. A second connection, the [Guard], refuses containers
// that no active plugin has placed. Where the runtime asks neither, a container of a claim
// cannot be created, because nobody takes its mount [allocator.Unplaced] away.
//
// CPUs that come back outside any event ([Plugin.Push]) are given to the shared
// containers by an update of the plugin's own accord.
//
// A container is recognised by the CDI devices that the kubelet passed for it,
// which name a claim, and by its pod's UID, for which the claim must have been
// reserved. Environment variables and annotations are never read.
package nriplugin
