package gpu

import "unsafe"

// Ioctl asks drivers for the memory regions of their GPUs by the ioctls that they have for
// it. It opens a card's node for as long as that takes, which needs leave of the node's
// permissions and of the device cgroup. It is safe for concurrent use.
type Ioctl struct {
	// Root is the directory that the host's /dev is in; empty is /.
	Root string
	// Call stands in for ioctl(2) in tests; nil is the kernel's.
	Call func(fd int, request uint, argument unsafe.Pointer) error
}

var _ MemoryQuery = Ioctl{}
